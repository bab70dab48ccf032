"""One client connection: requests in order, keep-alive, pipelining, idle times, an orderly close. asyncio.

Knows HTTP/1.1 and sockets, not filters: each request head makes an `Exchange`, which gets the body's
events and writes the response through the methods here. Exchanges follow each other, never overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, cast

from abi.proxy_wasm.filter_state import Values
from pywasmproxy.config.model import Address
from pywasmproxy.config.model_manager import Underscores
from pywasmproxy.server.codec import Data, ProtocolError, RequestHead
from pywasmproxy.server.metered import Metered
from pywasmproxy.server.patience import PatientTimer
from pywasmproxy.server.readers import RequestReader
from pywasmproxy.server.receiving import Receiver
from pywasmproxy.tls.session import facts

if TYPE_CHECKING:
    from abi.proxy_wasm.stream_info import TlsFacts
    from pywasmproxy.config.model import HttpConnectionManager
    from pywasmproxy.server.exchange import Exchange, StreamFactory
    from pywasmproxy.server.listener import Listener
    from pywasmproxy.server.port import Serving
    from pywasmproxy.tls.context import CheckedSession

PIPELINE_BYTES = 64 * 1024
"""Bytes of later requests that are kept while one is being answered; then reading stops."""

HALF_CLOSE_GRACE = 0.2
"""Seconds that an exchange may still take after the client has shut down its sending side.

