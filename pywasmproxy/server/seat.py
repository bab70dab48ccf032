"""`Seat`: what a worker has from the process that forked it: ports, its place among the others, two pipes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.server.accept import Balance

PortKey = tuple[str, int, str]


def port_key(config: ListenerConfig) -> PortKey:
    """What a listener's port is known by; one that the system chooses is that of the listener of a name."""
    where = config.address
    return where.host, where.port, "" if where.port else config.name


@dataclass
class Seat:
    """The place of one worker.

    `folder` is there for the workers of this proxy only; `alive` is the end of a pipe that ends with the
    parent, however that ends; `ready` is where the parent reads that the worker serves; `replaces`: there was
    another worker in this place. `serves`: this one has told that it serves.
    """

    index: int
    balance: Balance
    folder: str
    alive: int
    ready: int
    sockets: dict[PortKey, list[socket.socket]] = field(default_factory=dict)
    replaces: bool = False
    serves: bool = False

    def take(self, config: ListenerConfig) -> list[socket.socket]:
        """The sockets that the parent bound for a listener; none for one that it does not know."""
        wanted = port_key(config)
        for key, sockets in self.sockets.items():
            # A configuration of now may name the port that the system chose for that of then.
            if key == wanted or sockets[0].getsockname()[:2] == wanted[:2]:
                return copies(sockets)
        return []

    def serving(self) -> None:
        """The worker serves: tell the parent, and keep nothing but what listeners have."""
        for one in (one for sockets in self.sockets.values() for one in sockets):
            one.close()
        self.sockets.clear()
        os.write(self.ready, b"R")
        os.close(self.ready)
        self.serves = True


def copies(sockets: Iterable[socket.socket]) -> list[socket.socket]:
    """The same sockets once more; whoever closes one closes his own."""
    return [socket.socket(fileno=os.dup(one.fileno())) for one in sockets]
