"""`Passage`: how one message - the request or the response - goes through the filters, pauses included.

Source: the rules of Envoy's filter manager as measured (`golden/flow.json`, `body.json`): what each kind of
stop holds back, where iteration goes on, one body call with everything that waited. Unlike Envoy's, a body
waits with the filter that holds it, so several filters may hold at a time. A passage knows nothing of HTTP
beyond headers, body, trailers; what happens around the message is its `Outlet`'s business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Protocol

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action
from pywasmproxy.sansio.filter import HttpFilter


class Hold(Enum):
    """Why a message waits at a filter."""

    NONE = "none"
    SINGLE = "single"  # later frames still come to this filter, and stop here
    BUFFER = "buffer"  # nothing comes any more; body beyond the limit is an error
    WATERMARK = "watermark"  # nothing comes any more; body beyond the limit pauses the sender

    @property
    def total(self) -> bool:
        """Whether not even the filter itself gets to see what comes."""
        return self is Hold.BUFFER or self is Hold.WATERMARK


_HEADERS_HOLD = {
    Action.STOP_ALL_AND_BUFFER: Hold.BUFFER,
    Action.STOP_ALL_AND_WATERMARK: Hold.WATERMARK,
}
"""What a headers callback's answer holds; any other pause is a SINGLE."""


class Place:
    """A filter's place in one passage, with what waits there."""

    __slots__ = (
        "body",
        "complete",
        "filter",
        "finished",
        "gathers",
        "has_trailers",
        "headers_passed",
        "hold",
        "index",
        "streaming",
        "throttles",
    )

    def __init__(self, filter: HttpFilter, index: int) -> None:
        self.filter, self.index = filter, index
        self.hold = Hold.NONE
        self.headers_passed = False
        self.body: bytearray | None = None  # what waits; an empty one stands for a bare end of the message
        self.finished = False  # the filter ended the message by itself; what still comes is dropped
        self.complete = False  # the end of the message has come this far
        self.has_trailers = False  # the trailers have
        self.gathers = False  # the filter wants to see all waiting body again, with each new piece
        self.streaming = False  # too much waiting body slows the sender down instead of being an error
        self.throttles = False  # ... and does so now

    def keep(self, data: bytearray) -> bytearray:
        """Let a piece of the body wait here; all that waits."""
        if self.body is None:
            self.body = data  # the very object: a filter may go on editing it while it waits
        elif data is not self.body:
            self.body += data
        return self.body


class Outlet(Protocol):
    """What lies around a passage."""

    @property
    def interrupted(self) -> bool:
        """Whether messages shall go nowhere now: an answer or a close is due, or the exchange is over."""

    def emit_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
        """The head has come through all filters."""

    def emit_body(self, data: bytes, end_of_stream: bool) -> None:
        """A piece of the body has come through all filters."""

    def emit_trailers(self, trailers: HeaderMap) -> None:
        """The trailers have come through all filters."""

    def too_much(self) -> None:
        """More is held than may be; the message must be given up."""

    def throttle(self, held: bool) -> None:
        """The sender shall wait (True), or go on (False)."""


