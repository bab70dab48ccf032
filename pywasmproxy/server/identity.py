"""Who this process is: what format strings and forwarded requests say about the machine and the proxy."""

from __future__ import annotations

import os
import socket
from functools import cache

from pywasmproxy.config.model import Node
from pywasmproxy.sansio.arrival import Self
from pywasmproxy.sansio.format import Origin

_ANYWHERE = ("192.0.2.1", 9)
"""An address that nobody has (RFC 5737): asked for a way to it, the system names the address it would use."""


@cache
def own_address() -> str:
    """An address of this machine that others may reach; `127.0.0.1` without a network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def origin() -> Origin:
    """What format strings know about the process."""
    return Origin(hostname=socket.gethostname(), environ=dict(os.environ))


def itself(node: Node) -> Self:
    """How the proxy calls itself towards upstreams."""
    return Self(address=own_address(), service_cluster=node.cluster, service_node=node.id)