A client that went away looks the same, so an exchange that takes longer is given up (Envoy: at once).
"""

SHORT_BODY_DELAY = 10.0
"""Seconds until a response that ended before its content-length is given up by closing the connection."""

UNREADABLE = RequestHead(b"", b"", b"", b"", 1, [])
"""Stands for the head of a request that has none."""

MAX_UNSENT = 1 << 28
"""Bytes that may wait for a client to read. An upstream's response is held back long before; a filter that
sends body out of turn cannot be, so the connection is broken off."""


class DownstreamConnection(Receiver):
    """A client's connection."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener
        self.remote = ""
        self.local = ""
        self.id = 0
        self.tls: TlsFacts | None = None
        self.server_name: str | None = None  # that the client asked for
        self.exchange: Exchange | None = None
        self.closing = False  # no further request is taken
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        config = listener.http
        self._counts = listener.serving.counts_of_connection()
        self._reader = self._reader_for(config)
        self._values = Values()  # what filters keep for all of its exchanges
        self._known_by: object = None  # whose facts these are
        self._facts: Mapping[str, object] = {}
        self._out: list[bytes] = []
        self._receiving = False  # the current exchange's request is not complete
        self._tunnel = False  # another protocol is spoken, or was asked for
        self._held = False  # the exchange wants no more of the body for now
        self._socket_paused = False
        self._draining = False  # the response is out; input is thrown away until the close
        self._eof = False
        self._pumping = False
        self._last_activity = self._opened_at = monotonic()
        self._head_since = 0.0
        self._taken = 0  # requests
        self._timer: asyncio.TimerHandle | None = None
        self._close_timer: PatientTimer | None = None

    def _reader_for(self, config: HttpConnectionManager) -> RequestReader:
        return RequestReader(
            self.listener.parser,
            max_bytes=config.max_request_headers_bytes,
            max_fields=config.max_headers_count,
            accept_http_10=config.http1.accept_http_10,
            default_host=config.http1.default_host_for_http_10.encode(),
            upgrades=config.possible_upgrades,
        )

    def since_last(self) -> tuple[int, int]:
        """Bytes received and sent for the exchange that is over now; zeros where they are not counted."""
        counts = self._counts
        if not isinstance(counts, Metered):
            return 0, 0
        now = counts.received - self._reader.buffered, counts.sent + sum(map(len, self._out))
        before, counts.told = counts.told, now
        return now[0] - before[0], now[1] - before[1]

    @property
    def serving(self) -> Serving[StreamFactory]:
        """What is done with this client's next request."""
        serving = self.listener.serving
        return serving.of(self.server_name) if serving.by_chain else serving

    @property
    def _http(self) -> HttpConnectionManager:
        return self.serving.http

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        own = transport.get_extra_info("sockname")
        self.remote = str(Address(peer[0], peer[1])) if peer else ""
        self.local = str(Address(own[0], own[1])) if own else ""
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            self._begin_tls(session)
        self.listener.opened(self)
        self._counts.downstream_cx_total += 1
        self._arm()
        if session is not None and self.listener.draining:
            self.abort()  # its handshake has taken that long

    def _begin_tls(self, session: CheckedSession) -> None:
        """The handshake is over: now it is known which filter chain this is about."""
        self.server_name = session.requested_server_name
        config = self.serving.config
        tls = config.filter_chains[0].tls
        self.tls = facts(session, tls.options.certificates[0].chain if tls is not None else None)
        self._reader = self._reader_for(config.http)

    def data_received(self, data: bytes) -> None:
        self._counts.downstream_cx_rx_bytes_total += len(data)
        if self._draining:
            return
        self._last_activity = monotonic()
        if self._reader.at_start:
            self._head_since = self._last_activity
        self._reader.feed(data)
        self._pump()

    def eof_received(self) -> bool:
        self._eof = True
        if self._tunnel:
            return False  # as in Envoy: the end of one direction is the end of both
        self._reader.feed_eof()
        if self._draining:
            return False
        self._pump()
        if self.exchange is None:
            return False
        if self.tls is not None:
            return False  # the end of a TLS session is the end of both directions
        self._close_later(HALF_CLOSE_GRACE)
        return True  # the answer can still be sent

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closing = True
        for timer in self._timer, self._close_timer:
            if timer is not None:
                timer.cancel()
        self._timer = self._close_timer = None
        exchange, self.exchange = self.exchange, None
        self._count_end(remote=self._eof or exc is not None, active=exchange is not None)
        if exchange is not None:
            exchange.client_gone()
        self.listener.closed(self)

    def _count_end(self, *, remote: bool, active: bool) -> None:
        counts, milliseconds = self._counts, int((monotonic() - self._opened_at) * 1000)
        counts.downstream_cx_destroy += 1
        counts.downstream_cx_destroy_active_rq += active
        if remote:
            counts.downstream_cx_destroy_remote += 1
        else:
            counts.downstream_cx_destroy_local += 1
        counts.cx_length.record(milliseconds)
        self.listener.counts.cx_length.record(milliseconds)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.client_writable(False)

    def resume_writing(self) -> None:
        self._last_activity = monotonic()
        if self.exchange is not None:
            self.exchange.client_writable(True)

    @property
    def facts(self) -> Mapping[str, object]:
        """What `StreamInfo` says of each of its exchanges."""
        serving = self.serving
        if self._known_by is not serving:
            self._known_by = serving
            self._facts = {
                **serving.facts,
                "connection_id": self.id,
                "source_address": self.remote,
                "destination_address": self.local,
                "downstream_tls": self.tls,
                "requested_server_name": self.server_name,
                "connection_values": self._values,
            }
        return self._facts

    # --- reading --------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand over what has been received, as far as it is wanted now."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._wants_more and (event := self._reader.next_event()) is not None:
                exchange = self.exchange
                if exchange is not None:
                    exchange.batch = True
                if isinstance(event, RequestHead):
                    self._begin(event)
                elif exchange is None:
                    pass  # it is over, and the connection is closing
                elif isinstance(event, Data):
                    self._receiving = not event.ends
                    exchange.request_data(event.data, event.ends)
                else:
                    self._receiving = False
                    exchange.request_end(event.trailers)
        except ProtocolError as error:
            self._refuse(error)
        finally:
            self._pumping = False
        if self.exchange is not None:
            self.exchange.batch = False
            self.exchange.flush()
        self._steer_socket()

    @property
    def _wants_more(self) -> bool:
        if self._transport is None or self._draining:
            return False
        if self.exchange is None:
            return not self.closing
        return self._receiving and not self._held

    def _steer_socket(self) -> None:
        """Let the socket read exactly while its bytes have somewhere to go."""
        full = self._held and self._receiving
        if self.exchange is not None and not self._receiving:
            full = self._reader.buffered > PIPELINE_BYTES
        transport = self._transport
        if full != self._socket_paused and transport is not None and not transport.is_closing():
            self._socket_paused = full
            if full:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _begin(self, head: RequestHead) -> None:
        http = self._http
        if http.underscores is not Underscores.ALLOW:
            head = self._without_underscores(head, http.underscores)
        self._taken += 1
        self._receiving = not head.bodiless
        if head.bodiless:
            self._reader.pass_end()
        self._tunnel = head.tunnel
        if head.upgrade and head.upgrade != b"h2c" and not head.tunnel:
            why = f"upgrade to {head.upgrade.decode('latin-1')} is not configured"
            self._refuse(ProtocolError(403, why, "upgrade_failed"))
            return
        limited = http.max_requests_per_connection is not None or http.max_connection_duration is not None
        if not head.keep_alive or (limited and self._had_its_time()):
            self.closing = True
        self.listener.begin(self, head)

    def _without_underscores(self, head: RequestHead, action: Underscores) -> RequestHead:
        """The head without the fields that are not wanted here. ProtocolError: with them it is refused."""
        if not any(b"_" in name for name, _ in head.headers):
            return head
        if action is Underscores.REJECT_REQUEST:
            raise ProtocolError(400, "underscore in the name of a header", "http1.unexpected_underscore")
        return replace(head, headers=[line for line in head.headers if b"_" not in line[0]])

    def _had_its_time(self) -> bool:
        """Whether the current request is the last one that the connection takes."""
        config = self._http
        most, longest = config.max_requests_per_connection, config.max_connection_duration
        if most is not None and self._taken >= most:
            return True
        if longest is None or monotonic() - self._opened_at < longest:
            return False
        self._counts.downstream_cx_max_duration_reached += 1
        return True

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a message that is not accepted, and end the connection."""
        self.listener.logger.debug(f"[C{self.id}] refused: {error.detail}")
        if error.status == 408:
            self._counts.downstream_rq_header_timeout += 1
        elif error.status == 403:
            self._counts.downstream_rq_ws_on_non_ws_route += 1
        else:
            self._counts.downstream_cx_protocol_error += 1
        exchange = self.exchange
        if self._eof:
            self.exchange = None
            if exchange is not None:
                exchange.client_gone()
            self.abort()
            return
        self.closing = True
        self._receiving = True
        if exchange is not None:
            exchange.refuse(error)
        else:
            self.listener.begin(self, error.head or UNREADABLE, error)

    def hold(self, held: bool) -> None:
        """The exchange wants no more of the request's body for now, or wants it again."""
        self._held = held
        if held:
            self._steer_socket()
        elif not self._pumping:
            self._pump_soon()

    def _pump_soon(self) -> None:
        # Whoever calls is in the middle of something: what is buffered is delivered from the loop.
        self._loop.call_soon(self._pump)

    # --- writing --------------------------------------------------------------------------------------------

    @property
    def request_complete(self) -> bool:
        """Whether the current request has been received to its end."""
        return not self._receiving

    def write(self, data: bytes) -> None:
        """Queue bytes for the client; they go out with `flush`."""
        if data:
            self._out.append(data)

    def flush(self) -> None:
        """Give what is queued to the socket."""
        out = self._out
        if not out:
            return
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._last_activity = monotonic()
            data = out[0] if len(out) == 1 else b"".join(out)
            self._counts.downstream_cx_tx_bytes_total += len(data)
            transport.write(data)
            if transport.get_write_buffer_size() > MAX_UNSENT:
                transport.abort()
        out.clear()

    def finish(self, *, short: bool) -> None:
        """The response is complete: go on with the next request, or close.

        `short` says that fewer bytes were sent than announced: the client goes on waiting for them.
        """
        self.exchange = None
        self._held = False
        self.flush()
        if self._transport is None:
            return
        if self._receiving:  # the client is still sending what nobody wants any more
            self._draining = self.closing = True
            if self._eof:
                self._transport.close()
                return
            if not short and self._transport.can_write_eof():
                self._transport.write_eof()
            self._steer_socket()
            delay = self._http.delayed_close_timeout
            self._close_later(SHORT_BODY_DELAY if short else delay or 0.001)
        elif short:
            self._draining = self.closing = True
            self._close_later(SHORT_BODY_DELAY)
        elif self.closing or (self._eof and self._reader.at_start):
            self._transport.close()
        elif not self._reader.at_start:
            self._pump_soon()
        else:
            self._steer_socket()

    def abort(self) -> None:
        """Close at once, without completing anything."""
        self.closing = True
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    def close_now(self) -> None:
        """Close after what has been written is out, without completing the response."""
        self.closing = True
        self._draining = True
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def drain(self) -> None:
        """The listener shuts down: close as soon as the current response is out."""
        self.closing = True
        if self.exchange is None and not self._draining and self._transport is not None:
            self._transport.close()

    # --- time -----------------------------------------------------------------------------------------------

    def _close_later(self, delay: float) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._close_timer = PatientTimer(delay, self._close_due)

    def _close_due(self) -> None:
        self._close_timer = None
        if self._transport is not None:
            self._transport.abort()

    def touch(self) -> None:
        """Something happened in the current exchange."""
        self._last_activity = monotonic()

    def _deadline(self) -> float | None:
        """When the connection or its exchange has been idle for too long, as things stand."""
        config = self._http
        if self.exchange is not None:
            limit = self.exchange.idle_timeout
        elif not self._reader.at_start and config.request_headers_timeout:
            return self._head_since + config.request_headers_timeout
        else:
            limit = config.idle_timeout
            if config.max_connection_duration is not None:
                end = self._opened_at + config.max_connection_duration + config.drain_timeout
                return min(end, self._last_activity + limit) if limit else end
        return self._last_activity + limit if limit else None

    def _arm(self) -> None:
        """One timer per connection, looking again when it fires: cheaper than one per request."""
        deadline = self._deadline()
        longest = self.listener.timer_step
        now = monotonic()
        wait = longest if deadline is None else max(0.001, min(deadline - now, longest))
        self._timer = self._loop.call_later(wait, self._timer_due)

    def _timer_due(self) -> None:
        deadline = self._deadline()
        if deadline is not None and monotonic() >= deadline and not self._draining:
            if self.exchange is not None:
                self._last_activity = monotonic()
                self._counts.downstream_rq_idle_timeout += 1
                self.exchange.idle()
            elif self._reader.at_start:
                if not self._had_its_time():
                    self._counts.downstream_cx_idle_timeout += 1
                self.drain()
            else:
                self._refuse(ProtocolError(408, "request headers timeout"))
        if self._transport is not None:
            self._arm()