class Passage(ABC):
    """One message on its way. Subclasses say which callbacks the filters get (`RequestPassage` ...).

    `limit` is the number of body bytes that may be held. `closed` ends it: nothing is passed on any more.
    """

    __slots__ = ("closed", "headers", "limit", "outlet", "places", "trailers")

    def __init__(self, filters: list[HttpFilter], outlet: Outlet, limit: int) -> None:
        self.places = [Place(filter, index) for index, filter in enumerate(filters)]
        self.outlet, self.limit = outlet, limit
        self.headers: HeaderMap | None = None
        self.trailers: HeaderMap | None = None
        self.closed = False

    # --- what differs between request and response --------------------------------------------------------

    @abstractmethod
    def call_headers(self, filter: HttpFilter, headers: HeaderMap, end_of_stream: bool) -> Action: ...

    @abstractmethod
    def call_body(self, filter: HttpFilter, body: bytearray, end_of_stream: bool) -> Action: ...

    @abstractmethod
    def call_trailers(self, filter: HttpFilter, trailers: HeaderMap) -> Action: ...

    @abstractmethod
    def call_passed(self, filter: HttpFilter) -> None:
        """The message goes on after a pause."""

    @abstractmethod
    def created_trailers(self) -> HeaderMap | None:
        """Trailers that a filter made during its last body callback."""

    # --- what comes in -------------------------------------------------------------------------------------

    def put_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
        """The head of the message."""
        self.headers = headers
        self._pass_headers(0, headers, end_of_stream)

    def put_body(self, data: bytes, end_of_stream: bool) -> None:
        """A piece of the body."""
        if not self.stopped:
            self._pass_body(0, bytearray(data), end_of_stream)

    def put_trailers(self, trailers: HeaderMap) -> None:
        """The trailers, and with them the end."""
        if not self.stopped:
            self.trailers = trailers
            self._pass_trailers(0, trailers)

    def resume(self, filter: HttpFilter) -> None:
        """A filter continues. Nothing happens when the message does not wait there."""
        place = next((place for place in self.places if place.filter is filter), None)
        if place is not None and place.hold is not Hold.NONE and not self.stopped:
            self._continue(place)

    def inject(self, filter: HttpFilter, data: bytes, end_of_stream: bool) -> None:
        """A filter sends a piece of body of its own, past what waits with it. Nothing happens before the head
        has come to it, and after the end."""
        place = next((place for place in self.places if place.filter is filter), None)
        if place is None or place.finished or self.stopped:
            return
        before = self.places[place.index - 1] if place.index else None
        if self.headers is None or not (before is None or before.headers_passed):
            return
        if not place.headers_passed:
            place.headers_passed = True
            self._pass_headers(place.index + 1, self.headers, False)
        if end_of_stream:
            place.finished = True
            for one in self.places[: place.index + 1]:
                one.hold, one.body = Hold.NONE, None
                self._relax(one)
        if not self.stopped and (data or end_of_stream):
            self._pass_body(place.index + 1, bytearray(data), end_of_stream)

    def waits_at(self, filter: HttpFilter) -> bool:
        """Whether the message is held at this filter."""
        return not self.closed and any(
            place.filter is filter and place.hold is not Hold.NONE for place in self.places
        )

    def close(self) -> None:
        """The message goes no further: it was answered, cut off or came to its end."""
        self.closed = True
        for place in self.places:
            place.body = None

    def release(self) -> None:
        """The exchange is over for good: no filter and no surroundings any more."""
        self.places = []
        del self.outlet

    @property
    def stopped(self) -> bool:
        """Whether nothing is passed on any more, for good or until an answer or close has been dealt with."""
        return self.closed or self.outlet.interrupted

    # --- iteration ----------------------------------------------------------------------------------------

    def _pass_headers(self, start: int, headers: HeaderMap, end_of_stream: bool) -> None:
        for place in self.places[start:]:
            place.complete = end_of_stream
            action = self.call_headers(place.filter, headers, end_of_stream)
            if self.stopped:
                return
            if action.paused:
                place.hold = _HEADERS_HOLD.get(action, Hold.SINGLE)
                place.streaming = place.hold is Hold.WATERMARK
                return
            place.headers_passed = True
        self.outlet.emit_headers(headers, end_of_stream)

    def _pass_body(self, start: int, data: bytearray, end_of_stream: bool) -> None:
        maker: Place | None = None  # whose filter made trailers while this piece went round
        for place in self.places[start:]:
            if place.finished:
                return
            place.complete = end_of_stream
            if place.hold.total:
                place.keep(data)
                self._check_limit(place)
                break
            if place.gathers:
                data = place.keep(data)
                if self._check_limit(place):
                    return
            action = self.call_body(place.filter, data, end_of_stream)
            if self.stopped:
                return
            if end_of_stream and (trailers := self.created_trailers()) is not None:
                self.trailers, maker = trailers, place
                place.has_trailers, end_of_stream = True, False
            if not self._goes_on_after_body(place, action, data):
                if maker is place:
                    maker = None  # they wait with its body, or went on with it
                break
        else:
            self.outlet.emit_body(bytes(data), end_of_stream)
        if maker is not None and self.trailers is not None and not self.stopped:
            self._pass_trailers(maker.index + 1, self.trailers)

    def _goes_on_after_body(self, place: Place, action: Action, data: bytearray) -> bool:
        """Act on a body callback's answer; whether the same piece goes to the next filter."""
        place.gathers = action is Action.STOP_AND_BUFFER
        if not action.paused:
            if place.hold is Hold.NONE:
                return True
            place.keep(data)  # behind what waits already
            self._continue(place)
            return False
        place.hold = Hold.SINGLE
        if action is not Action.STOP_NO_BUFFER:
            place.streaming = action is Action.STOP_AND_WATERMARK
            place.keep(data)
            self._check_limit(place)
        elif place.complete:
            place.keep(bytearray())  # nothing is left but the end itself
        return False

    def _pass_trailers(self, start: int, trailers: HeaderMap) -> None:
        for place in self.places[start:]:
            if place.finished:
                return
            place.complete = place.has_trailers = True
            if place.hold.total:
                return
            action = self.call_trailers(place.filter, trailers)
            if self.stopped:
                return
            if action.paused:
                place.hold = Hold.SINGLE
                return
            if place.hold is not Hold.NONE:
                self._continue(place)
                return
        self.outlet.emit_trailers(trailers)

    def _continue(self, place: Place) -> None:
        """Let go what waits at a filter: the head to the next one, the body there too - or, where the
        filter has not seen it, to the filter itself - then the trailers."""
        unseen = place.hold.total
        place.hold, place.gathers = Hold.NONE, False
        self.call_passed(place.filter)
        trailers = self.trailers if place.has_trailers else None
        if not place.headers_passed and self.headers is not None:
            place.headers_passed = True
            bare = place.complete and place.body is None and trailers is None
            self._pass_headers(place.index + 1, self.headers, bare)
        start = place.index if unseen else place.index + 1
        if place.body is not None and not self.stopped:
            body, place.body = place.body, None
            self._pass_body(start, body, place.complete and trailers is None)
        if trailers is not None and not self.stopped:
            self._pass_trailers(start, trailers)
        self._relax(place)

    # --- how much may wait ----------------------------------------------------------------------------------

    def _check_limit(self, place: Place) -> bool:
        """Act on too much waiting body; whether it was too much to go on."""
        if place.body is None or len(place.body) <= self.limit:
            return False
        if not place.streaming:
            self.outlet.too_much()
            return True
        if not place.throttles:
            place.throttles = True
            if sum(one.throttles for one in self.places) == 1:
                self.outlet.throttle(True)
        return False

    def _relax(self, place: Place) -> None:
        """The place was emptied: the sender may go on, unless another place is too full."""
        if place.throttles and len(place.body or b"") <= self.limit:
            place.throttles = False
            if not any(one.throttles for one in self.places):
                self.outlet.throttle(False)


