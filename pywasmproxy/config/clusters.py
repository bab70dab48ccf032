"""Clusters: names, kinds of discovery, hosts, timeouts, HTTP options towards upstreams.

Field tables after envoy.config.cluster.v3, envoy.config.endpoint.v3 and envoy.extensions.upstreams.http.v3;
`hosts` and `tls_context` are API v2's.
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config.common import (
    HTTP_UPSTREAM,
    PLAIN_TEXT,
    address,
    http1_upstream,
    metadata,
    require_ip,
    transport_socket,
)
from pywasmproxy.config.extension import resolve
from pywasmproxy.config.model import (
    BUFFER_LIMIT,
    CONNECT_TIMEOUT,
    CONNECTION_IDLE_TIMEOUT,
    Address,
    Cluster,
    ClusterType,
    DnsLookupFamily,
    Endpoint,
    Http1Options,
)
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    enum,
    later,
    positive_duration,
    repeated,
    text,
)

HTTP_OPTIONS_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_NO_HOST = "the host is left out"
_HTTP2 = "HTTP/2 and HTTP/3 to upstreams are not supported yet, but for gRPC calls: HTTP/1.1 is spoken"

ENDPOINT = Message(
    "envoy.config.endpoint.v3.Endpoint",
    {"address": later, "hostname": anything},
    ignored="health_check_config additional_addresses",
)

LB_ENDPOINT = Message(
    "envoy.config.endpoint.v3.LbEndpoint",
    {"endpoint": ENDPOINT.read, "metadata": anything},
    ignored="endpoint_name health_status load_balancing_weight",
    harmless={"load_balancing_weight": (1, "1"), "health_status": ("HEALTHY", "UNKNOWN")},
    one_of=("endpoint endpoint_name",),
)

LOCALITY_ENDPOINTS = Message(
    "envoy.config.endpoint.v3.LocalityLbEndpoints",
    {"locality": anything, "metadata": anything, "lb_endpoints": repeated(later)},
    ignored="load_balancer_endpoints leds_cluster_locality_config load_balancing_weight priority proximity",
    harmless={"load_balancing_weight": (1, "1"), "priority": (0, "0")},
)

LOAD_ASSIGNMENT = Message(
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    {"cluster_name": anything, "endpoints": repeated(LOCALITY_ENDPOINTS.read)},
    ignored="named_endpoints policy",
)

_PER_VERSION = {"http_protocol_options": http1_upstream}

EXPLICIT = Message(
    f"{HTTP_OPTIONS_KEY}.ExplicitHttpConfig",
    _PER_VERSION,
    notes={"http2_protocol_options": _HTTP2, "http3_protocol_options": _HTTP2},
    one_of=("http_protocol_options http2_protocol_options http3_protocol_options",),
)

USE_DOWNSTREAM = Message(
    f"{HTTP_OPTIONS_KEY}.UseDownstreamHttpConfig",
    {**_PER_VERSION, "http2_protocol_options": anything, "http3_protocol_options": anything},
)  # downstreams speak HTTP/1.1, so the other options can never apply

AUTO = Message(
    f"{HTTP_OPTIONS_KEY}.AutoHttpConfig",
    _PER_VERSION,
    ignored="http2_protocol_options http3_protocol_options alternate_protocols_cache_options",
)

HTTP_OPTIONS = Message(
    HTTP_OPTIONS_KEY,
    {
        "common_http_protocol_options": HTTP_UPSTREAM.read,
        "explicit_http_config": EXPLICIT.read,
        "use_downstream_protocol_config": USE_DOWNSTREAM.read,
        "auto_config": AUTO.read,
    },
    ignored="upstream_http_protocol_options http_filters header_validation_config outlier_detection "
    "request_mirror_policies hash_policy retry_policy",
    one_of=("explicit_http_config use_downstream_protocol_config auto_config",),
)


def _extension_options(cursor: Cursor) -> dict[str, Any]:
    """The HTTP options among `typed_extension_protocol_options`."""
    found: dict[str, Any] = {}
    for key, place in cursor.entries():
        name, fields = resolve(place)
        if name != HTTP_OPTIONS_KEY and key != HTTP_OPTIONS_KEY:
            place.warn("not supported yet, ignored")
        elif fields is not None:
            found = HTTP_OPTIONS.read(fields)
    return found


def _type(cursor: Cursor) -> ClusterType:
    name = enum("cluster type", "STATIC STRICT_DNS LOGICAL_DNS EDS ORIGINAL_DST")(cursor)
    if name in ("EDS", "ORIGINAL_DST"):
        cursor.warn(f"{name} is not supported yet: the cluster has no hosts but those named here")
        return ClusterType.STATIC
    return ClusterType(name)


def _lb_policy(cursor: Cursor) -> None:
    known = (
        "ROUND_ROBIN LEAST_REQUEST RING_HASH RANDOM ORIGINAL_DST_LB MAGLEV CLUSTER_PROVIDED "
        "LOAD_BALANCING_POLICY_CONFIG"
    )
    name = enum("load balancing policy", known)(cursor)
    if name not in ("ROUND_ROBIN", "CLUSTER_PROVIDED"):
        cursor.warn(f"{name} is not supported yet: hosts are taken in turn (ROUND_ROBIN)")


def _family(cursor: Cursor) -> DnsLookupFamily:
    names = " ".join(choice.value for choice in DnsLookupFamily)
    return DnsLookupFamily(enum("DNS lookup family", names)(cursor))


CLUSTER = Message(
    "envoy.config.cluster.v3.Cluster",
    {
        "name": text,
        "alt_stat_name": anything,  # no statistics yet
        "type": _type,
        "connect_timeout": positive_duration,
        "per_connection_buffer_limit_bytes": UINT32,
        "lb_policy": _lb_policy,
        "load_assignment": LOAD_ASSIGNMENT.read,
        "hosts": repeated(later),
        "dns_lookup_family": _family,
        "typed_extension_protocol_options": _extension_options,
        "http_protocol_options": http1_upstream,
        "common_http_protocol_options": HTTP_UPSTREAM.read,
        "transport_socket": transport_socket,
        "metadata": metadata,
    },
    ignored="transport_socket_matches transport_socket_matcher eds_cluster_config health_checks "
    "max_requests_per_connection circuit_breakers upstream_http_protocol_options dns_refresh_rate dns_jitter "
    "dns_failure_refresh_rate respect_dns_ttl dns_resolvers use_tcp_for_dns_lookups dns_resolution_config "
    "typed_dns_resolver_config wait_for_warm_on_init outlier_detection cleanup_interval upstream_bind_config "
    "lb_subset_config ring_hash_lb_config maglev_lb_config original_dst_lb_config least_request_lb_config "
    "round_robin_lb_config common_lb_config protocol_selection upstream_connection_options "
    "close_connections_on_host_health_failure ignore_health_on_host_removal filters load_balancing_policy "
    "lrs_server lrs_report_endpoint_metrics track_timeout_budgets upstream_config track_cluster_stats "
    "preconnect_policy connection_pool_per_downstream_connection drain_connections_on_host_removal "
    "extension_protocol_options",
    notes={
        "cluster_type": "custom types are not supported: the cluster has no hosts but those named here",
        "http2_protocol_options": _HTTP2,
        "tls_context": PLAIN_TEXT,
    },
    one_of=("type cluster_type", "load_assignment hosts"),
    required="name",
    legacy="hosts tls_context drain_connections_on_host_removal extension_protocol_options",
)


def cluster(cursor: Cursor) -> Cluster:
    """A `Cluster`."""
    values = CLUSTER.read(cursor)
    kind = values.get("type", ClusterType.STATIC)
    before = len(cursor.context.warnings)
    hosts = [*_assigned(values.get("load_assignment", {})), *_hosts(values.get("hosts", ()))]
    complete = len(cursor.context.warnings) == before
    for where, place in hosts:
        if kind is ClusterType.STATIC:
            require_ip(where.host, place, "; a name needs the cluster type STRICT_DNS or LOGICAL_DNS")
    if kind is ClusterType.LOGICAL_DNS and len(hosts) != 1:
        if hosts or complete:
            cursor.fail("a LOGICAL_DNS cluster needs exactly one endpoint")
        kind = ClusterType.STATIC  # its only host was left out: there is nothing to resolve
    extension = values.get("typed_extension_protocol_options", {})
    http1 = values.get("http_protocol_options", Http1Options())
    for name in ("explicit_http_config", "use_downstream_protocol_config", "auto_config"):
        http1 = extension.get(name, {}).get("http_protocol_options", http1)
    common = values.get("common_http_protocol_options", {}) | extension.get(
        "common_http_protocol_options", {}
    )
    return Cluster(
        name=values["name"],
        type=kind,
        endpoints=tuple(Endpoint(where) for where, _ in hosts),
        connect_timeout=values.get("connect_timeout", CONNECT_TIMEOUT),
        dns_lookup_family=values.get("dns_lookup_family", DnsLookupFamily.AUTO),
        http1=http1,
        idle_timeout=common.get("idle_timeout", CONNECTION_IDLE_TIMEOUT),
        buffer_limit=values.get("per_connection_buffer_limit_bytes", BUFFER_LIMIT),
        metadata=values.get("metadata", {}),
    )


def _assigned(assignment: dict[str, Any]) -> list[tuple[Address, Cursor]]:
    found: list[tuple[Address, Cursor]] = []
    for locality in assignment.get("endpoints", ()):
        for entry in locality.get("lb_endpoints", ()):
            place = LB_ENDPOINT.read(entry).get("endpoint", {}).get("address")
            if place is not None and (where := address(place, _NO_HOST)) is not None:
                found.append((where, place))
    return found


def _hosts(places: tuple[Cursor, ...]) -> list[tuple[Address, Cursor]]:
    return [(where, place) for place in places if (where := address(place, _NO_HOST)) is not None]
