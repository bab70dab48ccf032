"""Whole files: bootstraps as people write them, the node, the admin server, files that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

import pywasmproxy.config
from pywasmproxy.config import Bootstrap, ConfigError, load, load_file, schema
from pywasmproxy.config.model import Address, Admin, Node, RouterFilter, WasmFilter
from tests.replay import cases, render
from tests.support.bootstrap import bootstrap, read, refused

STORY = Path(__file__).resolve().parents[3] / "examples" / "add-header"


def test_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(STORY)
    found = load_file("envoy.yaml")
    assert found.source_name == "envoy.yaml"
    assert found.warnings == ()
    [listener] = found.listeners
    assert listener.address == Address("127.0.0.1", 8099)
    [wasm, router] = listener.http.http_filters
    assert isinstance(router, RouterFilter)
    assert isinstance(wasm, WasmFilter)
    assert wasm.plugin.name == "add_header"
    assert wasm.plugin.code.data.startswith(b"\0asm")
    assert wasm.plugin.configuration == b""
    [cluster] = found.clusters
    assert cluster.connect_timeout == 1.0
    assert [endpoint.address for endpoint in cluster.endpoints] == [Address("127.0.0.1", 8080)]


def test_a_file_named_in_it_is_looked_up_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_file(STORY / "envoy.yaml")
    assert caught.value.message == "Invalid path: add-header.wasm"
    assert caught.value.file == str(STORY / "envoy.yaml")
    assert caught.value.line > 1


ALL_CASES = [case for file in sorted(cases.GOLDEN.glob("*.json")) for case in cases.load(file)]


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_every_golden_case_loads(case: cases.Case, tmp_path: Path) -> None:
    for one in case.data["filters"]:
        (tmp_path / f"{one['wasm']}.wasm").write_bytes(b"")
    text = render.render(case, tmp_path, {"listener": 1, "upstream": 2, "dead": 3})
    found = load(text, case.name, environ={})
    [chain] = found.listeners[0].filter_chains
    assert (chain.tcp is not None) is case.is_tcp
    assert [one.name for one in chain.plugins] == [one.get("name", "") for one in case.data["filters"]]
    cluster = case.data.get("tcp_proxy", {}).get("cluster")
    expected = ["unknown cluster 'nope': connections are closed"] if cluster == "nope" else []
    assert [one.message for one in found.warnings if "http_filters" not in one.path] == expected


def test_json_is_read_as_well() -> None:
    text = json.dumps(yaml.safe_load(bootstrap()))
    assert load(text).listeners == load(bootstrap()).listeners


def test_camel_case_throughout() -> None:
    def spell(key: str) -> str:
        return key if key.startswith("@") else schema.camel(key)

    def camel(value: object) -> object:
        if isinstance(value, dict):
            return {spell(key): camel(child) for key, child in value.items()}
        return [camel(child) for child in value] if isinstance(value, list) else value

    text = yaml.safe_dump(camel(yaml.safe_load(bootstrap())))
    assert "staticResources" in text
    assert load(text) == load(bootstrap())


def test_lists_of_one_may_be_written_without_the_list() -> None:
    """As in the examples of the Rust SDK: `listeners:` with a mapping below it."""

    def single(value: object) -> object:
        if isinstance(value, dict):
            return {key: single(child) for key, child in value.items()}
        if isinstance(value, list):
            return single(value[0]) if len(value) == 1 else [single(child) for child in value]
        return value

    text = yaml.safe_dump(single(yaml.safe_load(bootstrap())))
    assert "- " not in text
    assert load(text) == load(bootstrap())


def test_loading_twice_gives_equal_values() -> None:
    assert read() == read()
    assert read() != read(cluster="connect_timeout: 1s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node: {}", Node()),
        ("node: {id: i, cluster: c, metadata: {k: [1]}}", Node("i", "c", {"k": [1]})),
        (
            "node: {id: i, locality: {region: r, zone: z, subZone: s}}",
            Node("i", region="r", zone="z", sub_zone="s"),
        ),
    ],
)
def test_node(text: str, expected: Node) -> None:
    assert read(node=text).node == expected


def test_node_as_a_property() -> None:
    assert Node("i", metadata={"k": 1}, zone="z").as_dict() == {
        "id": "i",
        "metadata": {"k": 1},
        "locality": {"zone": "z"},
    }
    assert Node().as_dict() == {}


def test_admin() -> None:
    where = "address: {socket_address: {address: 127.0.0.1, port_value: 9901}}"
    assert read().admin is None
    assert read(top=f"admin: {{{where}}}").admin == Admin(Address("127.0.0.1", 9901))
    assert read(top=f"admin: {{access_log_path: /dev/null, {where}}}").warnings == ()
    assert read(top="admin: {}").warnings == ()
    assert read(top="admin: {}").admin is None
    assert read(top="admin: {address: {pipe: {path: /run/admin}}}").admin is None
    warnings = read(top=f"admin: {{access_log_path: /tmp/log, {where}}}").warnings
    assert [warning.path for warning in warnings] == ["admin.access_log_path"]
    assert refused(top="admin: {adress: {}}").suggestion == "address"


@pytest.mark.parametrize(
    "field",
    [
        "layered_runtime: {}",
        "hds_config: {}",
        "overload_manager: {}",
        "stats_flush_interval: 5s",
        "tracing: {}",
        "runtime: {}",
    ],
)
def test_unsupported_bootstrap_fields_warn_once(field: str) -> None:
    [warning] = read(top=field).warnings
    assert str(warning) == f"test.yaml:2: {field.partition(':')[0]}: not supported yet, ignored"


def test_warnings_come_in_the_order_of_lines() -> None:
    text = bootstrap(top="tracing: {}", cluster="track_timeout_budgets: true", listener="access_log: []")
    found = load(text, "f")
    assert [warning.path for warning in found.warnings] == [
        "tracing",
        "static_resources.listeners[0].access_log",
        "static_resources.clusters[0].track_timeout_budgets",
    ]
    assert [warning.line for warning in found.warnings] == sorted(warning.line for warning in found.warnings)


def test_a_file_without_listeners_is_fine() -> None:
    assert load("node: {id: a}") == Bootstrap(node=Node("a"))
    assert load("{}") == Bootstrap()
    assert load("static_resources: {}").listeners == ()


def test_two_clusters_with_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"clusters\[1\]: cluster name 'svc' is taken already"):
        load(bootstrap() + "  - {name: svc}\n")


@pytest.mark.parametrize(
    ("text", "line", "path", "message", "suggestion"),
    [
        (
            "static_resource: {}",
            1,
            "static_resource",
            "unknown field 'static_resource' in Bootstrap",
            "static_resources",
        ),
        ("- a", 1, "", "expected a mapping, found a list", None),
        ("text", 1, "", "expected a mapping, found 'text'", None),
        ("static_resources: []", 1, "static_resources", "expected a mapping, found a list", None),
        ("a: 1\na: 2", 2, "", "key 'a' stands twice in one mapping (first in line 1)", None),
        ("node: {<<: {id: a}}", 1, "node.['<<']", "unknown field '<<' in Node", None),
        (
            "static_resources:\n  listeners:\n  - adress: x",
            3,
            "static_resources.listeners[0].adress",
            "unknown field 'adress' in Listener",
            "address",
        ),
    ],
)
def test_files_that_are_refused(
    text: str, line: int, path: str, message: str, suggestion: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, "f.yaml")
    error = caught.value
    assert (error.file, error.line, error.path, error.message, error.suggestion) == (
        "f.yaml",
        line,
        path,
        message,
        suggestion,
    )


def test_an_error_reads_well() -> None:
    with pytest.raises(ConfigError) as caught:
        load("static_resources:\n  listeners:\n  - adress: x", "envoy.yaml")
    assert str(caught.value) == (
        "envoy.yaml:3: static_resources.listeners[0].adress: unknown field 'adress' in Listener "
        "(did you mean 'address'?)"
    )
    assert str(ConfigError("f", 0, "", "m")) == "f: m"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path / "nope.yaml")
    assert str(caught.value) == f"{tmp_path / 'nope.yaml'}: cannot be read: {os.strerror(2)}"
    (tmp_path / "latin.yaml").write_bytes(b"node: {id: \xe9}")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 11\)"):
        load_file(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfnode: {id: a}")
    assert load_file(str(tmp_path / "bom.yaml")).node.id == "a"


def test_the_environment_of_this_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYWASM_TEST_BODY", "from outside")
    body = (
        "{match: {prefix: /}, direct_response: {status: 200, body: {environment_variable: PYWASM_TEST_BODY}}}"
    )
    route = load(bootstrap(route=body)).listeners[0].http.route_config.virtual_hosts[0].routes[0]
    assert getattr(route.action, "body", None) == b"from outside"


def test_public_names() -> None:
    for name in pywasmproxy.config.__all__:
        assert getattr(pywasmproxy.config, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        pywasmproxy.config.nope  # noqa: B018
