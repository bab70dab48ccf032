"""Listeners and their filter chains.

Field tables after envoy.config.listener.v3 (listener.proto, listener_components.proto).
"""

from __future__ import annotations

import re

from pywasmproxy.config.common import PLAIN_TEXT, address, require_ip, transport_socket
from pywasmproxy.config.connection_manager import connection_manager
from pywasmproxy.config.extension import resolve
from pywasmproxy.config.limits import suggest
from pywasmproxy.config.model import (
    BUFFER_LIMIT,
    FilterChain,
    HttpConnectionManager,
    Listener,
    TcpProxy,
    TrafficDirection,
    WasmFilter,
)
from pywasmproxy.config.plugins import wasm_filter
from pywasmproxy.config.schema import UINT32, Cursor, Message, anything, boolean, enum, later, repeated, text
from pywasmproxy.config.tcp_proxy import tcp_proxy

FILTER = Message(
    "envoy.config.listener.v3.Filter",
    {"name": text, "typed_config": later, "config": later},
    notes={"config_discovery": "not supported yet: the filter is left out"},
    one_of=("typed_config config_discovery config",),
    required="name",
    legacy="config",
)

FILTER_CHAIN = Message(
    "envoy.config.listener.v3.FilterChain",
    {"name": text, "filters": repeated(later), "transport_socket": transport_socket},
    ignored="use_proxy_proto metadata transport_socket_connect_timeout",
    notes={
        "filter_chain_match": "not supported yet: all connections take the first filter chain",
        "tls_context": PLAIN_TEXT,
    },
    harmless={"filter_chain_match": ({},)},
    legacy="tls_context",
)

LISTENER = Message(
    "envoy.config.listener.v3.Listener",
    {
        "name": text,
        "address": later,
        "filter_chains": repeated(later),
        "default_filter_chain": later,
        "per_connection_buffer_limit_bytes": UINT32,
        "traffic_direction": enum("traffic direction", "UNSPECIFIED INBOUND OUTBOUND"),
        "bind_to_port": boolean,
        "stat_prefix": anything,  # no statistics yet
    },
    ignored="additional_addresses fcds_config filter_chain_matcher use_original_dst metadata deprecated_v1 "
    "listener_filters listener_filters_timeout continue_on_listener_filters_timeout transparent freebind "
    "socket_options tcp_fast_open_queue_length udp_listener_config api_listener connection_balance_config "
    "reuse_port enable_reuse_port access_log tcp_backlog_size max_connections_to_accept_per_socket_event "
    "internal_listener enable_mptcp drain_type ignore_global_conn_limit bypass_overload_manager",
    harmless={"drain_type": ("DEFAULT", "default")},
)

_NETWORK_FILTERS = (
    "client_ssl_auth connection_limit direct_response dubbo_proxy dynamic_modules echo ext_authz ext_proc "
    "generic_proxy geoip golang http_connection_manager kafka_broker kafka_mesh local_ratelimit "
    "match_delegate metadata_exchange mongo_proxy mysql_proxy postgres_proxy ratelimit rbac redis_proxy "
    "reverse_tunnel rocketmq_proxy set_filter_state sip_proxy sni_cluster sni_dynamic_forward_proxy "
    "tcp_proxy thrift_proxy wasm zookeeper_proxy"
)
KNOWN_NETWORK_FILTERS = tuple(_NETWORK_FILTERS.split())
_MANAGER = "http_connection_manager"
_OURS = {_MANAGER: ".HttpConnectionManager", "tcp_proxy": ".TcpProxy", "wasm": ".Wasm"}
_HTTP, _TCP = "HTTP connection manager", "TCP proxy"
_NAMED = {
    **{f"envoy.filters.network.{name}": name for name in KNOWN_NETWORK_FILTERS},
    **{f"envoy.{name}": name for name in KNOWN_NETWORK_FILTERS},
}
_TYPED = re.compile(r"envoy\.(?:extensions\.filters\.network|config\.filter\.network)\.(\w+)\.v\d\w*\.\w+")
_NOT_STARTED = "the listener is not started"


def _kind(message: str | None, name: str) -> str | None:
    if message is None:
        return _NAMED.get(name)
    found = _TYPED.fullmatch(message)
    if found is None or not message.endswith(_OURS.get(found[1], "")):
        return None
    return found[1] if found[1] in KNOWN_NETWORK_FILTERS else None


def _chain(cursor: Cursor) -> FilterChain | None:
    """A filter chain, or None if it has neither an HTTP connection manager nor a TCP proxy."""
    values = FILTER_CHAIN.read(cursor)
    end: HttpConnectionManager | TcpProxy | None = None
    wasm: list[tuple[Cursor, WasmFilter]] = []
    place: Cursor
    for place in values.get("filters", ()):
        found = FILTER.read(place)
        if place.get("config_discovery", "configDiscovery") is not None:
            continue
        message, fields = resolve(found.get("typed_config"), found.get("config"))
        kind = _kind(message, found["name"])
        if kind is None:
            what = f"type {message!r}" if message else repr(found["name"])
            known = [f"envoy.extensions.filters.network.{short}.v3{name}" for short, name in _OURS.items()]
            guess = suggest(message, known) if message else suggest(found["name"], _NAMED)
            place.fail(f"unknown network filter {what}", guess)
        if end is not None:
            place.fail(f"nothing may follow the {_TCP if isinstance(end, TcpProxy) else _HTTP}")
        if kind == "wasm":
            wasm.append((place, WasmFilter(found["name"], wasm_filter(fields, place))))
        elif kind in _OURS:
            if fields is None:
                place.fail(f"the {_HTTP if kind == _MANAGER else _TCP} has no configuration")
            end = connection_manager(fields) if kind == _MANAGER else tcp_proxy(fields)
        else:
            place.warn(f"network filter {kind!r} is not supported: it is left out")
    name = values.get("name", "")
    if isinstance(end, TcpProxy):
        return FilterChain(None, name, end, tuple(filter for _, filter in wasm))
    for place, _ in wasm:
        place.warn("network filter 'wasm' is only supported before a TCP proxy: it is left out")
    return None if end is None else FilterChain(end, name)


def listener(cursor: Cursor) -> Listener | None:
    """A listener, or None for one that we cannot serve (and have warned about)."""
    values = LISTENER.read(cursor)
    if "address" not in values:
        cursor.fail("a listener needs 'address'")
    place: Cursor = values["address"]
    where = address(place, _NOT_STARTED)
    if where is not None:
        require_ip(where.host, place)
    chains = [_chain(chain) for chain in values.get("filter_chains", ())]
    if "default_filter_chain" in values:
        fallback = _chain(values["default_filter_chain"])
        if chains:
            values["default_filter_chain"].warn(
                "not supported yet: all connections take the first filter chain"
            )
        else:
            chains = [fallback]
    if where is None:
        return None
    if not values.get("bind_to_port", True):
        cursor.warn(f"bind_to_port is false: {_NOT_STARTED}")
        return None
    if not chains:
        cursor.fail("no filter chains specified")
    if chains[0] is None:
        cursor.warn(f"there is neither an HTTP connection manager nor a TCP proxy: {_NOT_STARTED}")
        return None
    return Listener(
        name=values.get("name") or str(where),
        address=where,
        filter_chains=tuple(chain for chain in chains if chain is not None),
        traffic_direction=TrafficDirection[values.get("traffic_direction", "UNSPECIFIED")],
        buffer_limit=values.get("per_connection_buffer_limit_bytes", BUFFER_LIMIT),
    )
