"""What filters ask of their exchange, queued until the running callback has returned.

One `Asks` per stream, one `StreamCallbacks` per filter. The first answer (or close) wins, and from the moment
it is asked for nothing is passed on any more: whatever else the filter's callback returned is of no interest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import StreamType
from pywasmproxy.sansio.filter import HttpFilter
from pywasmproxy.sansio.local_reply import LocalReply


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on where the message waits at this filter."""

    filter: HttpFilter
    stream_type: StreamType


@dataclass(frozen=True, slots=True)
class Close:
    """End without a (further) response."""


@dataclass(frozen=True, slots=True)
class Reroute:
    """Choose the route again."""


@dataclass(frozen=True, slots=True)
class Inject:
    """Send part of a response's body from this filter on."""

    filter: HttpFilter
    data: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class LimitBuffer:
    """Let so many bytes of the request's or response's body wait."""

    stream_type: StreamType
    size: int


Ask: TypeAlias = LocalReply | Continue | Close | Reroute | Inject | LimitBuffer


class Asks:
    """A FIFO of asks. `woken` is called for the first one that comes while nobody is there to take it."""

    __slots__ = ("_woken", "answer_due", "attended", "closed", "host", "queue", "route_headers")

    def __init__(self, woken: Callable[[], None]) -> None:
        self.queue: deque[Ask] = deque()
        self._woken = woken
        self.attended = False  # an event is being worked on, asks will be taken at its end
        self.answer_due = False  # an answer or a close is among them
        self.closed = False
        # These count at once, the router may come next:
        self.host = ""  # that the request shall go to
        self.route_headers: HeaderMap | None = None  # that decide on the route, whatever becomes of them

    def __bool__(self) -> bool:
        return bool(self.queue)

    def put(self, ask: Ask) -> None:
        """Ask for something; ignored after the end and after the first answer."""
        if self.closed:
            return
        if isinstance(ask, LocalReply | Close):
            if self.answer_due:
                return
            self.answer_due = True
        self.queue.append(ask)
        if len(self.queue) == 1 and not self.attended:
            self._woken()

    def take(self) -> Ask | None:
        """The next one; None when there is none."""
        if not self.queue:
            return None
        ask = self.queue.popleft()
        if isinstance(ask, LocalReply | Close):
            self.answer_due = False
        return ask

    def close(self) -> None:
        """The exchange is over: nothing can be asked any more."""
        self.closed = True
        self.answer_due = False
        self.queue.clear()
        self._woken = _nobody


class StreamCallbacks:
    """`FilterCallbacks` of one filter."""

    __slots__ = ("_asks", "_waits_at", "filter")

    def __init__(self, asks: Asks, waits_at: Callable[[HttpFilter], bool]) -> None:
        self._asks, self._waits_at = asks, waits_at
        self.filter: HttpFilter | None = None  # set as soon as the filter is made

    def continue_stream(self, stream_type: StreamType) -> None:
        if self.filter is not None:
            self._asks.put(Continue(self.filter, stream_type))

    def reply(self, reply: LocalReply) -> None:
        self._asks.put(reply)

    def close(self) -> None:
        self._asks.put(Close())

    def clear_route_cache(self) -> None:
        self._asks.put(Reroute())

    def inject_response_body(self, data: bytes, end_of_stream: bool) -> None:
        if self.filter is not None:
            self._asks.put(Inject(self.filter, data, end_of_stream))

    def override_host(self, address: str) -> None:
        self._asks.host = address

    def keep_route(self, headers: HeaderMap) -> None:
        if self._asks.route_headers is None:
            self._asks.route_headers = headers

    def limit_buffer(self, stream_type: StreamType, size: int) -> None:
        self._asks.put(LimitBuffer(stream_type, size))

    @property
    def waiting(self) -> bool:
        return self.filter is not None and self._waits_at(self.filter)


def _nobody() -> None:
    """Nobody is left to be woken."""
