"""Clusters: names, kinds of discovery, hosts, timeouts, HTTP options towards upstreams.

Field tables after envoy.config.cluster.v3, envoy.config.endpoint.v3 and envoy.extensions.upstreams.http.v3;
`hosts` and `tls_context` are API v2's.
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config.common import (
    HTTP_UPSTREAM,
    address,
    http1_upstream,
    http2_upstream,
    metadata,
    require_ip,
)
from pywasmproxy.config.extension import resolve
from pywasmproxy.config.health import PERCENT, circuit_breakers, health_check, outlier_detection
from pywasmproxy.config.model import (
    BUFFER_LIMIT,
    CONNECT_TIMEOUT,
    CONNECTION_IDLE_TIMEOUT,
    Cluster,
    ClusterType,
    DnsLookupFamily,
    Endpoint,
    Http1Options,
)
from pywasmproxy.config.model_clusters import DEFAULT_BREAKER, HealthCheck, LbPolicy, LoadBalancing
from pywasmproxy.config.schema import (
    NOT_SUPPORTED,
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    integer,
    later,
    number,
    positive_duration,
    repeated,
    text,
)
from pywasmproxy.config.tls import upstream_socket, upstream_tls

HTTP_OPTIONS_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_NO_HOST = "the host is left out"
_HTTP3 = "HTTP/3 is not supported: HTTP/1.1 is spoken"

HEALTH_CONFIG = Message(
    "envoy.config.endpoint.v3.Endpoint.HealthCheckConfig",
    {"port_value": integer(0, 65535), "hostname": text},
    ignored="address disable_active_health_check",
)

ENDPOINT = Message(
    "envoy.config.endpoint.v3.Endpoint",
    {"address": later, "hostname": text, "health_check_config": HEALTH_CONFIG.read},
    ignored="additional_addresses",
)

LB_ENDPOINT = Message(
    "envoy.config.endpoint.v3.LbEndpoint",
    {
        "endpoint": ENDPOINT.read,
        "metadata": metadata,
        "load_balancing_weight": integer(1, (1 << 32) - 1),
        "health_status": enum("health status", "UNKNOWN HEALTHY UNHEALTHY DRAINING TIMEOUT DEGRADED"),
    },
    ignored="endpoint_name",
    one_of=("endpoint endpoint_name",),
)

LOCALITY_ENDPOINTS = Message(
    "envoy.config.endpoint.v3.LocalityLbEndpoints",
    {
        "locality": anything,
        "metadata": anything,
        "lb_endpoints": repeated(later),
        "priority": integer(0, 128),
        "load_balancing_weight": anything,  # counts only with `locality_weighted_lb_config`
    },
    ignored="load_balancer_endpoints leds_cluster_locality_config proximity",
)

POLICY = Message(
    "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
    {"overprovisioning_factor": integer(1, 10_000)},
    ignored="drop_overloads endpoint_stale_after weighted_priority_health",
)

LOAD_ASSIGNMENT = Message(
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    {
        "cluster_name": anything,
        "endpoints": repeated(LOCALITY_ENDPOINTS.read),
        "policy": POLICY.read,
    },
    notes={"named_endpoints": NOT_SUPPORTED},
)

_PER_VERSION = {"http_protocol_options": http1_upstream}

EXPLICIT = Message(
    f"{HTTP_OPTIONS_KEY}.ExplicitHttpConfig",
    {**_PER_VERSION, "http2_protocol_options": http2_upstream},
    notes={"http3_protocol_options": _HTTP3},
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


def _lb_policy(cursor: Cursor) -> LbPolicy:
    known = (
        "ROUND_ROBIN LEAST_REQUEST RING_HASH RANDOM ORIGINAL_DST_LB MAGLEV CLUSTER_PROVIDED "
        "LOAD_BALANCING_POLICY_CONFIG"
    )
    name = enum("load balancing policy", known)(cursor)
    if name == "CLUSTER_PROVIDED":
        return LbPolicy.ROUND_ROBIN
    if name in ("ORIGINAL_DST_LB", "LOAD_BALANCING_POLICY_CONFIG"):
        cursor.warn(f"{name} is not supported yet: hosts are taken in turn (ROUND_ROBIN)")
        return LbPolicy.ROUND_ROBIN
    return LbPolicy(name)


def _choices(cursor: Cursor) -> int:
    return int(integer(2, (1 << 32) - 1)(cursor))


RUNTIME_DOUBLE = Message(
    "envoy.config.core.v3.RuntimeDouble", {"default_value": number(0, 1e6), "runtime_key": anything}
)

LEAST_REQUEST = Message(
    "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
    {"choice_count": _choices, "active_request_bias": RUNTIME_DOUBLE.read},
    ignored="slow_start_config",
)

_RING_SIZE = integer(0, 8 * 1024 * 1024)
RING = Message(
    "envoy.config.cluster.v3.Cluster.RingHashLbConfig",
    {
        "minimum_ring_size": _RING_SIZE,
        "maximum_ring_size": _RING_SIZE,
        "hash_function": enum("hash function", "XX_HASH MURMUR_HASH_2"),
    },
)


def _table_size(cursor: Cursor) -> int:
    size = int(integer(2, 5_000_011)(cursor))
    if any(size % factor == 0 for factor in range(2, int(size**0.5) + 1)):
        cursor.fail("The table size of maglev must be prime number")
    return size


MAGLEV = Message("envoy.config.cluster.v3.Cluster.MaglevLbConfig", {"table_size": _table_size})

CONSISTENT = Message(
    "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig",
    {"use_hostname_for_hashing": boolean},
    ignored="hash_balance_factor",
)

COMMON_LB = Message(
    "envoy.config.cluster.v3.Cluster.CommonLbConfig",
    {"healthy_panic_threshold": PERCENT.read, "consistent_hashing_lb_config": CONSISTENT.read},
    ignored="zone_aware_lb_config locality_weighted_lb_config update_merge_window "
    "ignore_new_hosts_until_first_hc close_connections_on_host_set_change override_host_status",
)


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
        "least_request_lb_config": LEAST_REQUEST.read,
        "ring_hash_lb_config": RING.read,
        "maglev_lb_config": MAGLEV.read,
        "common_lb_config": COMMON_LB.read,
        "health_checks": repeated(health_check),
        "outlier_detection": outlier_detection,
        "circuit_breakers": circuit_breakers,
        "hosts": repeated(later),
        "dns_lookup_family": _family,
        "typed_extension_protocol_options": _extension_options,
        "http_protocol_options": http1_upstream,
        "http2_protocol_options": http2_upstream,
        "common_http_protocol_options": HTTP_UPSTREAM.read,
        "transport_socket": upstream_socket,
        "tls_context": upstream_tls,
        "metadata": metadata,
    },
    ignored="transport_socket_matches transport_socket_matcher eds_cluster_config "
    "max_requests_per_connection upstream_http_protocol_options dns_refresh_rate dns_jitter "
    "dns_failure_refresh_rate respect_dns_ttl dns_resolvers use_tcp_for_dns_lookups dns_resolution_config "
    "typed_dns_resolver_config wait_for_warm_on_init cleanup_interval upstream_bind_config "
    "lb_subset_config original_dst_lb_config round_robin_lb_config protocol_selection "
    "upstream_connection_options close_connections_on_host_health_failure ignore_health_on_host_removal "
    "filters load_balancing_policy lrs_server lrs_report_endpoint_metrics track_timeout_budgets "
    "upstream_config track_cluster_stats preconnect_policy connection_pool_per_downstream_connection "
    "drain_connections_on_host_removal extension_protocol_options",
    notes={
        "cluster_type": "custom types are not supported: the cluster has no hosts but those named here",
    },
    one_of=("type cluster_type", "load_assignment hosts", "transport_socket tls_context"),
    required="name",
    legacy="hosts tls_context drain_connections_on_host_removal extension_protocol_options",
)


def cluster(cursor: Cursor) -> Cluster:
    """A `Cluster`."""
    values = CLUSTER.read(cursor)
    kind = values.get("type", ClusterType.STATIC)
    before = len(cursor.context.warnings)
    assignment = values.get("load_assignment", {})
    hosts = [*_assigned(assignment), *_hosts(values.get("hosts", ()))]
    complete = len(cursor.context.warnings) == before
    for endpoint, place in hosts:
        where = endpoint.address
        if kind is ClusterType.STATIC:
            require_ip(where.host, place, "; a name needs the cluster type STRICT_DNS or LOGICAL_DNS")
    if kind is ClusterType.LOGICAL_DNS and len(hosts) != 1:
        if hosts or complete:
            cursor.fail("a LOGICAL_DNS cluster needs exactly one endpoint")
        kind = ClusterType.STATIC  # its only host was left out: there is nothing to resolve
    extension = values.get("typed_extension_protocol_options", {})
    http1 = values.get("http_protocol_options", Http1Options())
    breakers = values.get("circuit_breakers", (DEFAULT_BREAKER, DEFAULT_BREAKER))
    http2 = values.get("http2_protocol_options")
    if extension:
        http2 = extension.get("explicit_http_config", {}).get("http2_protocol_options")
    for name in ("explicit_http_config", "use_downstream_protocol_config", "auto_config"):
        http1 = extension.get(name, {}).get("http_protocol_options", http1)
    common = values.get("common_http_protocol_options", {}) | extension.get(
        "common_http_protocol_options", {}
    )
    return Cluster(
        name=values["name"],
        type=kind,
        endpoints=tuple(endpoint for endpoint, _ in hosts),
        connect_timeout=values.get("connect_timeout", CONNECT_TIMEOUT),
        dns_lookup_family=values.get("dns_lookup_family", DnsLookupFamily.AUTO),
        http1=http1,
        http2=http2,
        idle_timeout=common.get("idle_timeout", CONNECTION_IDLE_TIMEOUT),
        buffer_limit=values.get("per_connection_buffer_limit_bytes", BUFFER_LIMIT),
        metadata=values.get("metadata", {}),
        load_balancing=_load_balancing(values, assignment.get("policy", {}), cursor),
        health_checks=_one_check(values.get("health_checks", ()), cursor),
        outlier_detection=values.get("outlier_detection"),
        circuit_breaker=breakers[0],
        high_circuit_breaker=breakers[1],
        tls=values.get("transport_socket", values.get("tls_context")),
    )


def _load_balancing(values: dict[str, Any], policy: dict[str, Any], cursor: Cursor) -> LoadBalancing:
    ring = values.get("ring_hash_lb_config", {})
    least = values.get("least_request_lb_config", {})
    common = values.get("common_lb_config", {})
    found = LoadBalancing(
        policy=values.get("lb_policy", LbPolicy.ROUND_ROBIN),
        choices=least.get("choice_count", 2),
        active_request_bias=least.get("active_request_bias", {}).get("default_value", 1.0),
        minimum_ring_size=ring.get("minimum_ring_size", 1024),
        maximum_ring_size=ring.get("maximum_ring_size", 8 * 1024 * 1024),
        murmur=ring.get("hash_function", "XX_HASH") == "MURMUR_HASH_2",
        table_size=values.get("maglev_lb_config", {}).get("table_size", 65537),
        hash_by_name=common.get("consistent_hashing_lb_config", {}).get("use_hostname_for_hashing", False),
        panic_threshold=common.get("healthy_panic_threshold", {"value": 50.0}).get("value", 0.0),
        overprovisioning=policy.get("overprovisioning_factor", 140),
    )
    if found.minimum_ring_size > found.maximum_ring_size:
        cursor.fail("ring hash: minimum_ring_size is greater than maximum_ring_size")
    return found


def _one_check(found: tuple[HealthCheck | None, ...], cursor: Cursor) -> tuple[HealthCheck, ...]:
    if len(found) > 1:
        cursor.fail("Multiple health checks not supported")
    return tuple(one for one in found if one is not None)


_UNHEALTHY = ("UNHEALTHY", "DRAINING", "TIMEOUT")


def _assigned(assignment: dict[str, Any]) -> list[tuple[Endpoint, Cursor]]:
    found: list[tuple[Endpoint, Cursor]] = []
    for locality in assignment.get("endpoints", ()):
        for entry in locality.get("lb_endpoints", ()):
            values = LB_ENDPOINT.read(entry)
            host = values.get("endpoint", {})
            place = host.get("address")
            if place is None or (where := address(place, _NO_HOST)) is None:
                continue
            check = host.get("health_check_config", {})
            endpoint = Endpoint(
                where,
                hostname=host.get("hostname", ""),
                weight=values.get("load_balancing_weight", 1),
                priority=locality.get("priority", 0),
                health_port=check.get("port_value") or None,
                health_hostname=check.get("hostname", ""),
                healthy=values.get("health_status") not in _UNHEALTHY,
                metadata=values.get("metadata", {}),
            )
            found.append((endpoint, place))
    return found


def _hosts(places: tuple[Cursor, ...]) -> list[tuple[Endpoint, Cursor]]:
    found = [(address(place, _NO_HOST), place) for place in places]
    return [(Endpoint(where), place) for where, place in found if where is not None]
