"""Calls that a VM has under way: their numbers, whose they are, and how many there may be. No I/O.

Source: Envoy's numbering (the two low bits of a token tell its kind). A call belongs to the plugin that made
it, lives until its answer has been dealt with, and is given up when the plugin ends. Who carries calls out is
not known here: they leave as effects (`deferred.py`) and come back through `Plugin`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from abi.proxy_wasm.deferred import CallOut, CancelCall, Deferred

if TYPE_CHECKING:
    from abi.proxy_wasm.header_map import HeaderMap
    from abi.proxy_wasm.plugin import Plugin

HTTP_CALL, GRPC_CALL, GRPC_STREAM, FURTHER_CALL = range(4)
"""Kinds of calls, the low two bits of their tokens. The last one is for extensions."""

MAX_CALLS = 1024
"""Calls that one VM may have under way (Envoy's circuit breakers let as many through by default)."""

MAX_CALL_BYTES = 1 << 26
"""Bytes of all that the calls of one VM hold here: what they send, until it is sent or they are over."""

SEND_COST = 128
"""About what a message that waits to be sent takes here besides its bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, readable in the callback about it and nowhere else: by map type and by buffer type."""

    maps: Mapping[int, HeaderMap] = field(default_factory=dict)
    buffers: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One call under way. `held` are the bytes it keeps here."""

    token: int
    plugin: Plugin
    held: int
    ended_here: bool = False  # streams: nothing more is sent
    ended_there: bool = False  # the guest is being told of the end
    lasting: bool = False  # it has no end of its own

    @property
    def kind(self) -> int:
        return self.token & 3


class Calls:
    """The calls of one VM."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._last = [0, 0, 0, 0]  # per kind, as in Envoy
        self._held = 0

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, kind: int, plugin: Plugin, size: int, lasting: bool = False) -> int | None:
        """The token of a new call that keeps `size` bytes; None when there are too many, or too much.

        A `lasting` one is there until its plugin ends, and nobody waits for it.
        """
        if len(self._calls) >= MAX_CALLS or self._held + size > MAX_CALL_BYTES:
            return None
        while True:
            self._last[kind] = self._last[kind] % 0x3FFF_FFFF + 1
            token = self._last[kind] << 2 | kind
            if token not in self._calls:
                break
        self._calls[token] = Call(token, plugin, size, lasting=lasting or kind == GRPC_STREAM)
        self._held += size
        return token

    def find(self, plugin: Plugin, token: int) -> Call | None:
        """A call of this plugin; None when it has none of this number (any more)."""
        call = self._calls.get(token)
        return call if call is not None and call.plugin is plugin else None

    def end(self, token: int) -> None:
        """A call is over; nothing happens when it was before."""
        call = self._calls.pop(token, None)
        if call is not None:
            self._held -= call.held

    def expected(self, plugin: Plugin) -> bool:
        """Whether answers are to come by themselves; streams may stay open for ever."""
        return any(call.plugin is plugin and not call.lasting for call in self._calls.values())

    def give_up(self, call: Call, deferred: deque[Deferred]) -> None:
        """End a call that nobody wants any more. What still waits in `deferred` of it is taken back."""
        self.end(call.token)
        kept = [one for one in deferred if not (isinstance(one, CallOut) and one.token == call.token)]
        if len(kept) < len(deferred):
            deferred.clear()
            deferred.extend(kept)
        deferred.append(CancelCall(call.plugin, call.token))

    def of(self, plugin: Plugin) -> list[Call]:
        """The calls of a plugin, the oldest first."""
        return [call for call in self._calls.values() if call.plugin is plugin]

    def hold(self, call: Call, size: int) -> bool:
        """Let a call keep more bytes; False when that would be too much."""
        if self._held + size > MAX_CALL_BYTES:
            return False
        call.held += size
        self._held += size
        return True

    def release(self, call: Call, size: int) -> None:
        """Bytes of a call have been sent."""
        size = min(size, call.held)
        call.held -= size
        self._held -= size
