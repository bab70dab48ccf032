"""`Passage`: how one message - the request or the response - goes through the filters, pauses included.

Source: the rules of Envoy's filter manager as measured (`golden/flow.json`, `body.json`): what each kind of
stop holds back, one buffer for everything held, where iteration goes on, one body call with everything that
waited. A passage knows nothing of HTTP beyond headers, body, trailers; what happens behind the last filter
and around the message is its `Outlet`'s business.
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
    """A filter's place in one passage."""

    __slots__ = ("ended", "filter", "gathers", "headers_passed", "hold", "index", "saw_trailers")

    def __init__(self, filter: HttpFilter, index: int) -> None:
        self.filter, self.index = filter, index
        self.hold = Hold.NONE
        self.headers_passed = False
        self.ended = False  # the filter has seen the end of the message
        self.saw_trailers = False
        self.gathers = False  # the filter wants to see all held body again, with each new piece


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

    def __init__(self, filters: list[HttpFilter], outlet: Outlet, limit: int) -> None:
        self.places = [Place(filter, index) for index, filter in enumerate(filters)]
        self.outlet, self.limit = outlet, limit
        self.headers = HeaderMap()
        self.trailers: HeaderMap | None = None
        self.closed = False
        self.buffer: bytearray | None = None  # body held at some filter; an empty one stands for a bare end
        self._complete = False  # the end of the message has come in
        self._streaming = False  # the holding filter asked for back-pressure, not for an error
        self._throttled = False

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
        self.headers, self._complete = headers, end_of_stream
        self._pass_headers(0, end_of_stream)

    def put_body(self, data: bytes, end_of_stream: bool) -> None:
        """A piece of the body."""
        if self.stopped:
            return
        self._complete = self._complete or end_of_stream
        self._pass_body(0, bytearray(data), end_of_stream)

    def put_trailers(self, trailers: HeaderMap) -> None:
        """The trailers, and with them the end."""
        if self.stopped:
            return
        self.trailers, self._complete = trailers, True
        self._pass_trailers(0, trailers)

    def resume(self, filter: HttpFilter) -> None:
        """A filter continues. Nothing happens when the message does not wait there."""
        place = next((place for place in self.places if place.filter is filter), None)
        if place is not None and place.hold is not Hold.NONE and not self.stopped:
            self._continue(place)

    def waits_at(self, filter: HttpFilter) -> bool:
        """Whether the message is held at this filter."""
        return not self.closed and any(
            place.filter is filter and place.hold is not Hold.NONE for place in self.places
        )

    def close(self) -> None:
        """The message goes no further: it was answered, cut off or came to its end."""
        self.closed = True
        self.buffer = None

    @property
    def stopped(self) -> bool:
        """Whether nothing is passed on any more, for good or until an answer or close has been dealt with."""
        return self.closed or self.outlet.interrupted

    # --- iteration ----------------------------------------------------------------------------------------

    def _pass_headers(self, start: int, end_of_stream: bool) -> None:
        headers = self.headers
        for place in self.places[start:]:
            place.ended = place.ended or end_of_stream
            action = self.call_headers(place.filter, headers, end_of_stream)
            if self.stopped:
                return
            if action.paused:
                place.hold = _HEADERS_HOLD.get(action, Hold.SINGLE)
                return
            place.headers_passed = True
        self.outlet.emit_headers(headers, end_of_stream)

    def _pass_body(self, start: int, data: bytearray, end_of_stream: bool) -> None:
        creator: Place | None = None  # of trailers, while this piece goes round
        for place in self.places[start:]:
            if place.ended:
                return
            if place.hold.total:
                self._hold_body(data, streaming=place.hold is Hold.WATERMARK)
                break
            ends = end_of_stream and self.trailers is None
            place.ended = ends
            if place.gathers and self.buffer is not None:
                self._append(data)
                if self._overflows():
                    return
                data = self.buffer
            action = self.call_body(place.filter, data, ends)
            if self.stopped:
                return
            if ends and (made := self.created_trailers()) is not None:
                self.trailers, creator = made, place
                place.ended, place.saw_trailers = False, True
            if not self._goes_on_after_body(place, action, data):
                break
        else:
            self.outlet.emit_body(bytes(data), end_of_stream and self.trailers is None)
        if (
            creator is not None
            and self.trailers is not None
            and creator.hold is Hold.NONE
            and not self.stopped
        ):
            self._pass_trailers(creator.index + 1, self.trailers)

    def _goes_on_after_body(self, place: Place, action: Action, data: bytearray) -> bool:
        """Act on a body callback's answer; whether the same piece goes to the next filter."""
        place.gathers = action is Action.STOP_AND_BUFFER
        if not action.paused:
            if place.hold is Hold.NONE:
                return True
            self._append(data)  # behind what waits already
            self._continue(place)
            return False
        place.hold = Hold.SINGLE
        if action is Action.STOP_NO_BUFFER:
            if place.ended and self.buffer is None:
                self.buffer = bytearray()  # nothing is left but the end itself
        else:
            self._hold_body(data, streaming=action is not Action.STOP_AND_BUFFER)
        return False

    def _pass_trailers(self, start: int, trailers: HeaderMap) -> None:
        for place in self.places[start:]:
            if place.hold.total:
                return
            place.saw_trailers = True
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
        start = place.index + 1
        if not place.headers_passed:
            place.headers_passed = True
            self._pass_headers(start, self._complete and self.buffer is None and self.trailers is None)
        if unseen:
            start = place.index
        trailers = self.trailers  # those that are there already; the body may bring some into being
        if self.buffer is not None and not self.stopped:
            held, self.buffer = self.buffer, None
            self._pass_body(start, held, self._complete and trailers is None)
        if trailers is not None and (unseen or place.saw_trailers) and not self.stopped:
            self._pass_trailers(start, trailers)
        self._relax()

    # --- the buffer -----------------------------------------------------------------------------------------

    def _append(self, data: bytearray) -> None:
        if self.buffer is None:
            self.buffer = data  # the very object: a filter may go on editing it while it waits
        elif data is not self.buffer:
            self.buffer += data

    def _hold_body(self, data: bytearray, *, streaming: bool) -> None:
        self._streaming = streaming
        self._append(data)
        self._overflows()

    def _overflows(self) -> bool:
        """Act on a full buffer; whether it was too much to go on."""
        if self.buffer is None or len(self.buffer) <= self.limit:
            return False
        if self._streaming:
            if not self._throttled:
                self._throttled = True
                self.outlet.throttle(True)
            return False
        self.outlet.too_much()
        return True

    def _relax(self) -> None:
        if self._throttled and not self.closed and len(self.buffer or b"") <= self.limit:
            self._throttled = False
            self.outlet.throttle(False)


class RequestPassage(Passage):
    """The request, from the first filter to the last."""

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
