"""`Exchange`: one request between a client's connection, the sans-IO core and an upstream request.

Turns what the sockets say into events, and the core's commands into bytes. All decisions about filters,
routes and local answers are the core's. A fault in here or in the core costs this exchange, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import RouteAction
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.departure import put_host
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.format_parts import Attempt
from pywasmproxy.sansio.retry import Retries
from pywasmproxy.server.account import account
from pywasmproxy.server.codec import HeaderLines, ProtocolError, RequestHead, ResponseHead
from pywasmproxy.server.hosts import attempt
from pywasmproxy.server.patience import Timer
from pywasmproxy.server.retry_limit import RetryLimit, RetryPlace
from pywasmproxy.server.upstream import UpstreamRequest
from pywasmproxy.server.wire import (
    BodyWriter,
    UnsafeHeader,
    content_length,
    head_bytes,
    reason,
    request_bytes,
    response_bytes,
)
from pywasmproxy.stats.counts import ClusterCounts

if TYPE_CHECKING:
    from pywasmproxy.server.downstream import DownstreamConnection
    from pywasmproxy.server.listener import Listener


class Stream(Protocol):
    """The core's side of an exchange (`pywasmproxy.sansio.stream.HttpStream`)."""

    def feed(self, event: ev.Event) -> list[do.Command]: ...


StreamFactory = Callable[[StreamInfo, Callable[[Any], None]], Stream]
"""Opens the core's side; the second argument is called when the stream wants to be fed `Resumed`."""

_CORE, _SOCKET = 1, 2  # who holds a body back

_CONSUMED = frozenset((b"host", b"upgrade", b"http2-settings"))
"""Fields that filters do not see: `:authority` says the same, or the upgrade does not happen."""
_KEPT = frozenset((b"te", b"expect"))  # dealt with by the core, whether `connection` names them or not


