"""Listeners and their filter chains.

Field tables after envoy.config.listener.v3 (listener.proto, listener_components.proto).
"""

from __future__ import annotations

import re

from pywasmproxy.config.common import address, metadata, require_ip
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
from pywasmproxy.config.schema import (
    NOT_SUPPORTED,
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    later,
    positive_duration,
    repeated,
    text,
)
from pywasmproxy.config.tcp_proxy import tcp_proxy
from pywasmproxy.config.tls import downstream_socket, downstream_tls

FILTER = Message(
    "envoy.config.listener.v3.Filter",
    {"name": text, "typed_config": later, "config": later},
    notes={"config_discovery": "not supported yet: the filter is left out"},
    one_of=("typed_config config_discovery config",),
    required="name",
    legacy="config",
)

_FIRST_CHAIN = "not supported yet: all connections take the first filter chain"
_ANY_CLIENT = "not supported: it is the name that the client asks for that decides"

FILTER_CHAIN_MATCH = Message(
    "envoy.config.listener.v3.FilterChainMatch",
    {"server_names": repeated(text), "transport_protocol": text, "application_protocols": anything},
    notes=dict.fromkeys(
        (
            "destination_port",
            "prefix_ranges",
            "address_suffix",
            "suffix_len",
            "source_type",
            "source_prefix_ranges",
            "source_ports",
            "direct_source_prefix_ranges",
        ),
        _ANY_CLIENT,
    ),
)

FILTER_CHAIN = Message(
    "envoy.config.listener.v3.FilterChain",
    {
        "name": text,
        "filters": repeated(later),
        "filter_chain_match": later,
        "transport_socket": downstream_socket,
        "transport_socket_connect_timeout": positive_duration,
        "tls_context": downstream_tls,
        "metadata": metadata,
    },
    ignored="use_proxy_proto",
    one_of=("transport_socket tls_context",),
    legacy="tls_context",
)

_INSPECTORS = ("envoy.filters.listener.tls_inspector", "envoy.listener.tls_inspector")


def _listener_filter(cursor: Cursor) -> None:
    """Nothing but the TLS inspector is needed, and that is part of every TLS listener here."""
    name = cursor.get("name")
    if name is None or text(name) not in _INSPECTORS:
        cursor.warn(NOT_SUPPORTED)


LISTENER = Message(
    "envoy.config.listener.v3.Listener",
    {
        "name": text,
        "address": later,
        "filter_chains": repeated(later),
        "default_filter_chain": later,
        "per_connection_buffer_limit_bytes": UINT32,
        "drain_type": enum("way to drain", "DEFAULT MODIFY_ONLY"),
        "traffic_direction": enum("traffic direction", "UNSPECIFIED INBOUND OUTBOUND"),
        "bind_to_port": boolean,
        "listener_filters": repeated(_listener_filter),
        "stat_prefix": anything,  # no statistics yet
        "metadata": metadata,
    },
    ignored="additional_addresses fcds_config filter_chain_matcher use_original_dst deprecated_v1 "
    "listener_filters_timeout continue_on_listener_filters_timeout transparent freebind "
    "socket_options tcp_fast_open_queue_length udp_listener_config connection_balance_config "
    "reuse_port enable_reuse_port access_log tcp_backlog_size max_connections_to_accept_per_socket_event "
    "enable_mptcp ignore_global_conn_limit bypass_overload_manager",
    notes=dict.fromkeys(
        ("internal_listener", "api_listener"),
        "listeners within the proxy are not supported: it is not started",
    ),
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
_TAKEN = "another filter chain takes all names: this one is never taken"


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
    tls = values.get("transport_socket", values.get("tls_context"))
    common = {
        "name": values.get("name", ""),
        "tls": tls,
        "server_names": _server_names(values.get("filter_chain_match"), tls is not None),
        "handshake_timeout": values.get("transport_socket_connect_timeout"),
        "metadata": values.get("metadata", {}),
    }
    if isinstance(end, TcpProxy):
        return FilterChain(None, tcp=end, network_filters=tuple(filter for _, filter in wasm), **common)
    for place, _ in wasm:
        place.warn("network filter 'wasm' is only supported before a TCP proxy: it is left out")
    return None if end is None else FilterChain(end, **common)


def _server_names(cursor: Cursor | None, tls: bool) -> tuple[str, ...]:
    """Whom a chain is for, in lower case. Without TLS nobody says a name."""
    if cursor is None or not cursor.entries():
        return ()
    if not tls:
        cursor.warn(_FIRST_CHAIN)
        return ()
    values = FILTER_CHAIN_MATCH.read(cursor)
    if values.get("transport_protocol", "tls") not in ("tls", ""):
        cursor.warn(f"transport protocol {values['transport_protocol']!r}: {_ANY_CLIENT}")
    for name in values.get("server_names", ()):
        if "*" in name and (not name.startswith("*.") or "*" in name[1:]):
            cursor.fail(f"server name {name!r}: '*' stands only for what is before the first dot")
    return tuple(name.lower() for name in values.get("server_names", ()))


def _usable(chains: list[tuple[Cursor, FilterChain | None]]) -> list[FilterChain]:
    """The chains that connections can take."""
    found: list[FilterChain] = []
    taken: dict[str, Cursor] = {}
    for cursor, chain in chains:
        if chain is None:
            continue
        first = found[0] if found else chain
        if found and (first.tls is None or chain.tls is None):
            cursor.warn(_FIRST_CHAIN)
            continue
        if (first.http is None) is not (chain.http is None):
            cursor.warn("HTTP and TCP on one listener are not supported: this filter chain is left out")
            continue
        for name in chain.server_names or ("",):
            if name in taken:
                cursor.fail(f"another filter chain has the same match {name!r}: {taken[name].path}")
            taken[name] = cursor
        found.append(chain)
    return found


def listener(cursor: Cursor) -> Listener | None:
    """A listener, or None for one that we cannot serve (and have warned about)."""
    values = LISTENER.read(cursor)
    if "address" not in values:
        if cursor.get("internal_listener", "internalListener", "api_listener", "apiListener") is not None:
            return None  # has warned
        cursor.fail("a listener needs 'address'")
    place: Cursor = values["address"]
    where = address(place, _NOT_STARTED)
    if where is not None:
        require_ip(where.host, place)
    chains = [(chain, _chain(chain)) for chain in values.get("filter_chains", ())]
    if "default_filter_chain" in values:
        place = values["default_filter_chain"]
        if not any(chain is not None and not chain.server_names for _, chain in chains):
            chains.append((place, _chain(place)))
        else:
            place.warn(_FIRST_CHAIN if chains[0][1] is None or chains[0][1].tls is None else _TAKEN)
    if where is None:
        return None
    if not values.get("bind_to_port", True):
        cursor.warn(f"bind_to_port is false: {_NOT_STARTED}")
        return None
    if not chains:
        cursor.fail("no filter chains specified")
    usable = _usable(chains)
    if not usable or chains[0][1] is None:
        cursor.warn(f"there is neither an HTTP connection manager nor a TCP proxy: {_NOT_STARTED}")
        return None
    return Listener(
        name=values.get("name") or str(where),
        address=where,
        filter_chains=tuple(usable),
        drain_modify_only=values.get("drain_type") == "MODIFY_ONLY",
        traffic_direction=TrafficDirection[values.get("traffic_direction", "UNSPECIFIED")],
        buffer_limit=values.get("per_connection_buffer_limit_bytes", BUFFER_LIMIT),
        metadata=values.get("metadata", {}),
    )
