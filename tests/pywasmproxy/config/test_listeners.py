"""Listeners, filter chains, the connection manager and its filters."""

from __future__ import annotations

import dataclasses
import re

import pytest

from pywasmproxy.config import ConfigError, load
from pywasmproxy.config.http_filters import KNOWN_FILTERS, kind_of
from pywasmproxy.config.model import (
    Address,
    CodecType,
    Http1Options,
    HttpConnectionManager,
    RouteConfig,
    RouterFilter,
    ServerHeaderTransformation,
    TrafficDirection,
    WasmFilter,
)
from tests.support.bootstrap import (
    HTTP,
    ROUTER,
    ROUTER_ENTRY,
    bootstrap,
    line_of,
    manager,
    read,
    refused,
    wasm,
)

LISTENER = "static_resources.listeners[0]"
MANAGER = LISTENER + ".filter_chains[0].filters[0].typed_config"
CORS = '{name: cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}'


def warnings(**parts: str) -> list[tuple[str, str]]:
    return [(warning.path, warning.message) for warning in read(**parts).warnings]


# --- listeners ------------------------------------------------------------------------------------------


def test_a_listener() -> None:
    [found] = read(
        listener="trafficDirection: inbound\n    per_connection_buffer_limit_bytes: 32768"
    ).listeners
    assert found.name == "listener_0"
    assert found.address == Address("127.0.0.1", 8099)
    assert found.traffic_direction is TrafficDirection.INBOUND
    assert found.buffer_limit == 32768
    assert found.http is found.filter_chains[0].http


def test_addresses() -> None:
    def address(fields: str) -> Address:
        return read(address=f"{{socket_address: {{{fields}}}}}").listeners[0].address

    assert address('address: "::1", portValue: "80"') == Address("::1", 80)
    assert str(address('address: "::1", port_value: 80')) == "[::1]:80"
    assert str(address("address: 0.0.0.0, port_value: 0, protocol: tcp")) == "0.0.0.0:0"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{socket_address: {address: localhost, port_value: 1}}", "malformed IP address: localhost"),
        ("{socket_address: {address: 127.0.0.1}}", "socket_address needs 'port_value'"),
        ("{socket_address: {port_value: 1}}", "SocketAddress needs 'address'"),
        ("{socket_address: {address: 127.0.0.1, port_value: 70000}}", "70000 is not between 0 and 65535"),
        ("{}", "needs 'socket_address'"),
        ("null", "a listener needs 'address'"),
        ("{socket_addres: {}}", "unknown field 'socket_addres' in Address"),
    ],
)
def test_addresses_that_are_refused(address: str, message: str) -> None:
    error = refused(address=address)
    assert error.message == message
    assert error.path.startswith(LISTENER)


def test_an_unnamed_listener_is_named_after_its_address() -> None:
    text = bootstrap().replace("- name: listener_0\n    address:", "- address:")
    assert load(text).listeners[0].name == "127.0.0.1:8099"


@pytest.mark.parametrize(
    ("part", "path", "message"),
    [
        (
            {"address": "{socket_address: {address: 127.0.0.1, port_value: 1, protocol: UDP}}"},
            LISTENER + ".address",
            "UDP is not supported: the listener is not started",
        ),
        (
            {"address": "{pipe: {path: /tmp/x}}"},
            LISTENER + ".address",
            "addresses of kind pipe are not supported yet: the listener is not started",
        ),
        (
            {"address": "{socket_address: {address: 127.0.0.1, named_port: http}}"},
            LISTENER + ".address",
            "named ports are not supported: the listener is not started",
        ),
        ({"listener": "bind_to_port: false"}, LISTENER, "bind_to_port is false: the listener is not started"),
    ],
)
def test_listeners_that_are_not_started(part: dict[str, str], path: str, message: str) -> None:
    assert read(**part).listeners == ()
    assert warnings(**part) == [(path, message)]