class Exchange:
    """One request and its response. Connection, upstream request and timers call it; it calls the core."""

    __slots__ = (
        "_body",
        "_events",
        "_head",
        "_over",
        "_request_ended",
        "_request_held",
        "_response_ended",
        "_response_held",
        "_running",
        "_stream",
        "_timers",
        "_upstream",
        "_upstream_trailers",
        "attempts",
        "batch",
        "connection",
        "idle_timeout",
        "info",
        "listener",
        "response_complete",
        "response_started",
        "serving",
        "upstream_counts",
    )

    def __init__(self, listener: Listener, connection: DownstreamConnection, head: RequestHead) -> None:
        self.listener = listener
        self.connection = connection
        self.serving = connection.serving
        self.info = listener.stream_info(connection, head)
        self.idle_timeout = self.serving.http.stream_idle_timeout
        self._head = head
        self.response_started = False
        self.response_complete = False
        self.upstream_counts: ClusterCounts | None = None  # of the cluster that was asked last
        self.attempts: tuple[Attempt, ...] = ()  # where somebody wants to know, and those that failed
        self.batch = False  # more events follow at once: whoever set this will call `flush`
        self._running = False  # commands are being performed
        self._over = False
        self._stream: Stream | None = None
        self._upstream: UpstreamRequest | None = None
        self._upstream_trailers = False
        self._body: BodyWriter | None = None
        self._request_ended = False  # the core has been told that the request is complete
        self._response_ended = False
        self._request_held = 0  # bits of _CORE and _SOCKET
        self._response_held = 0
        self._events: list[ev.Event] | None = None  # that wait
        self._timers: dict[type[ev.Event] | type[RetryPlace], Timer | RetryPlace] | None = None

    @property
    def request_head(self) -> RequestHead:
        """The request as it came."""
        return self._head

    # --- events ---------------------------------------------------------------------------------------------

    def start(self, refusal: ProtocolError | None = None) -> None:
        """Hand the request's head to the core, or why it is refused."""
        head = self._head
        try:
            headers = request_map(head)
            self._stream = self.serving.chain(self.info, self._wake)
        except Exception:
            self._crashed()
            return
        self._request_ended = head.bodiless
        if refusal is not None:
            self.refuse(refusal)
        elif head.path == b"*":
            details = "absolute_path_rejected"
            self.feed(ev.RequestRefused(404, b"", details, False, headers, head.bodiless))
        else:
            seconds = self.serving.http.request_timeout
            if seconds is not None and not self._request_ended and not head.tunnel:
                self._feed_later(seconds, ev.RequestTimeout())
            upgrade = head.upgrade if head.tunnel else b""
            self.feed(ev.RequestHeaders(headers, self._request_ended, upgrade))

    def refuse(self, error: ProtocolError) -> None:
        """What the client sends cannot be served: the response that says so is the last one."""
        self._request_ended = True
        headers = request_map(error.head) if error.head is not None else None
        if headers is not None and error.code == "missing_host_header":
            headers.remove(b":authority")
        body = b"" if headers is not None or error.status == 403 else reason(error.status)
        self.feed(ev.RequestRefused(error.status, body, error.code, headers is None, headers))

    def feed(self, event: ev.Event) -> None:
        """Give the core an event and do what it says; events that this causes wait until that is done."""
        if self._over:
            return
        if self._running:
            if self._events is None:
                self._events = []
            self._events.append(event)
            return
        self._running = True
        stream: Stream | None = self._stream
        next_event: ev.Event | None = event
        try:
            while next_event is not None and stream is not None:
                for command in stream.feed(next_event):
                    _PERFORM[type(command)](self, command)
                next_event = self._events.pop(0) if self._events else None
                stream = self._stream
        except Exception:
            self._crashed()
        finally:
            self._running = False
        if not self.batch:
            self.flush()
        self.listener.guest_ran()

    def flush(self) -> None:
        """Send what has been written so far, both ways."""
        if self._upstream is not None:
            self._upstream.flush()
        self.connection.flush()

    def request_data(self, data: bytes, ends: bool) -> None:
        """A piece of the request's body; `ends`: the last one."""
        self.feed(ev.RequestBody(data, False))
        if ends:  # apart, as in Envoy: an answer to the last piece still says `connection: close`
            self._request_ended = True
            self.feed(ev.RequestBody(b"", True))

    def request_end(self, trailers: HeaderLines) -> None:
        """The request is complete."""
        if self._request_ended:
            return
        self._request_ended = True
        if trailers and self.serving.http.http1.enable_trailers:
            self.feed(ev.RequestTrailers(HeaderMap(trailers)))
        else:
            self.feed(ev.RequestBody(b"", True))

    def client_gone(self) -> None:
        """The client's connection broke or is being given up."""
        self.feed(ev.DownstreamClosed())
        self._end()

    def client_writable(self, writable: bool) -> None:
        """The client's socket takes more of the response, or does not."""
        self._hold_response(_SOCKET, not writable)

    def _wake(self, stream: object) -> None:
        """Guest code that ran elsewhere asked for something here."""
        asyncio.get_running_loop().call_soon(self.feed, ev.Resumed())

    def idle(self) -> None:
        """Nothing has happened for the idle timeout."""
        self.feed(ev.IdleTimeout())

    # the upstream request's side (`UpstreamHandler`)

    def upstream_batch(self, begins: bool) -> None:
        self.batch = begins
        if begins:
            self.connection.touch()
        else:
            self.flush()

    def upstream_connected(self, remote: str, local: str) -> None:
        connection = None if self._upstream is None else self._upstream.connection
        self.info.upstream_tls = None if connection is None else connection.tls
        self.feed(ev.UpstreamConnected(remote, local))

    def upstream_head(self, head: ResponseHead) -> None:
        headers = HeaderMap.adopt([(b":status", b"%d" % head.status), *head.headers])
        if head.status < 200 and head.status != 101:
            if head.status != 100:  # we have sent our own already
                self.feed(ev.ResponseInformational(headers))
            return
        self._response_ended = head.bodiless
        self.feed(ev.ResponseHeaders(headers, head.bodiless))

    def upstream_data(self, data: bytes, ends: bool) -> None:
        if ends:
            self._upstream = None
            self._response_ended = True
        self.feed(ev.ResponseBody(data, ends))

    def upstream_end(self, trailers: HeaderLines) -> None:
        self._upstream = None
        if self._response_ended:
            return
        self._response_ended = True
        if trailers and self._upstream_trailers:
            self.feed(ev.ResponseTrailers(HeaderMap(trailers)))
        else:
            self.feed(ev.ResponseBody(b"", True))

    def upstream_failed(self, failure: UpstreamFailure, detail: str) -> None:
        if detail.startswith("TLS_error"):
            self.info.upstream_transport_failure_reason = detail
        upstream, self._upstream = self._upstream, None
        if upstream is not None and upstream.tried is not None:
            self.attempts = (*self.attempts, attempt(upstream.tried))
            self.info.upstream_address, self.info.upstream_local_address = str(upstream.tried), None
        self.feed(ev.UpstreamFailed(failure, detail))

    def upstream_writable(self, writable: bool) -> None:
        self._hold_request(_SOCKET, not writable)

    # --- commands -------------------------------------------------------------------------------------------

    def _send_upstream_headers(self, command: do.SendUpstreamHeaders) -> None:
        cluster = self.serving.clusters.get(command.cluster)
        if cluster is None:
            self.feed(ev.UpstreamFailed(UpstreamFailure.NO_CLUSTER, f"no cluster {command.cluster!r}"))
            return
        action = command.route.action
        if isinstance(action, RouteAction):
            if action.idle_timeout is not None:
                self.idle_timeout = action.idle_timeout or None
            if action.high_priority:
                cluster = cluster.high
            if action.auto_host_rewrite:
                self._name_host(command.headers, action, cluster.config.host_name)
        self.info.cluster_metadata = cluster.metadata
        self.upstream_counts = cluster.counts
        method, path, lines = upstream_lines(command.headers)
        try:
            if cluster.http2 is not None:
                self._upstream_trailers = True
                scheme = command.headers.first(b":scheme") or b"http"
                attempt: UpstreamRequest = cluster.http2.request(self, method, path, lines, scheme)
            else:
                self._upstream_trailers = cluster.config.http1.enable_trailers
                trailers = self._upstream_trailers or self.serving.config.http.http1.enable_trailers
                head, writer = request_bytes(
                    lines, method, path, command.end_of_stream, trailers, raw=command.upgrade
                )
                attempt = UpstreamRequest(cluster, self, method, head, writer)
        except UnsafeHeader as error:
            self.feed(ev.UpstreamFailed(UpstreamFailure.PROTOCOL_ERROR, f"not sent: {error}"))
            return
        self._cancel(ev.TryTimeout)
        self._upstream = attempt
        attempt.host = command.host
        if command.retries is not None:
            self._count_retries(command.retries, cluster.retry_limit, attempt)
        attempt.hash_key = command.hash_key
        attempt.upgrade = command.upgrade
        if self._response_held:
            attempt.pause()
        if command.end_of_stream:
            attempt.end()
        attempt.start()

    def _count_retries(self, retries: Retries, limit: RetryLimit, attempt: UpstreamRequest) -> None:
        """Let the cluster say how many of its requests may be sent once more at a time."""
        attempt.once = True
        if self._timers is None:
            self._timers = {}
        place = self._timers.get(RetryPlace)
        if not isinstance(place, RetryPlace):  # given back with the timers, at the end
            place = self._timers[RetryPlace] = RetryPlace(limit, retries)
        place.request = attempt

    def _name_host(self, headers: HeaderMap, action: RouteAction, name: str) -> None:
        """Let the request name its host as the cluster does."""
        if name:
            named = self.serving.http.envoy_headers
            forwarded = action.append_x_forwarded_host
            put_host(headers, name.encode(), forwarded=forwarded, envoy_headers=named)

    def _send_upstream_body(self, command: do.SendUpstreamBody) -> None:
        if self._upstream is not None:
            self._upstream.write(command.data)
            if command.end_of_stream:
                self._upstream.end()

    def _send_upstream_trailers(self, command: do.SendUpstreamTrailers) -> None:
        if self._upstream is not None:
            self._upstream.end(command.trailers.lines)

    def _reset_upstream(self, command: do.ResetUpstream) -> None:
        upstream, self._upstream = self._upstream, None
        self._cancel(ev.TryTimeout)
        if upstream is not None:
            upstream.reset()

    def _start_route_timeout(self, command: do.StartRouteTimeout) -> None:
        self._feed_later(command.seconds, ev.RouteTimeout())

    def _start_try_timeout(self, command: do.StartTryTimeout) -> None:
        self._feed_later(command.seconds, ev.TryTimeout())

    def _wait_for_retry(self, command: do.WaitForRetry) -> None:
        self._feed_later(command.seconds, ev.RetryDue())

    def _feed_later(self, seconds: float, event: ev.Event) -> None:
        """Feed an event in so many seconds; one of its kind at a time."""
        if self._timers is None:
            self._timers = {}
        else:
            self._cancel(type(event))
        self._timers[type(event)] = self.listener.timers.start(seconds, self._feed_due, event)

    def _feed_due(self, event: ev.Event) -> None:
        self._count_timeout(event)
        if self._timers is not None:
            self._timers.pop(type(event), None)
        self.feed(event)

    def _count_timeout(self, event: ev.Event) -> None:
        counts, upstream = self.upstream_counts, self._upstream
        if counts is None:
            return
        if isinstance(event, ev.RouteTimeout):
            counts.upstream_rq_timeout += 1
            if upstream is not None and upstream.connection is not None:
                upstream.connection.host_counts.rq_timeout += 1
                upstream.timed_out()
        elif isinstance(event, ev.TryTimeout):
            counts.upstream_rq_per_try_timeout += 1
            if upstream is not None:
                upstream.timed_out()

    def _cancel(self, kind: type[ev.Event]) -> None:
        timer = self._timers.pop(kind, None) if self._timers is not None else None
        if timer is not None:
            timer.cancel()

    def _send_informational(self, command: do.SendInformational) -> None:
        status, lines = response_lines(command.headers)
        if self._head.minor:  # RFC 9110, section 15.2: not to an HTTP/1.0 client
            self.connection.write(head_bytes(b"HTTP/1.1 %d %b" % (status, reason(status)), lines))

    def _send_downstream_headers(self, command: do.SendDownstreamHeaders) -> None:
        connection = self.connection
        status, lines = response_lines(command.headers)
        upgraded = status == 101 and self._head.tunnel
        unframed = self._head.minor == 0 and not command.end_of_stream and content_length(lines) is None
        if command.close or unframed or self.listener.last_answers:
            connection.closing = True
            if self.listener.last_answers:
                self.serving.counts.downstream_cx_drain_close += 1
        head, self._body = response_bytes(
            lines,
            status,
            to_head=self._head.method == b"HEAD",
            end_of_stream=command.end_of_stream,
            minor=self._head.minor,
            close=connection.closing and not upgraded,
            trailers_allowed=self.serving.http.http1.enable_trailers,
        )
        if upgraded:
            self._body = BodyWriter(chunked=False, length=None)
        self.response_started = True
        connection.write(head)
        if command.end_of_stream:
            self.response_complete = True

    def _send_downstream_body(self, command: do.SendDownstreamBody) -> None:
        body, connection = self._body, self.connection
        if body is None:
            raise RuntimeError("a body before the head of the response")
        if command.data:
            connection.write(body.data(command.data))
        if command.end_of_stream:
            if body.chunked:
                connection.write(body.end())
            self.response_complete = True

    def _send_downstream_trailers(self, command: do.SendDownstreamTrailers) -> None:
        if self._body is None:
            raise RuntimeError("trailers before the head of the response")
        self.connection.write(self._body.end(command.trailers.lines))
        self.response_complete = True

    def _reset_downstream(self, command: do.ResetDownstream) -> None:
        if self.connection.exchange is self:  # else the connection has another use for its last bytes
            self.connection.close_now()

    def _pause_request(self, command: do.PauseRequest) -> None:
        self._hold_request(_CORE, True)

    def _resume_request(self, command: do.ResumeRequest) -> None:
        self._hold_request(_CORE, False)

    def _pause_response(self, command: do.PauseResponse) -> None:
        self._hold_response(_CORE, True)

    def _resume_response(self, command: do.ResumeResponse) -> None:
        self._hold_response(_CORE, False)

    def _stream_done(self, command: do.StreamDone) -> None:
        self._end()

    # --- flow control ---------------------------------------------------------------------------------------

    def _hold_request(self, who: int, held: bool) -> None:
        before = self._request_held
        self._request_held = before | who if held else before & ~who
        if bool(before) is not bool(self._request_held) and not self._over:
            self.connection.hold(bool(self._request_held))

    def _hold_response(self, who: int, held: bool) -> None:
        before = self._response_held
        self._response_held = before | who if held else before & ~who
        if self._upstream is not None and bool(before) is not bool(self._response_held):
            if self._response_held:
                self._upstream.pause()
            else:
                self._upstream.resume()

    # --- the end --------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Nothing more happens in this exchange: give everything back."""
        if self._over:
            return
        self._over = True
        self._stream = None  # it refers back to us
        self._events = None
        if self._timers is not None:
            for timer in self._timers.values():
                timer.cancel()
            self._timers = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.reset()
        account(self)
        self.listener.ended(self)
        connection = self.connection
        if connection.exchange is self:
            if self.response_complete and self._body is not None:
                connection.finish(short=self._body.short)
            else:
                connection.close_now()

    def _crashed(self) -> None:
        """A fault of ours: say so, and give up this exchange and its connection. For use in an `except`."""
        self.listener.logger.error(
            f"[C{self.connection.id}] exchange failed: {traceback.format_exc().rstrip()}"
        )
        stream, self._stream = self._stream, None
        if stream is not None and not self._over:
            # So that filters can end; what it commands is of no use, nor is a second fault.
            with contextlib.suppress(Exception):
                stream.feed(ev.DownstreamClosed())
        self.response_complete = False
        self._end()
        self.connection.abort()


