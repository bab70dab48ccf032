"""TCP proxies and the network filters before them."""

from __future__ import annotations

import pytest

from pywasmproxy.config import ConfigError
from pywasmproxy.config.model import Listener, TcpProxy
from tests.support.bootstrap import EMPTY_MODULE, HTTP, ROUTER_ENTRY, read, refused

TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
WASM = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm"
CHAIN = "static_resources.listeners[1].filter_chains[0]"
CODE = f"vm_config: {{code: {{local: {{inline_bytes: {EMPTY_MODULE}}}}}}}"


def listener(*filters: str) -> str:
    return (
        "- {name: tcp, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, "
        f"filter_chains: [{{name: all, filters: [{', '.join(filters)}]}}]}}"
    )


def wasm(name: str, kind: str = "") -> str:
    fields = f"config: {{name: {name}, {CODE}}}"
    if kind:
        typed = f"{{'@type': type.googleapis.com/{kind}, type_url: {WASM}, value: {{{fields}}}}}"
    else:
        typed = f"{{'@type': {WASM}, {fields}}}"
    return f"{{name: w, typed_config: {typed}}}"


def proxy(fields: str = "stat_prefix: s, cluster: svc") -> str:
    return f"{{name: envoy.filters.network.tcp_proxy, typed_config: {{'@type': {TCP}, {fields}}}}}"


def found(*filters: str) -> Listener:
    return read(more=listener(*filters)).listeners[1]


def tcp(fields: str) -> TcpProxy:
    made = found(proxy(fields)).tcp
    assert made is not None
    return made


def warnings(*filters: str) -> list[tuple[str, str]]:
    return [(one.path, one.message) for one in read(more=listener(*filters)).warnings]


def test_a_tcp_proxy() -> None:
    assert tcp("stat_prefix: s, cluster: svc") == TcpProxy("s", (("svc", 1),), 3600.0, 1)
    assert tcp("stat_prefix: s, cluster: svc, idle_timeout: 0s, maxConnectAttempts: 4") == TcpProxy(
        "s", (("svc", 1),), None, 4
    )
    weights = "weighted_clusters: {clusters: [{name: svc, weight: 3}, {name: svc, weight: 1}]}"
    assert tcp(f"stat_prefix: s, {weights}").clusters == (("svc", 3), ("svc", 1))


def test_http_and_tcp_side_by_side() -> None:
    first, second = read(more=listener(proxy())).listeners
    assert first.tcp is None
    assert first.http.stat_prefix
    assert second.tcp is not None
    with pytest.raises(ValueError, match="listener tcp does not speak HTTP"):
        _ = second.http


def test_network_filters() -> None:
    [chain] = found(wasm("a"), wasm("b", "udpa.type.v1.TypedStruct"), proxy()).filter_chains
    assert chain.name == "all"
    assert [plugin.name for plugin in chain.plugins] == ["a", "b"]
    assert [one.name for one in chain.network_filters] == ["w", "w"]
    [typed] = found(wasm("c", "xds.type.v3.TypedStruct"), proxy()).filter_chains
    assert [plugin.name for plugin in typed.plugins] == ["c"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([proxy("stat_prefix: s")], "the TCP proxy needs 'cluster' or 'weighted_clusters'"),
        ([proxy("cluster: svc")], "TcpProxy needs 'stat_prefix'"),
        ([proxy("stat_prefix: s, cluster: ''")], "the name of a cluster is needed"),
        (
            [proxy("stat_prefix: s, cluster: svc, weighted_clusters: {clusters: []}")],
            "only one of cluster and weighted_clusters can be set",
        ),
        (
            [proxy("stat_prefix: s, weighted_clusters: {clusters: [{name: svc}]}")],
            "a weighted cluster needs 'weight'",
        ),
        (
            [proxy("stat_prefix: s, weighted_clusters: {clusters: [{name: svc, weight: 0}]}")],
            "0 is not between 1 and 4294967295",
        ),
        (
            [proxy("stat_prefix: s, cluster: svc, max_connect_attempts: 0")],
            "0 is not between 1 and 4294967295",
        ),
        ([proxy("stat_prefix: s, cluster: svc, idle_timout: 1s")], "unknown field 'idle_timout' in TcpProxy"),
        ([proxy(), proxy()], "nothing may follow the TCP proxy"),
        (["{name: envoy.filters.network.tcp_proxy}"], "the TCP proxy has no configuration"),
        (["{name: envoy.filters.network.wasm}", proxy()], "the wasm filter has no configuration"),
        (
            [f"{{name: x, typed_config: {{'@type': {TCP[:-1]}, stat_prefix: s, cluster: svc}}}}"],
            f"unknown network filter type {TCP[20:-1]!r}",
        ),
    ],
)
def test_what_is_refused(filters: list[str], message: str) -> None:
    assert refused(more=listener(*filters)).message == message


def test_a_mistyped_field_gets_a_suggestion() -> None:
    error: ConfigError = refused(more=listener(proxy("stat_prefix: s, cluster: svc, idle_timout: 1s")))
    assert error.suggestion == "idle_timeout"


def test_what_warns() -> None:
    assert warnings(proxy("stat_prefix: s, cluster: svc, access_log: [], hash_policy: []")) == [
        (CHAIN + ".filters[0].typed_config.hash_policy", "not supported yet, ignored"),
    ]
    assert warnings(proxy("stat_prefix: s, cluster: nope")) == [
        (CHAIN + ".filters[0].typed_config.cluster", "unknown cluster 'nope': connections are closed")
    ]
    manager = (
        f"{{name: h, typed_config: {{'@type': {HTTP}, stat_prefix: h, route_config: {{}}, "
        f"http_filters: [{ROUTER_ENTRY}]}}}}"
    )
    assert warnings(wasm("a"), manager) == [
        (
            CHAIN + ".filters[0]",
            "network filter 'wasm' is only supported before a TCP proxy: it is left out",
        )
    ]
    assert found(wasm("a"), manager).filter_chains[0].plugins == ()
