"""`StreamInfo`: the facts of one HTTP exchange that filters can ask for as properties.

One object per exchange, shared by all filters of the chain. The chain fills it in as the exchange
proceeds; `calls/properties.py` reads it. None means "not known (yet)", and answers NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Self, dataclass_transform

from abi.proxy_wasm.filter_state import FilterState, Values
from abi.proxy_wasm.header_map import HeaderMap


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says: subject and issuer (RFC 2253), alternative names, digest and number in
    hexadecimal digits, times in seconds since 1970 (None: unreadable), all of it in DER."""

    subject: str
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    sha256: str = ""
    emails: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    issuer: str = ""
    serial: str = ""
    not_before: int | None = None
    not_after: int | None = None
    der: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """One TLS session: its version ("TLSv1.3"), our certificate and the peer's, as far as they were shown;
    the cipher suite, the session's id in hexadecimal digits ("": none), the host that was asked for."""

    version: str
    local: CertificateFacts | None = None
    peer: CertificateFacts | None = None
    cipher: str = ""
    session_id: str = ""
    server_name: str = ""


@dataclass_transform(kw_only_default=True, eq_default=False)
class Known:
    """Base of classes full of facts, few of which are known at a time.

    As with a dataclass, the class lists them with the values they have before they are known, and the
    initialiser takes those that are. An object holds these alone: it is made for each exchange.
    """

    def __init__(self, **known: object) -> None:
        if not known.keys() <= self.__annotations__.keys():
            raise TypeError(f"unknown: {', '.join(known.keys() - self.__annotations__.keys())}")
        self.__dict__.update(known)

    @classmethod
    def of(cls, known: Mapping[str, object]) -> Self:
        """One that knows these facts, the names of which are in order."""
        made = cls.__new__(cls)
        made.__dict__.update(known)
        return made


class StreamInfo(Known):
    """Attributes of one exchange. Times are ns since 1970, durations ns, sizes bytes, addresses `ip:port`."""

    request_headers: HeaderMap | None = None
    request_trailers: HeaderMap | None = None
    response_headers: HeaderMap | None = None
    response_trailers: HeaderMap | None = None

    protocol: str | None = None  # "HTTP/1.1"
    start_time: int | None = None
    request_duration: int | None = None  # known once the exchange is over
    request_body_size: int = 0
    response_body_size: int = 0
    response_code: int | None = None
    response_code_details: str | None = None
    response_flags: int = 0
    backend_latency: int | None = None

    # Points of time, in ns after the start of the request.
    request_received_after: int | None = None  # its last byte
    upstream_request_began_after: int | None = None
    upstream_request_sent_after: int | None = None
    upstream_response_began_after: int | None = None
    upstream_response_received_after: int | None = None
    response_began_after: int | None = None

    connection_id: int | None = None
    source_address: str | None = None  # the client's, also where another proxy told us about it
    direct_source_address: str | None = None  # the peer's, where it is not the client
    destination_address: str | None = None
    upstream_address: str | None = None
    upstream_local_address: str | None = None
    upstream_transport_failure_reason: str | None = None
    connection_termination_details: str | None = None
    upstream_attempt_count: int = 0
    upstream_pool_ready_duration: int | None = None  # until a pooled connection was there
    downstream_tls: TlsFacts | None = None
    upstream_tls: TlsFacts | None = None
    requested_server_name: str | None = None

    route_name: str | None = None
    virtual_host_name: str | None = None
    cluster_name: str | None = None
    filter_chain_name: str | None = None
    listener_direction: int = 0

    node: Mapping[str, object] = MappingProxyType({})  # the bootstrap's `node`, JSON-like
    route_metadata: Mapping[str, object] | None = None
    cluster_metadata: Mapping[str, object] | None = None
    dynamic_metadata: Mapping[str, object] = MappingProxyType({})
    connection_values: Values | None = None  # what the connection's exchanges have in common

    @cached_property
    def filter_state(self) -> FilterState:
        """Where `proxy_set_property` writes."""
        return FilterState(self.connection_values)

    @property
    def tls(self) -> bool:
        """Whether the client came over TLS."""
        return self.downstream_tls is not None
