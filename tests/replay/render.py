"""A golden case as an Envoy configuration: the same YAML for the real Envoy and for our proxy.

Names of routes, clusters and hosts are those the cases were recorded with, because filters read them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.replay.cases import Case

TYPE = "type.googleapis.com/"
HTTP_MANAGER = TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP_WASM = TYPE + "envoy.extensions.filters.http.wasm.v3.Wasm"
NETWORK_WASM = TYPE + "envoy.extensions.filters.network.wasm.v3.Wasm"
ROUTER = TYPE + "envoy.extensions.filters.http.router.v3.Router"
TCP_PROXY = TYPE + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
UPSTREAM_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

DEFAULT_ROUTES = [
    {"match": {"prefix": "/other"}, "route": {"cluster": "other"}, "name": "default_route"},
    {"match": {"prefix": "/"}, "route": {"cluster": "svc", "timeout": "5s"}, "name": "svc_route"},
]


def render(case: Case, filters: Path, ports: dict[str, int]) -> str:
    """YAML text. `ports` has `listener`, `upstream` and `dead`; `filters` is the folder of the modules."""
    data = case.data
    chain = _tcp_chain(case, filters) if case.is_tcp else _http_chain(case, filters)
    document: dict[str, Any] = {
        "static_resources": {
            "listeners": [
                {
                    "name": "listener_0",
                    "address": _address(ports["listener"]),
                    "filter_chains": [{"filters": chain}],
                }
            ],
            "clusters": [
                _cluster("svc", ports["upstream"], data),
                _cluster("other", ports["upstream"], data),
                _cluster("dead", ports["dead"], data),
            ],
        }
    }
    if "node" in data:
        document = {"node": data["node"], **document}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=1_000_000)


def _http_chain(case: Case, filters: Path) -> list[dict[str, Any]]:
    data = case.data
    manager: dict[str, Any] = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "ingress_http",
        "codec_type": "AUTO",
        **data.get("manager", {}),
        "route_config": {
            "name": "local_route",
            **data.get("route_config", {}),
            "virtual_hosts": [
                {
                    "name": "local_service",
                    "domains": ["*"],
                    **data.get("virtual_host", {}),
                    "routes": data.get("routes", DEFAULT_ROUTES),
                }
            ],
        },
        "http_filters": [
            *(
                {
                    "name": "envoy.filters.http.wasm",
                    "typed_config": {"@type": HTTP_WASM, "config": _plugin(one, filters)},
                }
                for one in data["filters"]
            ),
            {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
        ],
    }
    if data.get("downstream_http1_trailers"):
        manager["http_protocol_options"] = {"enable_trailers": True}
    return [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]


def _tcp_chain(case: Case, filters: Path) -> list[dict[str, Any]]:
    wasm = [
        {
            "name": "envoy.filters.network.wasm",
            "typed_config": {"@type": NETWORK_WASM, "config": _plugin(one, filters)},
        }
        for one in case.data["filters"]
    ]
    tail = {"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "svc", **case.data.get("tcp_proxy", {})}
    return [*wasm, {"name": "envoy.filters.network.tcp_proxy", "typed_config": tail}]


def _plugin(one: dict[str, Any], filters: Path) -> dict[str, Any]:
    vm: dict[str, Any] = {
        "runtime": one.get("runtime", "envoy.wasm.runtime.v8"),
        "code": {"local": {"filename": str(filters / f"{one['wasm']}.wasm")}},
    }
    if "vm_id" in one:
        vm["vm_id"] = one["vm_id"]
    if "vm_configuration" in one:
        vm["configuration"] = one["vm_configuration"]
    if "environment_variables" in one:
        vm["environment_variables"] = {"key_values": one["environment_variables"]}
    plugin: dict[str, Any] = {"vm_config": vm}
    same = (
        "name",
        "root_id",
        "configuration",
        "failure_policy",
        "fail_open",
        "allow_on_headers_stop_iteration",
        "capability_restriction_config",
    )
    plugin |= {key: one[key] for key in same if key in one}
    return plugin


def _cluster(name: str, port: int, data: dict[str, Any]) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "connect_timeout": "1s",
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }
    if data.get("upstream_http1_trailers"):
        cluster["typed_extension_protocol_options"] = {
            UPSTREAM_OPTIONS: {
                "@type": TYPE + UPSTREAM_OPTIONS,
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
            }
        }
    return cluster


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