def test_a_listener_without_http_or_a_tcp_proxy_is_not_started() -> None:
    tcp = (
        "- {name: tcp, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: "
        "[{filters: [{name: envoy.filters.network.echo, typed_config: {'@type': "
        "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]}"
    )
    assert [listener.name for listener in read(more=tcp).listeners] == ["listener_0"]
    assert warnings(more=tcp) == [
        (
            "static_resources.listeners[1].filter_chains[0].filters[0]",
            "network filter 'echo' is not supported: it is left out",
        ),
        (
            "static_resources.listeners[1]",
            "there is neither an HTTP connection manager nor a TCP proxy: the listener is not started",
        ),
    ]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("[{}]", "Filter needs 'name'"),
        ("[{name: nope}]", "unknown network filter 'nope'"),
        ("[{name: a, typed_config: {'@type': a/b.C}}]", "unknown network filter type 'b.C'"),
        ("[{name: envoy.http_connection_manager}]", "the HTTP connection manager has no configuration"),
        (f"[{{name: a, typed_config: {{'@type': {HTTP}}}}}]", "HttpConnectionManager needs 'stat_prefix'"),
        (
            f"[{{name: a, typed_config: {{'@type': {HTTP[:-1]}}}}}]",
            f"unknown network filter type {HTTP[20:-1]!r}",
        ),
    ],
)
def test_filter_chains_that_are_refused(filters: str, message: str) -> None:
    more = (
        "- {name: more, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: "
        f"[{{filters: {filters}}}]}}"
    )
    error = refused(more=more)
    assert error.message == message
    assert error.path.startswith("static_resources.listeners[1].filter_chains[0].filters[0]")


def test_mistyped_network_filters_get_suggestions() -> None:
    start = "- {name: more, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: "
    named = refused(more=start + "[{filters: [{name: envoy.filters.network.http_conection_manager}]}]}")
    assert named.suggestion == "envoy.filters.network.http_connection_manager"
    typed = refused(more=start + f"[{{filters: [{{name: a, typed_config: {{'@type': {HTTP[:-1]}}}}}]}}]}}")
    assert typed.suggestion == HTTP.rpartition("/")[2]


def test_no_filter_chains() -> None:
    more = "- {name: more, address: {socket_address: {address: 127.0.0.1, port_value: 1}}}"
    assert refused(more=more).message == "no filter chains specified"


def test_nothing_follows_the_connection_manager() -> None:
    text = bootstrap().replace("  clusters:\n", "      - name: envoy.filters.network.echo\n  clusters:\n", 1)
    with pytest.raises(ConfigError, match="nothing may follow the HTTP connection manager"):
        load(text)


def test_the_default_filter_chain_serves_alone_but_not_beside_others() -> None:
    inner = (
        f"{{filters: [{{name: a, typed_config: {{'@type': {HTTP}, stat_prefix: other, "
        f"route_config: {{}}, http_filters: [{ROUTER_ENTRY}]}}}}]}}"
    )
    alone = (
        "- {name: more, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, "
        f"default_filter_chain: {inner}}}"
    )
    assert read(more=alone).listeners[1].http.stat_prefix == "other"
    [(path, _)] = warnings(listener=f"default_filter_chain: {inner}")
    assert path == LISTENER + ".default_filter_chain"
    assert read(listener=f"default_filter_chain: {inner}").listeners[0].http.stat_prefix == "ingress"


@pytest.mark.parametrize(
    "field", ["listener_filters_timeout: 1s", "accessLog: []", "enable_reuse_port: true", "freebind: false"]
)
def test_unsupported_listener_fields_warn(field: str) -> None:
    assert warnings(listener=field) == [
        (f"{LISTENER}.{field.partition(':')[0]}", "not supported yet, ignored")
    ]


def test_an_unknown_listener_field_is_refused() -> None:
    error = refused(listener="adress: x")
    assert (error.path, error.suggestion) == (LISTENER + ".adress", "address")
    assert error.line == line_of(bootstrap(listener="adress: x"), "adress")


def test_two_listeners_with_one_name_are_refused() -> None:
    text = bootstrap()
    start, end = text.index("  - name: listener_0"), text.index("  clusters:")
    with pytest.raises(ConfigError, match=r"listeners\[1\]: listener name 'listener_0' is taken already"):
        load(text[:end] + text[start:end] + text[end:])
    load(text[:end] + text[start:end].replace("listener_0", "other") + text[end:])


