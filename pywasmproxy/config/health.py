"""Health checks, outlier detection and circuit breakers of clusters.

Field tables after envoy.config.core.v3 (health_check.proto) and envoy.config.cluster.v3
(outlier_detection.proto, circuit_breaker.proto).
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config.anyvalue import base64_bytes
from pywasmproxy.config.matchers import RANGE
from pywasmproxy.config.model_clusters import (
    DEFAULT_BREAKER,
    CheckKind,
    CircuitBreaker,
    HealthCheck,
    OutlierDetection,
    RetryBudget,
)
from pywasmproxy.config.mutations import addition
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    duration,
    enum,
    integer,
    later,
    number,
    positive_duration,
    repeated,
    text,
)

PERCENT = Message("envoy.type.v3.Percent", {"value": number(0, 100)})

_CHECK = "envoy.config.core.v3.HealthCheck"
_PERCENT = integer(0, 100)
_NOT_CHECKED = "not supported: hosts are not checked this way"


def _hexadecimal(cursor: Cursor) -> bytes:
    try:
        return bytes.fromhex(text(cursor))
    except ValueError:
        cursor.fail("expected hexadecimal digits")


PAYLOAD = Message(
    f"{_CHECK}.Payload",
    {"text": _hexadecimal, "binary": base64_bytes},
    one_of=("text binary",),
)


def _payload(cursor: Cursor) -> bytes:
    values = PAYLOAD.read(cursor)
    found: bytes = values.get("text", values.get("binary", b""))
    return found


def _range(cursor: Cursor) -> tuple[int, int]:
    values = RANGE.read(cursor)
    found = values.get("start", 0), values.get("end", 0)
    if not 100 <= found[0] < found[1] <= 600:
        cursor.fail("expected a range of statuses: 100 <= start < end <= 600")
    return found


HTTP_CHECK = Message(
    f"{_CHECK}.HttpHealthCheck",
    {
        "host": text,
        "path": text,
        "request_headers_to_add": repeated(addition),
        "expected_statuses": repeated(_range),
        "retriable_statuses": repeated(_range),
        "method": enum("method", "METHOD_UNSPECIFIED GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH"),
        "response_buffer_size": anything,
    },
    ignored="send receive request_headers_to_remove service_name_matcher codec_client_type "
    "service_name use_http2",
    harmless={"codec_client_type": ("HTTP1", "http1")},
    required="path",
    legacy="service_name use_http2",
)

TCP_CHECK = Message(
    f"{_CHECK}.TcpHealthCheck",
    {"send": _payload, "receive": repeated(_payload)},
    ignored="proxy_protocol_config",
)

_KINDS = ("http_health_check", "tcp_health_check", "grpc_health_check", "custom_health_check")

HEALTH_CHECK = Message(
    _CHECK,
    {
        "timeout": positive_duration,
        "interval": positive_duration,
        "initial_jitter": duration,
        "interval_jitter": duration,
        "interval_jitter_percent": UINT32,
        "unhealthy_threshold": UINT32,
        "healthy_threshold": UINT32,
        "reuse_connection": anything,  # each check has a connection of its own
        "http_health_check": HTTP_CHECK.read,
        "tcp_health_check": TCP_CHECK.read,
        "no_traffic_interval": positive_duration,
        "no_traffic_healthy_interval": positive_duration,
        "unhealthy_interval": positive_duration,
        "unhealthy_edge_interval": positive_duration,
        "healthy_edge_interval": positive_duration,
    },
    ignored="alt_port event_log_path event_service event_logger always_log_health_check_failures "
    "always_log_health_check_success tls_options transport_socket_match_criteria",
    notes={"grpc_health_check": _NOT_CHECKED, "custom_health_check": _NOT_CHECKED},
    one_of=(" ".join(_KINDS),),
    required="timeout interval",
)


def health_check(cursor: Cursor) -> HealthCheck | None:
    """A `HealthCheck`; None for a kind that we cannot do (and have warned about)."""
    values = HEALTH_CHECK.read(cursor)
    for name in ("unhealthy_threshold", "healthy_threshold"):
        if name not in values:
            cursor.fail(f"HealthCheck needs {name!r}")
    http: dict[str, Any] | None = values.pop("http_health_check", None)
    tcp: dict[str, Any] | None = values.pop("tcp_health_check", None)
    values.pop("reuse_connection", None)
    if http is not None:
        method = http.get("method", "GET")
        return HealthCheck(
            CheckKind.HTTP,
            **values,
            host=http.get("host", ""),
            path=http["path"],
            method="GET" if method == "METHOD_UNSPECIFIED" else method,
            headers=tuple((one.name, one.value) for one in http.get("request_headers_to_add", ())),
            expected=http.get("expected_statuses") or ((200, 201),),
            retriable=http.get("retriable_statuses", ()),
        )
    if tcp is not None:
        return HealthCheck(CheckKind.TCP, **values, send=tcp.get("send", b""), receive=tcp.get("receive", ()))
    if cursor.get("grpc_health_check", "grpcHealthCheck", "custom_health_check", "customHealthCheck") is None:
        cursor.fail(f"HealthCheck needs one of {', '.join(_KINDS)}")
    return None


_OUTLIER_NUMBERS = {
    "consecutive_5xx": UINT32,
    "consecutive_gateway_failure": UINT32,
    "consecutive_local_origin_failure": UINT32,
    "interval": positive_duration,
    "base_ejection_time": positive_duration,
    "max_ejection_time": positive_duration,
    "max_ejection_time_jitter": duration,
    "max_ejection_percent": _PERCENT,
    "always_eject_one_host": boolean,
    "success_rate_minimum_hosts": UINT32,
    "success_rate_request_volume": UINT32,
    "success_rate_stdev_factor": UINT32,
    "failure_percentage_threshold": _PERCENT,
    "failure_percentage_minimum_hosts": UINT32,
    "failure_percentage_request_volume": UINT32,
    "enforcing_consecutive_5xx": _PERCENT,
    "enforcing_consecutive_gateway_failure": _PERCENT,
    "enforcing_consecutive_local_origin_failure": _PERCENT,
    "enforcing_success_rate": _PERCENT,
    "enforcing_local_origin_success_rate": _PERCENT,
    "enforcing_failure_percentage": _PERCENT,
    "enforcing_failure_percentage_local_origin": _PERCENT,
}

_OUTLIER_OTHERS = {
    "split_external_local_origin_errors": "split_local_origin_errors",
    "successful_active_health_check_uneject_host": "successful_health_check_unejects",
}
"""Names that are shorter with us."""

OUTLIER = Message(
    "envoy.config.cluster.v3.OutlierDetection",
    {**_OUTLIER_NUMBERS, **dict.fromkeys(_OUTLIER_OTHERS, boolean)},
    ignored="monitors detect_degraded_hosts",
    legacy="detect_degraded_hosts",  # newer than the published protobufs
)


def outlier_detection(cursor: Cursor) -> OutlierDetection:
    """An `OutlierDetection`."""
    values = OUTLIER.read(cursor)
    return OutlierDetection(**{_OUTLIER_OTHERS.get(name, name): value for name, value in values.items()})


RETRY_BUDGET = Message(
    "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget",
    {"budget_percent": PERCENT.read, "min_retry_concurrency": UINT32},
)


def _retry_budget(cursor: Cursor) -> RetryBudget:
    values = RETRY_BUDGET.read(cursor)
    percent = values.get("budget_percent", {"value": 20.0}).get("value", 0.0)
    return RetryBudget(percent, values.get("min_retry_concurrency", 3))


THRESHOLDS = Message(
    "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
    {
        "priority": enum("priority", "DEFAULT HIGH"),
        "max_connections": UINT32,
        "max_pending_requests": UINT32,
        "max_requests": UINT32,
        "max_retries": UINT32,
        "retry_budget": _retry_budget,
        "track_remaining": boolean,
    },
    ignored="max_connection_pools",
)

BREAKERS = Message(
    "envoy.config.cluster.v3.CircuitBreakers",
    {"thresholds": repeated(later)},
    ignored="per_host_thresholds",
)


def circuit_breakers(cursor: Cursor) -> tuple[CircuitBreaker, CircuitBreaker]:
    """`CircuitBreakers` for requests of the priorities DEFAULT and HIGH; the first of each counts."""
    found: dict[str, CircuitBreaker] = {}
    for place in BREAKERS.read(cursor).get("thresholds", ()):
        values = THRESHOLDS.read(place)
        priority = values.pop("priority", "DEFAULT")
        if priority in found:
            place.warn(f"there are thresholds for priority {priority} already: these are not used")
        found.setdefault(priority, CircuitBreaker(**values))
    return found.get("DEFAULT", DEFAULT_BREAKER), found.get("HIGH", DEFAULT_BREAKER)
