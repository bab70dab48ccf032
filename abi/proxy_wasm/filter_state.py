"""Filter state: named values that the filters of an exchange share, some of them as long as its connection.

Source: Envoy's filter state as measured through `proxy_set_property`, `declare_property` and
`set_envoy_filter_state`: what a guest stores as property KEY is `wasm.KEY` here. A value keeps the life span
it was first stored with; storing it with another one changes nothing and is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_address

MAX_STORED = 1 << 20
"""Most bytes of names and values that the filters of one exchange may store, and of one connection."""

WASM = b"wasm."
"""What stands in front of the names of guests' properties."""


class LifeSpan(IntEnum):
    """How long a value lives (Envoy's `LifeSpan`, numbers as guests send them)."""

    FILTER_CHAIN = 0
    REQUEST = 1
    CONNECTION = 2


@dataclass(frozen=True, slots=True)
class Declaration:
    """What `declare_property` said about a property. `text`: for expressions its bytes are a string."""

    read_only: bool = False
    text: bool = False
    span: LifeSpan = LifeSpan.FILTER_CHAIN


@dataclass(slots=True)
class Values:
    """Values of one owner. A connection has one that all its exchanges refer to."""

    entries: dict[bytes, tuple[bytes, LifeSpan]] = field(default_factory=dict)
    size: int = 0

    def put(self, name: bytes, value: bytes, span: LifeSpan) -> bool:
        """Store; False when it would be too much."""
        before = self.entries.get(name)
        grows = len(value) - len(before[0]) if before is not None else len(name) + len(value)
        if self.size + grows > MAX_STORED:
            return False
        self.size += grows
        self.entries[name] = value, span
        return True


class FilterState:
    """What one exchange sees: its own values, and its connection's."""

    __slots__ = ("_connection", "_own")

    def __init__(self, connection: Values | None = None) -> None:
        self._own = Values()
        self._connection = connection if connection is not None else Values()

    def get(self, name: bytes) -> bytes | None:
        """The value; None when there is none."""
        entry = self._own.entries.get(name) or self._connection.entries.get(name)
        return None if entry is None else entry[0]

    def put(self, name: bytes, value: bytes, span: LifeSpan = LifeSpan.FILTER_CHAIN) -> bool:
        """Store a value; False when there is no room. With another span than it has, it stays as it is."""
        present = self._own.entries.get(name) or self._connection.entries.get(name)
        if present is not None and present[1] is not span:
            return True
        owner = self._connection if span is LifeSpan.CONNECTION else self._own
        return owner.put(name, value, span)


# --- well-known names -------------------------------------------------------------------------------------


def _text(value: bytes) -> bytes:
    return value


def _list(value: bytes) -> bytes | None:
    return None


def _flag(value: bytes) -> bytes:
    return b"true" if value == b"true" else b"false"


def _unsigned(bits: int) -> Callable[[bytes], bytes]:
    def unsigned(value: bytes) -> bytes:
        digits = value.strip().removeprefix(b"+")  # as Envoy's reader of numbers takes them
        if not digits.isdigit() or len(digits) > 64 or int(digits) >> bits:
            raise ValueError
        return b"%d" % int(digits)

    return unsigned


def _ip(value: bytes) -> bytes:
    version = ip_address(value.decode()).version
    return b"%b:0" % (value if version == 4 else b"[%b]" % value)


def _endpoint(value: bytes) -> bytes:
    host, _, port = value.decode().rpartition(":")
    version = ip_address(host.removeprefix("[").removesuffix("]")).version
    if not port.isdigit() or len(port) > 5 or int(port) > 65535 or (version == 6) != host.startswith("["):
        raise ValueError
    return value


WELL_KNOWN: Mapping[bytes, Callable[[bytes], bytes | None]] = {
    b"envoy.string": _text,
    b"envoy.hashable_string": _text,
    b"envoy.network.ip": _ip,
    b"envoy.network.upstream_server_name": _text,
    b"envoy.network.application_protocols": _list,
    b"envoy.network.upstream_subject_alt_names": _text,
    b"envoy.network.network_namespace": _text,
    b"envoy.network.transport_socket.original_dst_address": _endpoint,
    b"envoy.filters.listener.original_dst.local_ip": _endpoint,
    b"envoy.filters.listener.original_dst.remote_ip": _endpoint,
    b"envoy.ratelimit.hits_addend": _unsigned(32),
    b"envoy.tcp_proxy.cluster": _text,
    b"envoy.tcp_proxy.disable_tunneling": _flag,
    b"envoy.tcp_proxy.per_connection_idle_timeout_ms": _unsigned(64),
    b"envoy.upstream.dynamic_host": _text,
    b"envoy.upstream.dynamic_port": _unsigned(32),
}
"""Names that Envoy 1.40 knows, each with what makes of a guest's bytes what is read back (ValueError: it
cannot be). Lists cannot be read back. The proxy acts on `envoy.tcp_proxy.cluster`; the others are kept for
the filters that read them."""