@pytest.mark.parametrize(
    ("socket", "loud"),
    [
        ("{name: envoy.transport_sockets.alts}", True),
        ("{name: envoy.transport_sockets.raw_buffer}", False),
        (
            "{name: x, typed_config: {'@type': "
            "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}",
            False,
        ),
    ],
)
def test_other_sockets_are_warned_about_loudly(socket: str, loud: bool) -> None:
    text = bootstrap().replace(
        "    filter_chains:\n    - filters:",
        f"    filter_chains:\n    - transport_socket: {socket}\n      filters:",
    )
    found = [(warning.path, warning.message) for warning in load(text).warnings]
    path = LISTENER + ".filter_chains[0].transport_socket"
    what = "transport socket 'envoy.transport_sockets.alts' is not supported: connections are PLAIN TEXT"
    assert found == ([(path, what)] if loud else [])


def test_filter_chain_match_warns_unless_empty() -> None:
    def found(match: str) -> list[str]:
        text = bootstrap().replace(
            "    - filters:", f"    - filter_chain_match: {match}\n      name: c\n      filters:"
        )
        assert load(text).listeners[0].filter_chains[0].name == "c"
        return [str(warning) for warning in load(text, "f").warnings]

    assert found("{}") == []
    assert found("{destination_port: 1}") == [
        "f:9: static_resources.listeners[0].filter_chains[0].filter_chain_match: "
        "not supported yet: all connections take the first filter chain"
    ]


def test_filters_by_discovery_are_left_out() -> None:
    text = bootstrap().replace(
        "    - filters:\n", "    - filters:\n      - {name: a, config_discovery: {}}\n"
    )
    found = load(text)
    assert found.listeners[0].http.stat_prefix == "ingress"
    assert [warning.path for warning in found.warnings] == [
        LISTENER + ".filter_chains[0].filters[0].config_discovery"
    ]


# --- connection manager ---------------------------------------------------------------------------------


def test_defaults_of_the_connection_manager() -> None:
    found = manager()
    assert dataclasses.replace(found, route_config=RouteConfig()) == HttpConnectionManager(
        stat_prefix="ingress", http_filters=(RouterFilter("router"),)
    )
    assert found.max_request_headers_bytes == 60 * 1024
    assert found.max_headers_count == 100
    assert found.stream_idle_timeout == 300


def test_everything_the_connection_manager_honours() -> None:
    lines = (
        "codec_type: http1",
        "server_name: us",
        "serverHeaderTransformation: append_if_absent",
        "http_protocol_options: {enable_trailers: true, accept_http_10: true, default_host_for_http_10: h, "
        "allow_absolute_url: true}",
        "common_http_protocol_options: {idle_timeout: 7s, max_headers_count: 50, "
        "headers_with_underscores_action: ALLOW}",
        "stream_idle_timeout: 0s",
        "request_headers_timeout: 2s",
        "max_request_headers_kb: 96",
        "generate_request_id: false",
    )
    found = manager(manager="\n          ".join(lines))
    assert warnings(manager="\n          ".join(lines)) == []
    assert dataclasses.replace(found, route_config=RouteConfig(), http_filters=()) == HttpConnectionManager(
        stat_prefix="ingress",
        codec_type=CodecType.HTTP1,
        server_name="us",
        server_header_transformation=ServerHeaderTransformation.APPEND_IF_ABSENT,
        http1=Http1Options(enable_trailers=True, accept_http_10=True, default_host_for_http_10="h"),
        stream_idle_timeout=None,
        request_headers_timeout=2.0,
        idle_timeout=7.0,
        max_request_headers_bytes=96 * 1024,
        max_headers_count=50,
        generate_request_id=False,
    )


@pytest.mark.parametrize("version", ["HTTP2", "http3"])
def test_other_protocols_warn(version: str) -> None:
    assert manager(manager=f"codec_type: {version}").codec_type is CodecType.HTTP1
    assert warnings(manager=f"codec_type: {version}") == [
        (MANAGER + ".codec_type", f"{version.upper()} is not supported yet: HTTP/1.1 is spoken")
    ]


def test_unsupported_manager_fields_warn() -> None:
    assert warnings(manager="tracing: {}") == [(f"{MANAGER}.tracing", "not supported yet, ignored")]


def test_the_time_after_a_connection_has_had_its_time() -> None:
    found = manager(manager="drain_timeout: 3s")
    assert (found.drain_timeout, manager().drain_timeout) == (3, 5)


def test_values_that_mean_what_happens_anyway_do_not_warn() -> None:
    assert warnings(manager="use_remote_address: false\n          normalize_path: false") == []


