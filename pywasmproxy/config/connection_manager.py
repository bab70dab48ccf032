"""The HTTP connection manager: how a listener speaks HTTP, its route table and its filters.

Field table after envoy.extensions.filters.network.http_connection_manager.v3.
"""

from __future__ import annotations

from pywasmproxy.config.access_log import access_logs
from pywasmproxy.config.common import HTTP_DOWNSTREAM, http1_downstream
from pywasmproxy.config.http_filters import http_filters
from pywasmproxy.config.model import (
    CONNECTION_IDLE_TIMEOUT,
    HEADERS_COUNT_LIMIT,
    HEADERS_LIMIT,
    STREAM_IDLE_TIMEOUT,
    CodecType,
    Http1Options,
    HttpConnectionManager,
    RouteConfig,
    ServerHeaderTransformation,
)
from pywasmproxy.config.routes import route_config
from pywasmproxy.config.schema import Cursor, Message, boolean, enum, integer, text, timeout

_DYNAMIC_ROUTES = "not supported yet: there are no routes, every request is answered with 404"


def _codec(cursor: Cursor) -> CodecType:
    name = enum("codec type", "AUTO HTTP1 HTTP2 HTTP3")(cursor)
    if name in ("HTTP2", "HTTP3"):
        cursor.warn(f"{name} is not supported yet: HTTP/1.1 is spoken")
        return CodecType.HTTP1
    return CodecType(name)


def _server_header(cursor: Cursor) -> ServerHeaderTransformation:
    names = " ".join(choice.value for choice in ServerHeaderTransformation)
    return ServerHeaderTransformation(enum("server header transformation", names)(cursor))


CONNECTION_MANAGER = Message(
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    {
        "stat_prefix": text,
        "codec_type": _codec,
        "route_config": route_config,
        "http_filters": http_filters,
        "http_protocol_options": http1_downstream,
        "common_http_protocol_options": HTTP_DOWNSTREAM.read,
        "server_name": text,
        "server_header_transformation": _server_header,
        "max_request_headers_kb": integer(1, 8192),
        "stream_idle_timeout": timeout,
        "request_headers_timeout": timeout,
        "generate_request_id": boolean,
        "access_log": access_logs,
    },
    ignored="access_log_flush_interval flush_access_log_on_new_request access_log_options "
    "request_timeout add_user_agent tracing http1_safe_max_connection_duration "
    "http2_protocol_options "
    "http3_protocol_options scheme_header_transformation stream_flush_timeout drain_timeout "
    "delayed_close_timeout use_remote_address xff_num_trusted_hops original_ip_detection_extensions "
    "early_header_mutation_extensions internal_address_config skip_xff_append via "
    "always_set_request_id_in_response preserve_external_request_id "
    "forward_client_cert_details set_current_client_cert_details "
    "forward_client_cert_matcher proxy_100_continue represent_ipv4_remote_address_as_ipv4_mapped_ipv6 "
    "upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action request_id_extension "
    "local_reply_config strip_matching_host_port strip_any_host_port "
    "stream_error_on_invalid_http_message path_normalization_options strip_trailing_host_dot "
    "proxy_status_config typed_header_validation_config append_x_forwarded_port append_local_overload "
    "add_proxy_protocol_connection_state idle_timeout max_stream_duration",
    notes={"rds": _DYNAMIC_ROUTES, "scoped_routes": _DYNAMIC_ROUTES},
    harmless={
        "request_timeout": ("0s",),
        "use_remote_address": (False,),
        "skip_xff_append": (True,),
        "normalize_path": (False,),
    },
    one_of=("rds route_config scoped_routes",),
    required="stat_prefix",
    legacy="idle_timeout max_stream_duration",
)


def connection_manager(cursor: Cursor) -> HttpConnectionManager:
    """An `HttpConnectionManager`."""
    values = CONNECTION_MANAGER.read(cursor)
    if "http_filters" not in values:
        cursor.fail("http_filters is missing: it needs at least the router (envoy.filters.http.router)")
    if "route_config" not in values and cursor.get("rds", "scoped_routes", "scopedRoutes") is None:
        cursor.fail("route_config is missing")
    common = values.get("common_http_protocol_options", {})
    return HttpConnectionManager(
        stat_prefix=values["stat_prefix"],
        route_config=values.get("route_config", RouteConfig()),
        http_filters=values["http_filters"],
        codec_type=values.get("codec_type", CodecType.AUTO),
        server_name=values.get("server_name") or "envoy",
        server_header_transformation=values.get(
            "server_header_transformation", ServerHeaderTransformation.OVERWRITE
        ),
        http1=values.get("http_protocol_options", Http1Options()),
        stream_idle_timeout=values.get("stream_idle_timeout", STREAM_IDLE_TIMEOUT),
        request_headers_timeout=values.get("request_headers_timeout"),
        idle_timeout=common.get("idle_timeout", CONNECTION_IDLE_TIMEOUT),
        max_request_headers_bytes=values.get("max_request_headers_kb", HEADERS_LIMIT // 1024) * 1024,
        max_headers_count=common.get("max_headers_count", HEADERS_COUNT_LIMIT),
        generate_request_id=values.get("generate_request_id", True),
        access_logs=values.get("access_log", ()),
    )
