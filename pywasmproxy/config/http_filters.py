"""The entries of `http_filters`: wasm and router are run, other known filters are left out with a warning.

The type URL decides which filter an entry is; where there is none (the router of older files, `config` of API
v2) its name does. Names come from the packages below envoy.extensions.filters.http, and from Istio.
"""

from __future__ import annotations

import re

from pywasmproxy.config import discovery
from pywasmproxy.config.extension import resolve
from pywasmproxy.config.limits import suggest
from pywasmproxy.config.model import HttpFilter, RouterFilter, WasmFilter
from pywasmproxy.config.plugins import wasm_filter
from pywasmproxy.config.schema import Cursor, Message, anything, boolean, later, text

HTTP_FILTER = Message(
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    {
        "name": text,
        "typed_config": later,
        "config": later,
        "is_optional": boolean,
        "disabled": boolean,
        "config_discovery": later,
    },
    one_of=("typed_config config_discovery config",),
    required="name",
    legacy="config",
)

ROUTER = Message(
    "envoy.extensions.filters.http.router.v3.Router",
    {
        "suppress_envoy_headers": boolean,
        "dynamic_stats": anything,  # no statistics of that kind
        "start_child_span": anything,  # no tracing
        "suppress_grpc_request_failure_code_stats": anything,
    },
    ignored="upstream_log upstream_log_options strict_check_headers respect_expected_rq_timeout "
    "upstream_http_filters",
)

_FILTERS = (
    "a2a adaptive_concurrency admission_control ai_statistics alpn alternate_protocols_cache api_key_auth "
    "aws_lambda aws_request_signing bandwidth_limit basic_auth buffer cache cache_v2 cdn_loop checksum "
    "composite compressor connect_grpc_bridge cors credential_injector csrf custom_response decompressor "
    "dynamic_forward_proxy dynamic_modules dynamo ext_authz ext_proc fault file_server file_system_buffer "
    "gcp_authn geoip golang grpc_field_extraction grpc_http1_bridge grpc_http1_reverse_bridge "
    "grpc_json_reverse_transcoder grpc_json_transcoder grpc_stats grpc_web gzip header_mutation "
    "header_to_metadata health_check ip_tagging istio_authn istio_stats json_to_metadata jwt_authn "
    "kill_request language local_ratelimit lua match_delegate mcp mcp_router metadata_exchange oauth2 "
    "on_demand original_src peer_metadata proto_api_scrubber proto_message_extraction "
    "proto_message_logging rate_limit rate_limit_quota ratelimit rbac set_filter_state set_metadata "
    "squash stateful_session sxg tap thrift_to_metadata transform upstream_codec"
)
KNOWN_FILTERS = tuple(_FILTERS.split())

_OURS = ("wasm", "router")  # both messages are named like this, with a capital
_PREFIX = "envoy.filters.http."
_NAMED = {
    **{f"{_PREFIX}{name}": name for name in [*KNOWN_FILTERS, *_OURS]},
    **{f"envoy.{name}": name for name in [*KNOWN_FILTERS, *_OURS, "http_dynamo_filter"]},
    **{f"istio.{name}": name for name in ("alpn", "metadata_exchange", "stats")},
}
_TYPED = re.compile(
    r"envoy\.(?:extensions\.filters\.http|config\.filter\.http|extensions\.filters\.http\.matching)"
    r"\.(\w+)\.v\d\w*\.\w+|(?:istio\.envoy\.config\.filter\.http|io\.istio\.http)\.(\w+)(?:\.v\d\w*)?\.\w+"
)
_OTHER_TYPES = {
    "envoy.extensions.common.matching.v3.ExtensionWithMatcher": "match_delegate",
    "stats.PluginConfig": "istio_stats",
    "udpa.type.v1.Squash": "squash",
}


def kind_of(message: str | None, name: str) -> str | None:
    """Short name of the filter: `wasm`, `router`, one of KNOWN_FILTERS, or None if nobody knows it."""
    if message is None:
        return _NAMED.get(name)
    found = _TYPED.fullmatch(message)
    short = (found[1] or found[2]) if found else _OTHER_TYPES.get(message)
    if short in _OURS:
        return short if message.endswith("." + short.capitalize()) else None
    return short if short in KNOWN_FILTERS else None


def http_filters(cursor: Cursor) -> tuple[HttpFilter, ...]:
    """The chain; its last filter is the router, and only that."""
    found: list[HttpFilter] = []
    for place in cursor.items():
        entry = _filter(place)
        if entry is None:
            continue
        if found and isinstance(found[-1], RouterFilter):
            place.fail(f"nothing may follow the router ({found[-1].name!r})")
        found.append(entry)
    if not found or not isinstance(found[-1], RouterFilter):
        cursor.fail("the last HTTP filter must be the router (envoy.filters.http.router)")
    return tuple(found)


def _filter(cursor: Cursor) -> HttpFilter | None:
    """One entry; None for a filter that is left out (and has warned about it)."""
    values = HTTP_FILTER.read(cursor)
    name: str = values["name"]
    typed = values.get("typed_config")
    if "config_discovery" in values:
        typed = discovery.extension(values["config_discovery"], name)
        if typed is None:
            cursor.warn("its configuration is not in a file: the filter is left out")
            return None
    message, fields = resolve(typed, values.get("config"))
    kind = kind_of(message, name)
    if kind is None:
        if message is not None:
            known = [f"envoy.extensions.filters.http.{short}.v3.{short.capitalize()}" for short in _OURS]
            cursor.fail(f"unknown HTTP filter type {message!r}", suggest(message, known))
        cursor.fail(f"unknown HTTP filter {name!r}, and no '@type' says what it is", suggest(name, _NAMED))
    off: bool = values.get("disabled", False)
    if kind == "wasm":
        return WasmFilter(name, wasm_filter(fields, cursor), off)
    if off and kind != "router":
        return None
    if kind == "router":
        options = ROUTER.read(fields) if fields is not None else {}
        return RouterFilter(name, options.get("suppress_envoy_headers", False))
    cursor.warn(f"HTTP filter {kind!r} is not supported: it is left out")
    return None