@pytest.mark.parametrize(
    ("field", "message", "suggestion"),
    [
        ("codec_tpye: AUTO", "unknown field 'codec_tpye' in HttpConnectionManager", "codec_type"),
        ("codec_type: AUTOO", "'AUTOO' is no codec type; known: AUTO, HTTP1, HTTP2, HTTP3", "AUTO"),
        ("max_request_headers_kb: 0", "0 is not between 1 and 8192", None),
        (
            "stream_idle_timeout: 300",
            "expected a duration in seconds such as 1.5s, found the number 300",
            "300s",
        ),
        ("rds: {}", "only one of rds and route_config can be set", None),
        ("statPrefix: x", "'statPrefix' and 'stat_prefix' are the same field", None),
        (
            "http_protocol_options: {accept_http10: true}",
            "unknown field 'accept_http10' in Http1ProtocolOptions",
            "accept_http_10",
        ),
    ],
)
def test_manager_fields_that_are_refused(field: str, message: str, suggestion: str | None) -> None:
    error = refused(manager=field)
    assert error.message == message
    assert error.path.startswith(MANAGER)
    if suggestion != "accept_http_10":
        assert error.suggestion == suggestion
    else:
        assert error.suggestion in ("accept_http_10", "acceptHttp10")


def _bare_manager(fields: str) -> str:
    return (
        "- {name: more, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: "
        f"[{{filters: [{{name: envoy.http_connection_manager, config: {{stat_prefix: s, {fields}}}}}]}}]}}"
    )


def test_dynamic_routes_warn() -> None:
    more = _bare_manager(f"rds: {{}}, http_filters: [{ROUTER_ENTRY}]")
    assert read(more=more).listeners[1].http.route_config == RouteConfig()
    [(path, message)] = warnings(more=more)
    assert path == "static_resources.listeners[1].filter_chains[0].filters[0].config.rds"
    assert message == "not supported yet: there are no routes, every request is answered with 404"


def test_routes_and_filters_are_needed() -> None:
    assert refused(more=_bare_manager(f"http_filters: [{ROUTER_ENTRY}]")).message == "route_config is missing"
    assert refused(more=_bare_manager("route_config: {}")).message == (
        "http_filters is missing: it needs at least the router (envoy.filters.http.router)"
    )


def test_the_connection_manager_in_its_older_spellings() -> None:
    v2 = "type.googleapis.com/envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"
    assert manager(http=v2).stat_prefix == "ingress"


# --- HTTP filters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        f'{{name: anything, typed_config: {{"@type": {ROUTER}}}}}',
        "{name: envoy.filters.http.router, typed_config: {}}",
        "{name: envoy.filters.http.router}",
        "{name: envoy.router}",
        "{name: envoy.router, config: {}}",
        '{name: r, typed_config: {"@type": type.googleapis.com/envoy.config.filter.http.router.v2.Router}}',
        "{name: r, typed_config: {'@type': x/xds.type.v3.TypedStruct, type_url: "
        "x/envoy.extensions.filters.http.router.v3.Router, value: {}}}",
        "{name: envoy.filters.http.router, typed_config: {'@type': x/udpa.type.v1.TypedStruct}}",
    ],
)
def test_every_form_of_the_router(entry: str) -> None:
    [found] = manager(filters=f"[{entry}]").http_filters
    assert isinstance(found, RouterFilter)
    assert warnings(filters=f"[{entry}]") == []


def test_router_options() -> None:
    fields = "suppress_envoy_headers: true, dynamic_stats: false"
    entry = f'{{name: r, typed_config: {{"@type": {ROUTER}, {fields}}}}}'
    assert manager(filters=f"[{entry}]").http_filters == (RouterFilter("r", True),)
    entry = f'{{name: r, typed_config: {{"@type": {ROUTER}, upstream_log: []}}}}'
    assert warnings(filters=f"[{entry}]")[0][0] == MANAGER + ".http_filters[0].typed_config.upstream_log"


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("[]", "the last HTTP filter must be the router (envoy.filters.http.router)"),
        (
            wasm().replace(", " + ROUTER_ENTRY, ""),
            "the last HTTP filter must be the router (envoy.filters.http.router)",
        ),
        (f"[{CORS}]", "the last HTTP filter must be the router (envoy.filters.http.router)"),
        (f"[{ROUTER_ENTRY}, {ROUTER_ENTRY}]", "nothing may follow the router ('router')"),
        (f"[{{}}, {ROUTER_ENTRY}]", "HttpFilter needs 'name'"),
        (f"[{{name: foo}}, {ROUTER_ENTRY}]", "unknown HTTP filter 'foo', and no '@type' says what it is"),
        (
            f"[{{name: a, typed_config: {{'@type': a/b.C}}}}, {ROUTER_ENTRY}]",
            "unknown HTTP filter type 'b.C'",
        ),
        (f"[{{name: a, typed_config: x}}, {ROUTER_ENTRY}]", "expected a mapping, found 'x'"),
        (f"[{{name: a, typed_confg: {{}}}}, {ROUTER_ENTRY}]", "unknown field 'typed_confg' in HttpFilter"),
    ],
)
def test_chains_that_are_refused(filters: str, message: str) -> None:
    error = refused(filters=filters)
    assert error.message == message
    assert error.path.startswith(MANAGER + ".http_filters")


