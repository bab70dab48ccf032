"""Upstream side: one request to a cluster, on whatever connection it gets. asyncio.

Nothing here calls back while one of its methods is being called, except `flush` and the event loop's own
callbacks; the exchange queues events, so even that is harmless.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.codec import HeaderLines, ResponseHead
from pywasmproxy.server.connect import HTTP_1, UNSENT, reason
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.patience import PatientTimer
from pywasmproxy.server.upstream_connection import UpstreamConnection
from pywasmproxy.server.wire import BodyWriter

if TYPE_CHECKING:
    from abi.proxy_wasm.stream_info import TlsFacts
    from pywasmproxy.stats.counts import HostCounts

_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))  # RFC 9110, section 9.2.1


class UpstreamHandler(Protocol):
    """Who wants to know how a request fares. After `upstream_end` or `upstream_failed` nothing more comes.

    What was received together comes between `upstream_batch(True)` and `upstream_batch(False)`.
    """

    def upstream_batch(self, begins: bool) -> None: ...

    def upstream_connected(self, remote: str, local: str) -> None: ...

    def upstream_head(self, head: ResponseHead) -> None: ...

    def upstream_data(self, data: bytes, ends: bool) -> None: ...

    def upstream_end(self, trailers: HeaderLines) -> None: ...

    def upstream_failed(self, failure: UpstreamFailure, detail: str) -> None: ...

    def upstream_writable(self, writable: bool) -> None: ...


class Carrier(Protocol):
    """What carries a request: a connection, or a stream on one."""

    reused: bool
    untouched: bool
    """No byte of the response has come."""

    @property
    def host(self) -> Host: ...

    @property
    def host_counts(self) -> HostCounts: ...

    @property
    def remote(self) -> str: ...

    @property
    def local(self) -> str: ...

    @property
    def tls(self) -> TlsFacts | None: ...

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abandon(self) -> None: ...


class UpstreamRequest:
    """One request to a cluster. `write` and `end` may be called before there is a connection."""

    __slots__ = (
        "_attempts",
        "_blocked",
        "_host",
        "_kept",
        "_opening",
        "_out",
        "_out_size",
        "_task",
        "cluster",
        "connection",
        "done",
        "handler",
        "hash_key",
        "host",
        "method",
        "once",
        "paused",
        "sent_all",
        "tried",
        "upgrade",
        "writer",
    )

    def __init__(
        self, cluster: Cluster, handler: UpstreamHandler, method: bytes, head: bytes, writer: BodyWriter
    ) -> None:
        self.cluster = cluster
        self.handler = handler
        self.method = method
        self.writer = writer
        self._out: list[bytes] = [head]
        self._out_size = len(head)
        self.host = ""  # preferred, if the cluster has it
        self.hash_key: int | None = None  # chooses among the hosts, where the policy looks at it
        self.upgrade = False  # asks for another protocol
        self.once = False  # whoever sends it looks after further attempts
        self.tried: Host | None = None  # to which no connection could be made
        self.connection: Carrier | None = None
        self.paused = False  # reading of the response is held back
        self.sent_all = False
        self.done = False
        self._host: Host | None = None  # that counts this request as under way
        self._kept: bytes | None = None  # the whole request, while it may be sent again
        self._task: asyncio.Task[None] | None = None
        self._opening = False  # the task has begun
        self._attempts = 0
        self._blocked = False

    def start(self) -> None:
        """Take a connection from the pool, open one, or wait for one."""
        self.cluster.acquire(self, fresh=self.upgrade)

    def write(self, data: bytes) -> None:
        """Queue a piece of the body; goes out with `flush`."""
        framed = self.writer.data(data)
        if framed:
            self._out.append(framed)
            self._out_size += len(framed)

    def end(self, trailers: HeaderLines | None = None) -> None:
        """The request is complete."""
        if tail := self.writer.end(trailers):
            self._out.append(tail)
            self._out_size += len(tail)
        self.sent_all = True

    def flush(self) -> None:
        """Hand what was queued to the connection, if there is one."""
        if self.done or not self._out:
            return
        if self.connection is None:
            if self._out_size > min(UNSENT, self.cluster.config.buffer_limit) and not self._blocked:
                self._blocked = True
                self.handler.upstream_writable(False)
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        self._kept = data if self.sent_all and self._kept is None and self.method in _SAFE else b""
        self.connection.write(data)

    def attached(self, connection: Carrier) -> None:
        """A connection was found for this request."""
        self.connection = connection
        self._task = None
        cluster = self.cluster
        self._host = connection.host
        self._host.active += 1
        cluster.active += 1
        cluster.counts.upstream_rq_total += 1
        connection.host_counts.rq_total += 1
        self.handler.upstream_connected(connection.remote, connection.local)
        self.flush()
        if self._blocked:
            self._blocked = False
            self.handler.upstream_writable(True)

    def finished(self) -> None:
        """The request is no longer under way, for better or worse."""
        self.done = True
        self.connection = None
        self._let_go()

    def _let_go(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.active -= 1
            self.cluster.active -= 1

    def connect(self, pool: Cluster, host: Host) -> None:
        """Open a connection to a host; called by the cluster."""
        self._opening = False
        self._task = asyncio.get_running_loop().create_task(self._connect(pool, host))

    async def _connect(self, cluster: Cluster, host: Host) -> None:
        self._opening = True
        failure, detail = UpstreamFailure.CONNECT_FAILURE, "remote connection failure"
        connection = cluster.connection_class(cluster, host)
        counts = cluster.counts
        counts.upstream_rq_pending_total += 1
        opening = asyncio.ensure_future(cluster.connector.connect(host, lambda: connection, alpn=HTTP_1))
        timer = PatientTimer(cluster.config.connect_timeout, opening.cancel)
        try:
            await opening
            connection.attach(self)
            return
        except asyncio.CancelledError:
            if self.done:  # it was us who are cancelled: nobody wants the connection any more
                raise
            failure, detail = UpstreamFailure.CONNECT_TIMEOUT, "connection timeout"
            counts.upstream_cx_connect_timeout += 1
        except OSError as error:
            detail = reason(error)
            cluster.logger.debug(f"cluster {cluster.name}: cannot connect to {host}: {error}")
        finally:
            timer.cancel()
            cluster.connecting -= 1
            if self.connection is None:
                # A loop may have made the connection and then dropped it without a word (uvloop does).
                connection.abort()
                cluster.dropped(connection)
        self._task = None
        counts.upstream_cx_connect_fail += 1
        counts.upstream_rq_pending_failure_eject += 1
        connection.host_counts.cx_connect_fail += 1
        if cluster.outliers is not None:
            cluster.outliers.failed(host, connected=False)
        self.tried = host
        self.fail(failure, detail)

    def fail(self, failure: UpstreamFailure, detail: str) -> None:
        """The request is lost: tell the handler, once."""
        if not self.done:
            self.finished()
            self.handler.upstream_failed(failure, detail)

    def lost(self, connection: UpstreamConnection, failure: UpstreamFailure, detail: str) -> None:
        """The connection broke before the response was complete: try once more where that is safe.

        A pooled connection may have been closed by the upstream while our request was on its way. If not
        one byte came back, and the request is complete and safe to repeat, a new connection gets it.
        """
        kept = self._kept if connection.reused and connection.untouched and not self.once else None
        if kept and not self._attempts and not self.done:
            self._attempts = 1
            self._let_go()
            self.connection = None
            self._out = [kept]
            self._out_size = len(kept)
            self.cluster.acquire(self, fresh=True)
        else:
            if self.cluster.outliers is not None and connection.untouched:
                self.cluster.outliers.failed(connection.host)
            self.fail(failure, detail)

    def pause(self) -> None:
        """Read no more of the response for now."""
        self.paused = True
        if self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        """Go on reading the response."""
        if self.paused:
            self.paused = False
            if self.connection is not None:
                self.connection.resume_reading()

    def timed_out(self) -> None:
        """The response took too long; what becomes of the request is said apart."""
        connection = self.connection
        if self.cluster.outliers is not None and connection is not None and connection.untouched:
            self.cluster.outliers.failed(connection.host, 504)

    def reset(self) -> None:
        """Give the request up; the handler hears nothing more."""
        if self.done:
            return
        self.done = True
        if self._task is not None:
            self.cluster.counts.upstream_rq_cancelled += 1
            self._task.cancel()
            if not self._opening:  # a task that is cancelled before it begins never does
                self.cluster.not_connecting()
        elif self.connection is not None:
            self.cluster.counts.upstream_rq_tx_reset += 1
            self.connection.abandon()
        else:
            self.cluster.counts.upstream_rq_cancelled += 1
            self.cluster.forget(self)
        self.finished()
