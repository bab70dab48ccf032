"""`HttpStream`: one HTTP exchange. `feed` takes an event and returns the commands it leads to.

Between the driver and two `Passage`s: prepares the request's head, routes what comes out of the filters,
gives the response its final shape, answers locally where something fails, ends the exchange exactly once.
Source: Envoy 1.40's connection manager and router as measured (golden cases).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import StreamType
from pywasmproxy.config.model import DirectResponse, Redirect, RouteAction
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio import headers as head
from pywasmproxy.sansio import local_reply as local
from pywasmproxy.sansio.arrival import add_via
from pywasmproxy.sansio.asks import Asks, Close, Continue, Inject, LimitBuffer, Reroute, StreamCallbacks
from pywasmproxy.sansio.attempts import Attempts
from pywasmproxy.sansio.departure import ATTEMPT_COUNT, depart, rewrite_for
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.filter import HttpFilter
from pywasmproxy.sansio.format import Moment
from pywasmproxy.sansio.hashing import hash_of
from pywasmproxy.sansio.local_reply import Details, Flags, LocalReply
from pywasmproxy.sansio.outlets import ToClient, ToUpstream
from pywasmproxy.sansio.passage import Passage, RequestPassage, ResponsePassage
from pywasmproxy.sansio.router import HERE, Choice, location
from pywasmproxy.sansio.states import (
    AWAITED,
    BACK_OFF,
    ENDS,
    NOT_SENT,
    RELEASED,
    REQUEST_COMPLETE,
    REQUEST_IDLE,
    REQUEST_IGNORED,
    REQUEST_OPEN,
    RESPONDED,
    RESPONDING,
    StreamStateError,
    Upstream,
    impossible,
)
from pywasmproxy.sansio.target import tidy

if TYPE_CHECKING:
    from pywasmproxy.sansio.chain import FilterChain


class HttpStream:
    """One exchange; made by `FilterChain.open`.

    `wake` is called when a filter asked for something while no event was being fed (a tick, another
    exchange's guest code): the driver then feeds `Resumed()`, now or later. `done` is True after StreamDone.
    """

    __slots__ = (
        "_attempts",
        "_began",
        "_buffer_limit",
        "_callbacks",
        "_chain",
        "_choice",
        "_commands",
        "_cookies",
        "_ended",
        "_filters",
        "_grpc",
        "_head_sent",
        "_last_on_connection",
        "_now",
        "_random_number",
        "_request",
        "_request_state",
        "_response",
        "_response_started",
        "_sent_at",
        "_shown",
        "_started_at",
        "_timed_out",
        "_to_head",
        "_upgrade",
        "_upload_complete",
        "_uploaded_at",
        "_upstream_state",
        "_wake",
        "asks",
        "done",
        "info",
    )

    def __init__(
        self, chain: FilterChain, info: StreamInfo, wake: Callable[[HttpStream], None] | None = None
    ) -> None:
        self.info = info
        self._chain = chain
        self._now = chain.monotonic_ns
        self._wake = wake
        self._commands: list[do.Command] = []
        self.asks = Asks(self._asked_from_outside)

        self.done = False
        self._request_state = REQUEST_IDLE
        self._upstream_state = NOT_SENT
        self._upload_complete = False
        self._attempts: Attempts | None = None
        self._choice: Choice | None = None  # that the request was sent, or is answered, by
        self._shown: Choice | None = None  # that the properties show
        self._timed_out = False  # the last attempt
        self._last_on_connection = False
        self._random_number: int | None = None
        self._to_head = False
        self._upgrade = b""  # the protocol that the request asks for
        self._cookies: Sequence[bytes] = ()  # for the client, so that it comes back to the same host
        self._grpc = False
        self._began = False  # filters have seen the request
        self._response_started = False  # a response entered the filters
        self._head_sent = False  # ... and its head has left them
        self._ended = False
        self._started_at = 0  # monotonic ns
        self._sent_at = 0
        self._uploaded_at: int | None = None
        self._callbacks: Sequence[StreamCallbacks] = ()
        self._filters: Sequence[HttpFilter] = ()
        self._request: RequestPassage | None = None  # the ways through the filters, if there are any
        self._response: ResponsePassage | None = None
        self._buffer_limit = 0

    def _make_filters(self, choice: Choice | None) -> None:
        """The filters of the exchange, but those that its route switches off; and the ways through them."""
        chain, info = self._chain, self.info
        own = choice.buffer_limit if choice is not None else None
        limit = self._buffer_limit = chain.buffer_limit if own is None else own
        if not chain.factories:
            return
        disabled = choice.disabled if choice is not None else {}
        all_callbacks, filters = [], []
        for name, factory, off in chain.members():
            if disabled.get(name, off):
                continue
            callbacks = StreamCallbacks(self.asks, self._waits_at)
            made = factory(callbacks, info)
            if made is not None:
                callbacks.filter = made
                all_callbacks.append(callbacks)
                filters.append(made)
        if filters:
            self._callbacks, self._filters = all_callbacks, filters
            self._request = RequestPassage(filters, ToUpstream(self), limit, info)
            self._response = ResponsePassage(filters, ToClient(self), chain.buffer_limit, info)

    # --- the driver's side --------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> list[do.Command]:
        """Let something happen; what the driver has to do about it, in order.

        Raises StreamStateError for an event that cannot happen now (`states.py`); the stream is unchanged.
        """
        asks, before = self.asks, self._upstream_state
        if asks.attended:
            raise StreamStateError("an event was fed while another one is being worked on")
        kind = type(event)
        step = kind, kind in ENDS or getattr(event, "end_of_stream", False)
        if (request := self._request_state.following.get(step)) is not None:
            self._request_state = request
        elif (upstream := before.following.get(step)) is not None:
            self._upstream_state = upstream
        else:
            raise impossible(self._request_state, before, event)
        if self.done:
            return []
        if request is REQUEST_COMPLETE and self.info.request_received_after is None:
            self.info.request_received_after = self._elapsed() if self._began else 0
        asks.attended = True
        try:
            if not self._ended:
                if request is not None:
                    _HANDLERS[kind](self, event)
                else:
                    self._handle_upstream(event, before)
            if asks.queue:
                self._settle()
            if self._ended:
                self._finish()
        finally:
            asks.attended = False
        commands, self._commands = self._commands, []
        return commands

    def _handle_upstream(self, event: ev.Event, upstream_before: Upstream) -> None:
        kind = type(event)
        if upstream_before is AWAITED or upstream_before is RESPONDING:
            if self._upstream_state is RESPONDED:
                now = self._now()
                self.info.upstream_response_received_after = now - self._started_at
                self.info.backend_latency = now - self._sent_at
            _UPSTREAM_HANDLERS[kind](self, event)
            if self._upstream_state is RESPONDED and not self._upload_complete:
                # Answered before all was sent: the rest of the request is of no use to anybody.
                self._release_upstream()
        elif upstream_before is BACK_OFF:
            if kind is ev.RetryDue:
                self._try_again()
            elif kind is ev.RouteTimeout:
                self._give_up(local.ROUTE_TIMEOUT)

    def _on_request_body(self, event: ev.RequestBody) -> None:
        if self._request_state is REQUEST_IGNORED:
            return
        data, end_of_stream = event.data, event.end_of_stream
        self.info.request_body_size += len(data)
        way = self._request
        if way is None:
            self.upload(data, end_of_stream)
            return
        self._put_body(way, data, end_of_stream)

    def _put_body(self, way: Passage, data: bytes, end_of_stream: bool) -> None:
        """A piece of a body on its way; the end is an empty piece, as filters know it from HTTP/1."""
        if data and end_of_stream:
            way.put_body(data, False)
            self._settle()
            if self._ended:
                return
            data = b""
        way.put_body(data, end_of_stream)

    def _on_request_trailers(self, event: ev.RequestTrailers) -> None:
        if self._request_state is not REQUEST_IGNORED:
            self.info.request_trailers = event.trailers
            if self._request is None:
                self.upload_trailers(event.trailers)
            else:
                self._request.put_trailers(event.trailers)

    def _on_downstream_closed(self, event: ev.DownstreamClosed) -> None:
        self._note(Details.DOWNSTREAM_CLOSED, Flags.DOWNSTREAM_CONNECTION_TERMINATION)
        self._ended = True

    def _on_request_timeout(self, event: ev.RequestTimeout) -> None:
        if self._request_state is REQUEST_OPEN:
            self.asks.put(local.REQUEST_TIMEOUT)

    def _on_idle_timeout(self, event: ev.IdleTimeout) -> None:
        self.asks.put(local.idle_timeout(self._request_state is REQUEST_COMPLETE))

    def _on_resumed(self, event: ev.Resumed) -> None:
        """The asks are waiting already."""

    def _on_upstream_connected(self, event: ev.UpstreamConnected) -> None:
        if self._attempts is not None:
            self._attempts.connected = True
        info = self.info
        info.upstream_address = event.address
        info.upstream_local_address = event.local_address
        info.upstream_transport_failure_reason = ""
        info.upstream_pool_ready_duration = self._now() - self._sent_at

    def _on_response_informational(self, event: ev.ResponseInformational) -> None:
        """Interim responses are not passed on (Envoy: `proxy_100_continue` is off)."""

    def _on_response_body(self, event: ev.ResponseBody) -> None:
        data, end_of_stream = event.data, event.end_of_stream
        way = self._response
        if way is None:
            self.download(data, end_of_stream)
            return
        self._put_body(way, data, end_of_stream)

    def _on_response_trailers(self, event: ev.ResponseTrailers) -> None:
        self.info.response_trailers = event.trailers
        if self._response is None:
            self.download_trailers(event.trailers)
        else:
            self._response.put_trailers(event.trailers)

    def _on_upstream_failed(self, event: ev.UpstreamFailed) -> None:
        self._on_upstream_failure(event.reason)

    def _on_route_timeout(self, event: ev.RouteTimeout) -> None:
        self._give_up(local.ROUTE_TIMEOUT)

    # --- the filters' side --------------------------------------------------------------------------------

    @property
    def interrupted(self) -> bool:
        """Whether messages shall go nowhere now."""
        return self.asks.answer_due or self._ended

    @property
    def pending(self) -> bool:
        """Whether a filter asked for something and `Resumed` has to be fed."""
        return bool(self.asks)

    def _waits_at(self, filter: HttpFilter) -> bool:
        request, response = self._request, self._response
        return (request is not None and request.waits_at(filter)) or (
            response is not None and response.waits_at(filter)
        )

    def _asked_from_outside(self) -> None:
        if self._wake is not None:
            self._wake(self)

    def _settle(self) -> None:
        """Do what was asked for, until nobody asks any more."""
        request, response = self._request, self._response
        while not self._ended and (ask := self.asks.take()) is not None:
            match ask:
                case LocalReply():
                    self._answer(ask)
                case Close():
                    if not self._response_started:
                        self._note(Details.WASM_CLOSED, Flags.NONE)
                    self._cut_off()
                case _ if request is None or response is None:
                    pass  # only filters ask for the rest
                case Reroute():
                    if request.headers is not None and self._upstream_state is NOT_SENT:
                        self._note_route(self._choose_route(request.headers))  # else it has been used
                case Inject(filter, data, end_of_stream):
                    if self._response_started:
                        response.inject(filter, data, end_of_stream)
                case LimitBuffer(StreamType.HTTP_REQUEST, size):
                    request.limit = size
                case LimitBuffer(_, size):
                    response.limit = size
                case Continue(filter, StreamType.HTTP_REQUEST):
                    request.resume(filter)
                case Continue(filter, _):
                    response.resume(filter)

    # --- request ------------------------------------------------------------------------------------------

    def _on_request_headers(self, event: ev.RequestHeaders) -> None:
        headers, info, chain = event.headers, self.info, self._chain
        self._started_at = self._now()
        if info.start_time is None:
            info.start_time = chain.surroundings.wall_clock_ns()
        info.request_headers = headers
        firsts = headers.firsts
        if firsts.get(b":method") == b"HEAD":
            self._to_head = True
        if chain.target is not None:
            refusal = tidy(headers, chain.target, info.destination_address)
            if refusal is not None:
                self._last_on_connection = refusal.status == 400
                self._make_filters(None)
                self._refuse(refusal)
                return
        self._began = True
        expect = firsts.get(b"expect")
        if expect is not None and expect.lower() == b"100-continue" and info.protocol != "HTTP/1.0":
            # The proxy answers for the upstream, so that filters and upstream see an ordinary request.
            headers.remove(b"expect")
            self._commands.append(do.SendInformational(HeaderMap([(b":status", b"100")])))
        head.prepare_request(
            headers,
            info,
            arrival=chain.arrival,
            request_id=chain.request_id,
            hidden=chain.hidden,
            upgrade=bool(event.upgrade),
        )
        if local.is_grpc(headers):
            self._grpc = True
        choice = chain.router.choose(headers, self._random)
        self._note_route(choice)
        if event.upgrade:
            if not self._may_upgrade(choice, event.upgrade):
                self._make_filters(None)
                self._refuse(local.UPGRADE_REFUSED)
                return
            self._upgrade = event.upgrade
        self._make_filters(choice)
        if self._request is None:
            self.route_request(headers, event.end_of_stream)
        else:
            self._request.put_headers(headers, event.end_of_stream)

    def _may_upgrade(self, choice: Choice | None, name: bytes) -> bool:
        """Whether a request may change to a protocol: its route's word, or the connection manager's."""
        protocol = name.decode("latin-1")
        action = choice.route.action if choice is not None else None
        own = action.upgrades.get(protocol) if isinstance(action, RouteAction) else None
        return protocol in self._chain.http.upgrades if own is None else own

    def _on_request_refused(self, event: ev.RequestRefused) -> None:
        flags = Flags.DOWNSTREAM_PROTOCOL_ERROR if event.malformed else Flags.NONE
        reply = LocalReply(event.status, event.body, event.details, flags)
        if self._began:
            self.asks.put(reply)
            return
        self._started_at = self._now()
        self.info.request_headers = event.headers
        self._make_filters(None)
        self._refuse(reply)

    def _refuse(self, reply: LocalReply) -> None:
        """Answer a request that no filter has seen."""
        self._note(reply.details, reply.flags)
        self._give_up_request()
        headers, body = local.render(self._mapped(reply), grpc=False, to_head=self._to_head)
        self._response_started = True
        self.send_response(headers, not body)
        if body:
            self.download(body, True)

    def _note_route(self, choice: Choice | None) -> None:
        """Make the route visible as properties."""
        if choice is self._shown:
            return
        self._shown, info = choice, self.info
        if choice is None:
            info.route_name = info.virtual_host_name = info.cluster_name = info.route_metadata = None
            return
        route = choice.route
        info.route_name = route.name
        info.virtual_host_name = choice.virtual_host.name
        there = isinstance(route.action, RouteAction) and self._chain.has_cluster(choice.cluster)
        info.cluster_name = choice.cluster if there else None
        info.route_metadata = route.metadata

    def _choose_route(self, headers: HeaderMap) -> Choice | None:
        kept = self.asks.route_headers
        return self._chain.router.choose(headers if kept is None else kept, self._random)

    def _random(self) -> int:
        """A number that is the same all through the exchange: who was sent one way once stays on it."""
        if self._random_number is None:
            self._random_number = self._new_random()
        return self._random_number

    def _new_random(self) -> int:
        return int.from_bytes(self._chain.surroundings.random_bytes(8), "big")

    def _moment(self) -> Moment:
        return Moment(now=self._chain.surroundings.wall_clock_ns())

    def route_request(self, headers: HeaderMap, end_of_stream: bool) -> None:
        """The request's head has come through the filters: send it where its route says."""
        # Only filters can have changed anything about it since the request came.
        choice = self._choose_route(headers) if self._filters else self._shown
        self._note_route(choice)
        if choice is None:
            self.asks.put(local.NO_ROUTE)
            return
        self._choice = choice
        match choice.route.action:
            case RouteAction() if self._chain.has_cluster(choice.cluster):
                self._send_upstream(choice, headers, end_of_stream)
            case RouteAction():
                self._give_up(local.NO_CLUSTER)
            case DirectResponse(status, body):
                target = HeaderMap()
                if status == 201 or 300 <= status < 400:  # as Envoy does, which redirects in the same way
                    target.add(b"location", location(HERE, headers, choice.matched))
                reply = LocalReply(status, body, Details.DIRECT_RESPONSE, headers=target)
                self.asks.put(self._routed(reply))
            case Redirect() as redirect:
                target = HeaderMap([(b"location", location(redirect, headers, choice.matched))])
                rewrite_for(redirect, headers, choice.matched, envoy_headers=self._chain.envoy_headers)
                reply = LocalReply(redirect.status, details=Details.DIRECT_RESPONSE, headers=target)
                self.asks.put(self._routed(reply))

    def _routed(self, reply: LocalReply) -> LocalReply:
        """The router's own answer, with what the route does to responses."""
        choice = self._choice
        if choice is None:
            return reply
        action = choice.route.action
        if reply is local.NO_CLUSTER and isinstance(action, RouteAction):
            reply = replace(reply, status=action.cluster_not_found_status)
        if not choice.changes_responses:
            return reply
        headers = reply.headers.copy()
        tried = reply.details != Details.CLUSTER_NOT_FOUND
        self._change_response(choice, headers, self._attempts if tried else None)
        return replace(reply, headers=headers)

    def _change_response(self, choice: Choice, headers: HeaderMap, attempts: Attempts | None) -> None:
        """What the route does to a response."""
        if choice.virtual_host.response_attempt_count and attempts is not None:
            headers.set_in_place(ATTEMPT_COUNT, b"%d" % attempts.count)
        if choice.mutations.of_responses:
            choice.mutations.change_response(headers, self.info, self._moment())

    def _send_upstream(self, choice: Choice, headers: HeaderMap, end_of_stream: bool) -> None:
        missing = head.missing_from_request(headers)
        if missing is not None:
            self.asks.put(local.request_lacks(missing))
            return
        departure = depart(headers, choice, self.info, self._moment, envoy_headers=self._chain.envoy_headers)
        self._attempts = Attempts(
            choice,
            departure,
            headers,
            self.asks.host,
            self._buffer_limit if self._request is None else self._request.limit,
            hash_key=self._hash(choice, headers),
            upgrade=bool(self._upgrade),
        )
        self.info.upstream_attempt_count = 1
        self._upstream_state = AWAITED
        self._sent_at = self._now()
        self.info.upstream_request_began_after = self._sent_at - self._started_at
        self._commands.append(self._attempts.head(end_of_stream))
        if end_of_stream:
            self._uploaded()

    def _hash(self, choice: Choice, headers: HeaderMap) -> int | None:
        """The request's hash, if its route says what that is made of."""
        policies = choice.route.action.hash_policy if isinstance(choice.route.action, RouteAction) else ()
        if not policies:
            return None
        key, self._cookies = hash_of(policies, headers, self.info.source_address or "", self._new_random)
        return key

    @property
    def _uploading(self) -> bool:
        return self._upstream_state in (AWAITED, RESPONDING, RESPONDED)

    def upload(self, data: bytes, end_of_stream: bool) -> None:
        """A piece of the request's body has come through the filters."""
        if self._uploading and (data or end_of_stream):
            self._commands.append(do.SendUpstreamBody(data, end_of_stream))
            if self._attempts is not None:
                self._attempts.keep(data)
            if end_of_stream:
                self._uploaded()

    def upload_trailers(self, trailers: HeaderMap) -> None:
        """The request's trailers have come through the filters."""
        if self._uploading:
            self._commands.append(do.SendUpstreamTrailers(trailers))
            self._uploaded(trailers)

    def _uploaded(self, trailers: HeaderMap | None = None) -> None:
        """The upstream has the whole request: the route's time runs."""
        self._upload_complete = True
        self._uploaded_at = self._now()
        self.info.upstream_request_sent_after = self._uploaded_at - self._started_at
        attempts = self._attempts
        if attempts is None:
            return
        attempts.completed(trailers)
        limits = attempts.departure
        if limits.timeout is not None:
            self._commands.append(do.StartRouteTimeout(limits.timeout))
        if limits.per_try_timeout is not None:
            self._commands += attempts.in_time()

    # --- further attempts ---------------------------------------------------------------------------------

    def _tries_again_after_response(self, headers: HeaderMap) -> bool:
        """Whether this response is not the last word."""
        attempts = self._attempts
        if attempts is None or attempts.departure.retries is None:
            return False
        if not attempts.after_response(head.status_of(headers) or 0, headers):
            self.info.response_flags |= attempts.flags
            return False
        self._back_off(attempts, timed_out=False)
        return True

    def _on_upstream_failure(self, failure: UpstreamFailure) -> None:
        attempts = self._attempts
        if not self._response_started and attempts is not None and attempts.after_failure(failure):
            self._back_off(attempts, timed_out=False)
        else:
            retried = attempts is not None and attempts.count > 1
            self._give_up(local.upstream_failed(failure, self._response_started, retried=retried))

    def _on_try_timeout(self, event: ev.TryTimeout) -> None:
        """This attempt has taken too long; that no longer counts once there is a response."""
        attempts = self._attempts
        if self._response_started or attempts is None:
            return
        if attempts.after_timeout():
            self._back_off(attempts, timed_out=True)
        else:
            self._give_up(local.PER_TRY_TIMEOUT)

    def _back_off(self, attempts: Attempts, *, timed_out: bool) -> None:
        """Drop this attempt, and wait for the next one."""
        self._release_upstream()
        self._upstream_state = BACK_OFF
        self._timed_out = timed_out
        self._commands.append(attempts.wait(self._new_random()))

    def _try_again(self) -> None:
        if self._attempts is None:
            return
        since = self._now() - (self._uploaded_at or self._sent_at)
        self._commands += self._attempts.again(since / 1e9, timed_out=self._timed_out)
        self.info.upstream_attempt_count = self._attempts.count

    # --- response -----------------------------------------------------------------------------------------

    def _on_response_headers(self, event: ev.ResponseHeaders) -> None:
        headers = event.headers
        if self._tries_again_after_response(headers):
            return
        self.info.upstream_response_began_after = self._elapsed()
        head.prepare_response(headers)
        if self._uploaded_at is not None and self._chain.envoy_headers:
            headers.set_in_place(head.SERVICE_TIME, b"%d" % ((self._now() - self._uploaded_at) // 1_000_000))
        for cookie in self._cookies:
            headers.add(b"set-cookie", cookie)
        self.info.response_code_details = Details.VIA_UPSTREAM
        if self._choice is not None and self._choice.changes_responses:
            self.info.response_headers = headers
            self.info.response_code = head.status_of(headers)
            self._change_response(self._choice, headers, self._attempts)
        self._start_response(headers, event.end_of_stream)

    def _start_response(self, headers: HeaderMap, end_of_stream: bool) -> None:
        self._response_started = True
        info = self.info
        info.response_headers, info.response_code = headers, head.status_of(headers)
        if self._response is None:
            self.send_response(headers, end_of_stream)
        else:
            self._response.put_headers(headers, end_of_stream)

    def send_response(self, headers: HeaderMap, end_of_stream: bool) -> None:
        """A response's head has come through the filters, or needs none: send it."""
        status = head.status_of(headers)
        if status is None:
            self.asks.put(local.response_lacks(":status"))
            return
        chain = self._chain
        info, http = self.info, chain.http
        head.finish_response(
            headers,
            server_name=chain.server_name,
            transformation=http.server_header_transformation,
            date=head.http_date(chain.surroundings.wall_clock_ns() // 1_000_000_000),
            upgraded=status == 101,
        )
        if http.forwarding.via:
            add_via(headers, http.forwarding.via)
        if http.always_set_request_id_in_response and info.request_headers is not None:
            request_id = info.request_headers.first(b"x-request-id")
            if request_id is not None:
                headers.set_in_place(b"x-request-id", request_id)
        self._head_sent = True
        info.response_began_after = self._elapsed()
        info.response_headers, info.response_code = headers, status
        # The rest of an unfinished request cannot be told from the next one, so this response is the last.
        close = self._last_on_connection or self._request_state is not REQUEST_COMPLETE
        close = close and status != 101  # then the connection is no longer about requests
        if close:
            headers.add(b"connection", b"close")
        self._commands.append(do.SendDownstreamHeaders(headers, end_of_stream, close))
        self._ended = end_of_stream

    def download(self, data: bytes, end_of_stream: bool) -> None:
        """A piece of the response's body has come through the filters."""
        self.info.response_body_size += len(data)
        if data or end_of_stream:
            self._commands.append(do.SendDownstreamBody(data, end_of_stream))
        self._ended = end_of_stream

    def download_trailers(self, trailers: HeaderMap) -> None:
        """The response's trailers have come through the filters."""
        self._commands.append(do.SendDownstreamTrailers(trailers))
        self._ended = True

    # --- answers from here --------------------------------------------------------------------------------

    def _answer(self, reply: LocalReply) -> None:
        """Answer the client from here, as far as that is still possible.

        Through the filters when there was no response yet; past them in place of a response that they hold
        or have spoilt; by cutting the response off when its head is out.
        """
        self._note(reply.details, reply.flags)
        if self._head_sent:
            self._cut_off()
            return
        self._give_up_request()
        headers, body = local.render(self._mapped(reply), grpc=self._grpc, to_head=self._to_head)
        if not self._response_started:
            self._start_response(headers, not body)
            if body and not self.interrupted:
                if self._response is None:
                    self.download(body, True)
                else:
                    self._response.put_body(body, True)
            return
        if self._response is not None:
            self._response.close()
        self.send_response(headers, not body)
        if body and self._head_sent:
            self.download(body, True)

    def _mapped(self, reply: LocalReply) -> LocalReply:
        """A local reply as the configuration wants it to look."""
        mappers = self._chain.reply_mappers
        if mappers is None:
            return reply
        return mappers.map(reply, self.info, self._moment(), self._random, grpc=self._grpc)

    def _give_up(self, reply: LocalReply) -> None:
        """The upstream's response will not be complete: say so, unless the client already got part of it."""
        if self._attempts is not None and (flags := self._attempts.flags):
            reply = replace(reply, flags=reply.flags | flags)
        if self._response_started:
            self._note(reply.details, reply.flags)
            self._cut_off()
        else:
            self.info.response_flags |= reply.flags
            self.asks.put(self._routed(reply))

    # --- the end ------------------------------------------------------------------------------------------

    def _give_up_request(self) -> None:
        """The request is answered: neither its rest nor an upstream's response matters any more."""
        if self._request is not None:
            self._request.close()
        if self._request_state is REQUEST_OPEN:
            self._request_state = REQUEST_IGNORED
        self._release_upstream()

    def _release_upstream(self) -> None:
        """Nothing more goes to the upstream, and nothing that it sends matters any more."""
        state = self._upstream_state
        unfinished = state is RESPONDED and not self._upload_complete
        if unfinished or state in (AWAITED, RESPONDING):
            self._commands.append(do.ResetUpstream())
        if state is not NOT_SENT:
            self._upstream_state = RELEASED

    def _cut_off(self) -> None:
        """Close the client's connection in the middle of things."""
        self._commands.append(do.ResetDownstream())
        self._ended = True

    def _finish(self) -> None:
        """Everything was sent: tell the filters, and the driver."""
        self._give_up_request()
        if self._response is not None:
            self._response.close()
        self.asks.close()
        self.info.request_duration = self._elapsed()
        for filter in self._filters:
            filter.on_log()
        for filter in self._filters:
            filter.on_done()
            filter.on_delete()
        self.done = True
        self._commands.append(do.StreamDone())
        # Let go of what refers back to here: memory is free at once, not when the collector comes by.
        for callbacks in self._callbacks:
            callbacks.filter = None
        self._callbacks = self._filters = ()
        for way in (self._request, self._response):
            if way is not None:
                way.release()

    # --- facts --------------------------------------------------------------------------------------------

    def _elapsed(self) -> int:
        """Nanoseconds since the request's head."""
        return self._now() - self._started_at

    def _note(self, details: str, flags: Flags) -> None:
        self.info.response_code_details = details
        self.info.response_flags |= flags

    def command(self, command: do.Command) -> None:
        """Leave a command for the driver."""
        self._commands.append(command)


_HANDLERS: dict[type[ev.Event], Callable[[HttpStream, Any], None]] = {
    ev.RequestHeaders: HttpStream._on_request_headers,
    ev.RequestRefused: HttpStream._on_request_refused,
    ev.RequestBody: HttpStream._on_request_body,
    ev.RequestTrailers: HttpStream._on_request_trailers,
    ev.DownstreamClosed: HttpStream._on_downstream_closed,
    ev.RequestTimeout: HttpStream._on_request_timeout,
    ev.IdleTimeout: HttpStream._on_idle_timeout,
    ev.Resumed: HttpStream._on_resumed,
}

_UPSTREAM_HANDLERS: dict[type[ev.Event], Callable[[HttpStream, Any], None]] = {
    ev.UpstreamConnected: HttpStream._on_upstream_connected,
    ev.ResponseInformational: HttpStream._on_response_informational,
    ev.ResponseHeaders: HttpStream._on_response_headers,
    ev.ResponseBody: HttpStream._on_response_body,
    ev.ResponseTrailers: HttpStream._on_response_trailers,
    ev.UpstreamFailed: HttpStream._on_upstream_failed,
    ev.TryTimeout: HttpStream._on_try_timeout,
    ev.RouteTimeout: HttpStream._on_route_timeout,
}
"""What an upstream that still matters has to say."""