def test_mistyped_http_filters_get_suggestions() -> None:
    assert refused(filters="[{name: envoy.filters.http.ruter}]").suggestion == "envoy.filters.http.router"
    for wrong in ("wasm.v3.Wsam", "wams.v3.Wasm", "wasm.v3.WasmPlugin"):
        url = f"x/envoy.extensions.filters.http.{wrong}"
        error = refused(filters=f"[{{name: a, typed_config: {{'@type': {url}}}}}]")
        assert error.suggestion == "envoy.extensions.filters.http.wasm.v3.Wasm"


def test_other_known_filters_are_left_out_with_a_warning() -> None:
    filters = f"[{CORS}, {{name: envoy.fault}}, {{name: istio.stats}}, {ROUTER_ENTRY}]"
    assert len(manager(filters=filters).http_filters) == 1
    assert warnings(filters=filters) == [
        (f"{MANAGER}.http_filters[{index}]", f"HTTP filter {kind!r} is not supported: it is left out")
        for index, kind in enumerate(("cors", "fault", "stats"))
    ]


def test_disabled_filters_wait_for_a_route_that_wants_them() -> None:
    disabled = wasm().replace("name: w,", "name: w, disabled: true,")
    [found, _] = manager(filters=disabled).http_filters
    assert isinstance(found, WasmFilter)
    assert found.disabled
    assert warnings(filters=disabled) == []
    other = wasm().replace("name: w,", "name: envoy.filters.http.lua, disabled: true,")
    other = re.sub(r'typed_config: {"@type": [^ ]*Wasm, config: {.*}}}, ', "}, ", other, count=1)
    assert len(manager(filters=other).http_filters) == 1
    assert warnings(filters=other) == []


def test_discovered_filters_are_left_out() -> None:
    discovered = f"[{{name: w, config_discovery: {{config_source: {{ads: {{}}}}}}}}, {ROUTER_ENTRY}]"
    assert len(manager(filters=discovered).http_filters) == 1
    entry = MANAGER + ".http_filters[0]"
    assert warnings(filters=discovered) == [
        (entry + ".config_discovery.config_source.ads", "not supported yet, ignored"),
        (entry, "its configuration is not in a file: the filter is left out"),
    ]


def test_several_wasm_filters_keep_their_order() -> None:
    entries = [wasm(f"name: p{index}").rpartition(", {name: router")[0][1:] for index in range(5)]
    found = manager(filters=f"[{', '.join(entries)}, {ROUTER_ENTRY}]").http_filters
    assert [getattr(one, "plugin", one).name for one in found] == ["p0", "p1", "p2", "p3", "p4", "router"]


@pytest.mark.parametrize("name", KNOWN_FILTERS)
def test_known_filters_are_known_by_name_and_by_type(name: str) -> None:
    assert kind_of(None, f"envoy.filters.http.{name}") == name
    assert kind_of(f"envoy.extensions.filters.http.{name}.v3.Config", "") == name
    assert kind_of(f"envoy.extensions.filters.http.{name}x.v3.Config", "") is None


@pytest.mark.parametrize("kind", ["internal_listener", "apiListener"])
def test_listeners_within_the_proxy_are_not_started(kind: str) -> None:
    found = load(bootstrap().replace("  clusters:", f"  - {{name: inner, {kind}: {{}}}}\n  clusters:"))
    assert [listener.name for listener in found.listeners] == ["listener_0"]
    assert [warning.path for warning in found.warnings] == [f"static_resources.listeners[1].{kind}"]
