"""Header names that have one line at most: adding to one that is there joins the values with a comma.

Measured on Envoy 1.40, name by name, through `proxy_add_header_map_value`: these are its "inline" headers.
Every other name (`cookie` and `set-cookie` among them) gets another line.
"""

from __future__ import annotations

from abi.proxy_wasm.types import MapType

_BOTH = frozenset(
    b"""
    content-type content-length content-encoding connection cache-control keep-alive proxy-connection
    proxy-status transfer-encoding upgrade via x-request-id x-envoy-attempt-count x-envoy-decorator-operation
    """.split()
)

_REQUEST = frozenset(
    b"""
    :authority :method :path :protocol :scheme
    accept accept-encoding authorization expect grpc-accept-encoding grpc-timeout if-match if-modified-since
    if-none-match if-range if-unmodified-since origin pragma referer te user-agent x-client-trace-id
    access-control-request-headers access-control-request-method access-control-request-private-network
    x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto
    x-envoy-downstream-service-cluster x-envoy-downstream-service-node x-envoy-expected-rq-timeout-ms
    x-envoy-external-address x-envoy-force-trace x-envoy-hedge-on-per-try-timeout x-envoy-internal
    x-envoy-ip-tags x-envoy-is-timeout-retry x-envoy-max-retries x-envoy-original-host x-envoy-original-path
    x-envoy-original-url x-envoy-retriable-header-names x-envoy-retriable-status-codes x-envoy-retry-grpc-on
    x-envoy-retry-on x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-per-try-timeout-ms
    x-envoy-upstream-rq-timeout-ms x-envoy-upstream-stream-duration-ms
    """.split()
)

_RESPONSE = frozenset(
    b"""
    :status
    access-control-allow-credentials access-control-allow-headers access-control-allow-methods
    access-control-allow-origin access-control-allow-private-network access-control-expose-headers
    access-control-max-age age date etag expires grpc-message grpc-status last-modified location server vary
    x-envoy-degraded x-envoy-immediate-health-check-fail x-envoy-ratelimited x-envoy-upstream-canary
    x-envoy-upstream-healthchecked-cluster x-envoy-upstream-service-time
    """.split()
)

SINGLE_VALUE: dict[int, frozenset[bytes]] = {
    MapType.HTTP_REQUEST_HEADERS: _BOTH | _REQUEST,
    MapType.HTTP_REQUEST_TRAILERS: frozenset(),
    MapType.HTTP_RESPONSE_HEADERS: _BOTH | _RESPONSE,
    MapType.HTTP_RESPONSE_TRAILERS: frozenset((b"grpc-status", b"grpc-message")),
}
"""Per map that a guest can write, the names that are joined."""
