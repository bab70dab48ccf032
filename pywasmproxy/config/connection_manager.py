"""The HTTP connection manager: how a listener speaks HTTP, its route table and its filters.

Field table after envoy.extensions.filters.network.http_connection_manager.v3.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from pywasmproxy.config import discovery
from pywasmproxy.config.access_log import access_logs
from pywasmproxy.config.actions import upgrade_name
from pywasmproxy.config.common import HTTP_DOWNSTREAM, http1_downstream
from pywasmproxy.config.http_filters import http_filters
from pywasmproxy.config.model import (
    CONNECTION_IDLE_TIMEOUT,
    DELAYED_CLOSE_TIMEOUT,
    DRAIN_TIMEOUT,
    HEADERS_COUNT_LIMIT,
    HEADERS_LIMIT,
    STREAM_IDLE_TIMEOUT,
    CodecType,
    Http1Options,
    HttpConnectionManager,
    RouteConfig,
    ServerHeaderTransformation,
)
from pywasmproxy.config.model_manager import (
    ClientCertMode,
    ClientCertRules,
    EscapedSlashes,
    Forwarding,
    StripPort,
    TargetRules,
    Underscores,
)
from pywasmproxy.config.replies import local_replies
from pywasmproxy.config.routes import route_config
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
    repeated,
    text,
    timeout,
)

_NAME = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
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


def _escaped_slashes(cursor: Cursor) -> EscapedSlashes:
    names = "IMPLEMENTATION_SPECIFIC_DEFAULT " + " ".join(choice.value for choice in EscapedSlashes)
    name = enum("action on escaped slashes", names)(cursor)
    return EscapedSlashes.KEEP_UNCHANGED if name.startswith("IMPLEMENTATION") else EscapedSlashes(name)


SCHEME = Message(
    "envoy.config.core.v3.SchemeHeaderTransformation",
    {
        "scheme_to_overwrite": enum("scheme", "HTTP HTTPS"),
        "match_upstream": anything,  # to upstreams we speak HTTP/1.1, which has no place for a scheme
    },
    one_of=("scheme_to_overwrite match_upstream",),
)

CIDR = Message(
    "envoy.config.core.v3.CidrRange",
    {"address_prefix": text, "prefix_len": integer(0, 128)},
    required="address_prefix",
)


def _cidr(cursor: Cursor) -> str:
    values = CIDR.read(cursor)
    written = f"{values['address_prefix']}/{values.get('prefix_len', 0)}"
    try:
        ipaddress.ip_network(written, strict=False)
    except ValueError as error:
        cursor.fail(f"no network: {error}")
    return written


INTERNAL_ADDRESSES = Message(
    f"{_NAME}.InternalAddressConfig",
    {"cidr_ranges": repeated(_cidr), "unix_sockets": anything},  # there are none
)

UPGRADE = Message(
    f"{_NAME}.UpgradeConfig",
    {"upgrade_type": text, "enabled": boolean},
    notes={"filters": "not supported yet: requests that change protocols go through the usual filters"},
)


def _upgrade(cursor: Cursor) -> tuple[str, bool]:
    values = UPGRADE.read(cursor)
    return upgrade_name(values.get("upgrade_type", ""), cursor), values.get("enabled", True)


CERT_DETAILS = Message(
    f"{_NAME}.SetCurrentClientCertDetails",
    {"subject": boolean, "uri": boolean, "dns": boolean},
    ignored="cert chain",
    harmless={"cert": (False,), "chain": (False,)},
)

RDS = Message(
    "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
    {"config_source": later, "route_config_name": text},
)


def _dynamic_routes(cursor: Cursor) -> RouteConfig | None:
    """The routes in a file; None for those that somebody else has, which is warned about."""
    values = RDS.read(cursor)
    found = None
    if "config_source" in values:
        name = values.get("route_config_name", "")
        found = discovery.named(values["config_source"], "RouteConfiguration", name)
    if found is None:
        cursor.warn(_DYNAMIC_ROUTES)
        return None
    return route_config(found)


NORMALISATION = "use normalize_path instead: ignored"

CONNECTION_MANAGER = Message(
    _NAME,
    {
        "stat_prefix": text,
        "codec_type": _codec,
        "route_config": route_config,
        "rds": _dynamic_routes,
        "http_filters": http_filters,
        "http_protocol_options": http1_downstream,
        "common_http_protocol_options": HTTP_DOWNSTREAM.read,
        "server_name": text,
        "server_header_transformation": _server_header,
        "max_request_headers_kb": integer(1, 8192),
        "stream_idle_timeout": timeout,
        "request_timeout": timeout,
        "request_headers_timeout": timeout,
        "delayed_close_timeout": timeout,
        "drain_timeout": duration,
        "generate_request_id": boolean,
        "preserve_external_request_id": boolean,
        "always_set_request_id_in_response": boolean,
        "access_log": access_logs,
        "local_reply_config": local_replies,
        "use_remote_address": boolean,
        "xff_num_trusted_hops": UINT32,
        "skip_xff_append": boolean,
        "internal_address_config": INTERNAL_ADDRESSES.read,
        "append_x_forwarded_port": boolean,
        "via": text,
        "add_user_agent": boolean,
        "scheme_header_transformation": SCHEME.read,
        "normalize_path": boolean,
        "merge_slashes": boolean,
        "path_with_escaped_slashes_action": _escaped_slashes,
        "strip_matching_host_port": boolean,
        "strip_any_host_port": boolean,
        "strip_trailing_host_dot": boolean,
        "upgrade_configs": repeated(_upgrade),
        # concern protocols, certificates and tools that no request here comes with
        "http2_protocol_options": anything,
        "http3_protocol_options": anything,
        "forward_client_cert_details": enum("way", " ".join(mode.name for mode in ClientCertMode)),
        "set_current_client_cert_details": CERT_DETAILS.read,
        "forward_client_cert_matcher": anything,
        "append_local_overload": anything,
        "add_proxy_protocol_connection_state": anything,
    },
    ignored="tracing access_log_flush_interval flush_access_log_on_new_request access_log_options "
    "http1_safe_max_connection_duration stream_flush_timeout "
    "original_ip_detection_extensions early_header_mutation_extensions "
    "proxy_100_continue represent_ipv4_remote_address_as_ipv4_mapped_ipv6 "
    "request_id_extension stream_error_on_invalid_http_message "
    "proxy_status_config typed_header_validation_config idle_timeout max_stream_duration",
    notes={
        "scoped_routes": _DYNAMIC_ROUTES,
        "path_normalization_options": NORMALISATION,
    },
    harmless={
        "proxy_100_continue": (False,),
        "represent_ipv4_remote_address_as_ipv4_mapped_ipv6": (False,),
        "http1_safe_max_connection_duration": (False,),
        "stream_error_on_invalid_http_message": (False,),
    },
    one_of=("rds route_config scoped_routes", "strip_matching_host_port strip_any_host_port"),
    required="stat_prefix",
    legacy="idle_timeout max_stream_duration",
)


def _forwarding(values: dict[str, Any]) -> Forwarding:
    """Who is believed about the client."""
    scheme: str | None = values.get("scheme_header_transformation", {}).get("scheme_to_overwrite")
    return Forwarding(
        use_remote_address=values.get("use_remote_address", False),
        trusted_hops=values.get("xff_num_trusted_hops", 0),
        skip_append=values.get("skip_xff_append", False),
        internal_ranges=values.get("internal_address_config", {}).get("cidr_ranges", ()),
        append_port=values.get("append_x_forwarded_port", False),
        via=values.get("via", ""),
        add_user_agent=values.get("add_user_agent", False),
        preserve_external_request_id=values.get("preserve_external_request_id", False),
        scheme=None if scheme is None else scheme.lower(),
        client_cert=ClientCertRules(
            ClientCertMode[values.get("forward_client_cert_details", "SANITIZE")],
            frozenset(name for name, on in values.get("set_current_client_cert_details", {}).items() if on),
        ),
    )


def _target(values: dict[str, Any]) -> TargetRules:
    """How host and path are tidied up."""
    strip = StripPort.MATCHING if values.get("strip_matching_host_port") else StripPort.NONE
    return TargetRules(
        normalize=values.get("normalize_path", False),
        merge_slashes=values.get("merge_slashes", False),
        escaped_slashes=values.get("path_with_escaped_slashes_action", EscapedSlashes.KEEP_UNCHANGED),
        strip_port=StripPort.ANY if values.get("strip_any_host_port") else strip,
        strip_trailing_dot=values.get("strip_trailing_host_dot", False),
    )


def _possible(upgrades: frozenset[str], table: RouteConfig) -> frozenset[bytes]:
    """Protocols that some request may change to."""
    actions = [route.action for host in table.virtual_hosts for route in host.routes]
    allowed = [getattr(action, "upgrades", {}) for action in actions]
    names = upgrades.union(name for one in allowed for name, enabled in one.items() if enabled)
    return frozenset(name.encode() for name in names)


def connection_manager(cursor: Cursor) -> HttpConnectionManager:
    """An `HttpConnectionManager`."""
    values = CONNECTION_MANAGER.read(cursor)
    if "http_filters" not in values:
        cursor.fail("http_filters is missing: it needs at least the router (envoy.filters.http.router)")
    if values.get("rds") is not None:
        values["route_config"] = values["rds"]
    if "route_config" not in values and cursor.get("rds", "scoped_routes", "scopedRoutes") is None:
        cursor.fail("route_config is missing")
    common = values.get("common_http_protocol_options", {})
    upgrades = frozenset(name for name, enabled in values.get("upgrade_configs", ()) if enabled)
    return HttpConnectionManager(
        upgrades=upgrades,
        possible_upgrades=_possible(upgrades, values.get("route_config", RouteConfig())),
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
        request_timeout=values.get("request_timeout"),
        request_headers_timeout=values.get("request_headers_timeout"),
        delayed_close_timeout=values.get("delayed_close_timeout", DELAYED_CLOSE_TIMEOUT),
        idle_timeout=common.get("idle_timeout", CONNECTION_IDLE_TIMEOUT),
        max_request_headers_bytes=values.get("max_request_headers_kb", HEADERS_LIMIT // 1024) * 1024,
        max_headers_count=common.get("max_headers_count", HEADERS_COUNT_LIMIT),
        max_requests_per_connection=common.get("max_requests_per_connection") or None,
        max_connection_duration=common.get("max_connection_duration"),
        drain_timeout=values.get("drain_timeout", DRAIN_TIMEOUT),
        underscores=Underscores(common.get("headers_with_underscores_action", "ALLOW")),
        generate_request_id=values.get("generate_request_id", True),
        always_set_request_id_in_response=values.get("always_set_request_id_in_response", False),
        access_logs=values.get("access_log", ()),
        local_replies=values.get("local_reply_config"),
        forwarding=_forwarding(values),
        target=_target(values),
    )
