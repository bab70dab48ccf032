"""What access logs can want to know beyond what exchanges know of themselves: hosts, connections, bytes.

It is gathered only where a format asks for it (`sansio.format_wire.Need`): then clusters make connections of
the classes here, and clients' connections count for themselves (`metered.py`).
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Protocol, cast

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio.format import Need
from pywasmproxy.sansio.format_parts import Attempt, Facts, Wire
from pywasmproxy.sansio.matching import header_test
from pywasmproxy.server.hosts import attempt
from pywasmproxy.server.upstream_connection import UpstreamConnection
from pywasmproxy.server.wire import response_bytes

if TYPE_CHECKING:
    from pywasmproxy.config.model import Listener as ListenerConfig
    from pywasmproxy.server.cluster import Cluster
    from pywasmproxy.server.exchange import Exchange
    from pywasmproxy.server.hosts import Host
    from pywasmproxy.server.tcp import TcpConnection
    from pywasmproxy.server.upstream import UpstreamRequest

_numbers = count(1)


def connection_number() -> int:
    """A number that no other connection to an upstream has in this process."""
    return next(_numbers)


_HEAD_ENDS = b"\r\n\r\n"


class _Noting(Protocol):
    """Whose attempts are wanted."""

    attempts: tuple[Attempt, ...]


def note(handler: object, one: Attempt) -> None:
    """Tell an exchange of an attempt; others do not want to know."""
    if hasattr(handler, "attempts"):
        noting = cast(_Noting, handler)
        noting.attempts = (*noting.attempts, one)


class Observed(UpstreamConnection):
    """A connection that tells exchanges which host they were on."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        super().__init__(cluster, host)
        self._number = connection_number()
        self._wire = Wire()

    def attach(self, request: UpstreamRequest) -> None:
        self._wire = Wire()
        note(request.handler, attempt(self.host, self._number, self._wire))
        super().attach(request)


class ObservedBytes(Observed):
    """One that counts bytes for each exchange, too."""

    _head = b""
    """What has come of a response's head."""

    def attach(self, request: UpstreamRequest) -> None:
        self._head = b""
        super().attach(request)

    def write(self, data: bytes) -> None:
        wire = self._wire
        if not wire.sent:
            head = data.partition(_HEAD_ENDS)[0]
            wire.sent_fields = len(head) - len(head.partition(b"\r\n")[0])
        wire.sent += len(data)
        super().write(data)

    def data_received(self, data: bytes) -> None:
        wire = self._wire
        wire.received += len(data)
        if not wire.received_fields and len(self._head) < 1 << 16:
            self._head += data
            head, end, _ = self._head.partition(_HEAD_ENDS)
            lines = head.split(b"\r\n")[1:]
            if end:
                wire.received_fields = sum(len(line) + 1 for line in lines)  # as Envoy counts them
                self._head = b""
        super().data_received(data)


def connection_class(needs: Need) -> type[UpstreamConnection]:
    """What connections of a cluster have to be."""
    if Need.UPSTREAM_BYTES in needs:
        return ObservedBytes
    return Observed if Need.HOSTS in needs else UpstreamConnection


# --- when an exchange is over ---------------------------------------------------------------------------


class Places:
    """What a listener's configuration tells of an exchange by where it went."""

    def __init__(self, config: ListenerConfig) -> None:
        self._metadata = {
            "LISTENER": config.metadata,
            "LISTENER_FILTER_CHAIN": config.filter_chains[0].metadata,
        }
        hosts = config.http.route_config.virtual_hosts if config.tcp is None else ()
        self._hosts = {host.name: host.metadata for host in hosts}
        self._clusters = {
            host.name: [
                (one.name, [header_test(match) for match in one.headers]) for one in host.virtual_clusters
            ]
            for host in hosts
        }

    def tell(self, facts: Facts, name: str | None, headers: HeaderMap | None, path: bytes) -> None:
        """Add what there is of the virtual host of that name; `path` is what was asked for."""
        facts.metadata = self._metadata | {"VIRTUAL_HOST": self._hosts.get(name or "", {})}
        clusters = self._clusters.get(name or "")
        if not clusters or headers is None:
            return
        asked = HeaderMap.adopt([(b":path", path), *(line for line in headers.lines if line[0] != b":path")])
        found = (name for name, tests in clusters if all(test(asked) for test in tests))
        facts.virtual_cluster = next(found, None)


def facts_of(exchange: Exchange) -> Facts:
    """What there is to tell of an exchange that is over."""
    serving, info = exchange.serving, exchange.info
    facts = Facts(attempts=exchange.attempts)
    if serving.places is not None:
        serving.places.tell(facts, info.virtual_host_name, info.request_headers, exchange.request_head.path)
    received, sent = exchange.connection.since_last()
    wire = facts.downstream = Wire(received, sent)
    fields = exchange.request_head.headers
    wire.received_fields = sum(len(name) + len(value) + 3 for name, value in fields)  # as Envoy counts
    if exchange.response_started and info.response_headers is not None:
        # Written once more: this is what was sent.
        lines = [line for line in info.response_headers.lines if line[0][:1] != b":"]
        head, _ = response_bytes(
            lines,
            info.response_code or 0,
            to_head=exchange.request_head.method == b"HEAD",
            end_of_stream=not info.response_body_size,
            minor=exchange.request_head.minor,
            close=exchange.connection.closing,
        )
        wire.sent_fields = len(head) - len(head.partition(b"\r\n")[0]) - len(_HEAD_ENDS)
    return facts


def facts_of_connection(connection: TcpConnection) -> Facts:
    """The same of a connection whose bytes went on as they were."""
    info = connection.info
    facts = Facts(Wire(info.request_body_size, info.response_body_size), tuple(connection.attempts))
    if connection.serving.places is not None:
        connection.serving.places.tell(facts, None, None, b"")
    return facts
