"""Who the client is, and what upstreams are told about it: `x-forwarded-for` and its relatives. Pure.

Source: Envoy 1.40 as measured (`use_remote_address`, `xff_num_trusted_hops` and what belongs to them), the
order of the fields included.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model_manager import Forwarding

FORWARDED_FOR = b"x-forwarded-for"
FORWARDED_PROTO = b"x-forwarded-proto"
FORWARDED_PORT = b"x-forwarded-port"
EXTERNAL_ADDRESS = b"x-envoy-external-address"
INTERNAL = b"x-envoy-internal"
SERVICE_CLUSTER = b"x-envoy-downstream-service-cluster"
SERVICE_NODE = b"x-envoy-downstream-service-node"

_NOT_FROM_OUTSIDE = (
    SERVICE_CLUSTER,
    SERVICE_NODE,
    b"x-envoy-decorator-operation",
    b"x-envoy-original-path",
    b"x-envoy-original-host",
)
"""Fields that only tell something when they come from within."""


@dataclass(frozen=True, slots=True)
class Self:
    """How this proxy calls itself."""

    address: str = "127.0.0.1"
    """An address of this machine that others can reach; it stands for peers on the loopback interface."""
    service_cluster: str = ""
    service_node: str = ""


def _host(address: str | None) -> str:
    host = (address or "").rpartition(":")[0]
    return host.removeprefix("[").removesuffix("]")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _nth_last(value: bytes | None, number: int) -> str | None:
    """The number-th address from the end (0: the last) of an `x-forwarded-for`; None if it is none."""
    entries = (value or b"").split(b",")
    if len(entries) <= number:
        return None
    entry = entries[-1 - number].strip().decode("latin-1")
    return entry if _is_ip(entry) else None


class Arrival:
    """The rules of one listener, made ready."""

    def __init__(self, config: Forwarding, own: Self | None = None) -> None:
        self.config = config
        self.plain = config.is_plain
        self.writes_client_cert = config.client_cert.writes
        self._own = own or Self()
        self._internal = [ipaddress.ip_network(cidr, strict=False) for cidr in config.internal_ranges]

    def is_internal(self, address: str) -> bool:
        """Whether a client at this address is inside."""
        if not self._internal or not _is_ip(address):
            return False
        found = ipaddress.ip_address(address)
        return any(found.version == network.version and found in network for network in self._internal)

    def apply(self, headers: HeaderMap, info: StreamInfo, transport: bytes) -> tuple[bool, bool]:
        """Write the fields, and who the client is into `info`.

        Whether the client is inside, and whether it is outside and we are the first to meet it.
        """
        config = self.config
        written = headers.first(FORWARDED_FOR)
        peer = _host(info.source_address)
        client: str | None
        if config.use_remote_address:
            trusted = written is None
            client = _nth_last(written, config.trusted_hops - 1) if config.trusted_hops else None
            client = client or peer
            self._append_peer(headers, written, peer)
            if not config.trusted_hops or headers.first(FORWARDED_PROTO) is None:
                headers.set_in_place(FORWARDED_PROTO, transport)
        else:
            client = _nth_last(written, config.trusted_hops)
            trusted = written is not None and b"," not in written
            if headers.first(FORWARDED_PROTO) is None:
                headers.add(FORWARDED_PROTO, transport)
        if config.append_port and (not config.trusted_hops or headers.first(FORWARDED_PORT) is None):
            headers.set_in_place(FORWARDED_PORT, (info.destination_address or "").rpartition(":")[2])
        if config.scheme is not None:
            headers.set_in_place(FORWARDED_PROTO, config.scheme)
        internal = trusted and client is not None and self.is_internal(client)
        if client is not None and client != peer:
            info.direct_source_address = info.source_address
            info.source_address = f"[{client}]:0" if ":" in client else f"{client}:0"
        edge = config.use_remote_address and not internal
        if edge:
            for name in _NOT_FROM_OUTSIDE:
                headers.remove(name)
        if internal:
            headers.set_in_place(INTERNAL, b"true")
        if config.add_user_agent:
            self._name_ourselves(headers)
        if config.via:
            add_via(headers, config.via)
        if edge:
            headers.set_in_place(EXTERNAL_ADDRESS, client or peer)
        return internal, edge

    def _append_peer(self, headers: HeaderMap, written: bytes | None, peer: str) -> None:
        if self.config.skip_append or not peer:
            return
        if _is_ip(peer) and ipaddress.ip_address(peer).is_loopback:
            peer = self._own.address
        before = written + b"," if written else b""
        headers.set_in_place(FORWARDED_FOR, before + peer.encode())

    def _name_ourselves(self, headers: HeaderMap) -> None:
        own = self._own
        headers.set_in_place(SERVICE_CLUSTER, own.service_cluster)
        if not headers.first(b"user-agent"):
            headers.set_in_place(b"user-agent", own.service_cluster)
        if own.service_node:
            headers.set_in_place(SERVICE_NODE, own.service_node)


def add_via(headers: HeaderMap, via: str) -> None:
    """Add us to the proxies that a message has come through."""
    before = headers.first(b"via")
    headers.set_in_place(b"via", f"{before.decode('latin-1')}, {via}" if before else via)