_PERFORM: dict[type, Callable[[Exchange, Any], None]] = {
    do.SendUpstreamHeaders: Exchange._send_upstream_headers,
    do.SendUpstreamBody: Exchange._send_upstream_body,
    do.SendUpstreamTrailers: Exchange._send_upstream_trailers,
    do.ResetUpstream: Exchange._reset_upstream,
    do.StartRouteTimeout: Exchange._start_route_timeout,
    do.StartTryTimeout: Exchange._start_try_timeout,
    do.WaitForRetry: Exchange._wait_for_retry,
    do.SendInformational: Exchange._send_informational,
    do.SendDownstreamHeaders: Exchange._send_downstream_headers,
    do.SendDownstreamBody: Exchange._send_downstream_body,
    do.SendDownstreamTrailers: Exchange._send_downstream_trailers,
    do.ResetDownstream: Exchange._reset_downstream,
    do.PauseRequest: Exchange._pause_request,
    do.ResumeRequest: Exchange._resume_request,
    do.PauseResponse: Exchange._pause_response,
    do.ResumeResponse: Exchange._resume_response,
    do.StreamDone: Exchange._stream_done,
}


# --- header maps and the wire ---------------------------------------------------------------------------


def request_map(head: RequestHead) -> HeaderMap:
    """A request head as filters see it: pseudo-headers first, then the fields without `host`."""
    consumed = _CONSUMED | (head.connection - _KEPT) if head.connection else _CONSUMED
    if head.tunnel:
        consumed -= {b"upgrade"}
    lines = [(b":authority", head.authority), (b":path", head.path), (b":method", head.method)]
    if head.method == b"CONNECT":
        del lines[1]  # a tunnel has no path
    elif head.target[:1] not in b"/*":
        lines.insert(1, (b":scheme", head.target.partition(b":")[0].lower()))
    lines += [line for line in head.headers if line[0] not in consumed]
    return HeaderMap.adopt(lines)


def upstream_lines(headers: HeaderMap) -> tuple[bytes, bytes, HeaderLines]:
    """Method, path and the fields of a request's head on the wire; `host` comes first."""
    firsts = headers.firsts
    lines = headers.fields
    if b":authority" in firsts:
        lines.insert(0, (b"host", firsts[b":authority"]))
    return firsts.get(b":method", b""), firsts.get(b":path", b""), lines


def response_lines(headers: HeaderMap) -> tuple[int, HeaderLines]:
    """Status and fields of a response's head on the wire."""
    return int(headers.firsts.get(b":status", b"0")), headers.fields