class RequestPassage(Passage):
    """The request, from the first filter to the last."""

    __slots__ = ("_info",)

    def __init__(self, filters: list[HttpFilter], outlet: Outlet, limit: int, info: StreamInfo) -> None:
        super().__init__(filters, outlet, limit)
        self._info = info

    def call_headers(self, filter: HttpFilter, headers: HeaderMap, end_of_stream: bool) -> Action:
        return filter.on_request_headers(headers, end_of_stream) or Action.CONTINUE

    def call_body(self, filter: HttpFilter, body: bytearray, end_of_stream: bool) -> Action:
        return filter.on_request_body(body, end_of_stream) or Action.CONTINUE

    def call_trailers(self, filter: HttpFilter, trailers: HeaderMap) -> Action:
        return filter.on_request_trailers(trailers) or Action.CONTINUE

    def call_passed(self, filter: HttpFilter) -> None:
        filter.request_phase_over()

    def created_trailers(self) -> HeaderMap | None:
        return self._info.request_trailers


class ResponsePassage(Passage):
    """The response, from the last filter to the first."""

    __slots__ = ("_info",)

    def __init__(self, filters: list[HttpFilter], outlet: Outlet, limit: int, info: StreamInfo) -> None:
        super().__init__(filters[::-1], outlet, limit)
        self._info = info

    def call_headers(self, filter: HttpFilter, headers: HeaderMap, end_of_stream: bool) -> Action:
        return filter.on_response_headers(headers, end_of_stream) or Action.CONTINUE

    def call_body(self, filter: HttpFilter, body: bytearray, end_of_stream: bool) -> Action:
        return filter.on_response_body(body, end_of_stream) or Action.CONTINUE

    def call_trailers(self, filter: HttpFilter, trailers: HeaderMap) -> Action:
        return filter.on_response_trailers(trailers) or Action.CONTINUE

    def call_passed(self, filter: HttpFilter) -> None:
        filter.response_phase_over()

    def created_trailers(self) -> HeaderMap | None:
        return self._info.response_trailers
