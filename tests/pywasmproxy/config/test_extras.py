"""Tags of statistics, wasm services, and what is said about a configuration."""

from __future__ import annotations

import pytest

from pywasmproxy.config import load
from pywasmproxy.config.model_stats import StatsConfig, StatsTag
from pywasmproxy.config.report import report
from tests.support.bootstrap import EMPTY_MODULE, read, refused

CODE = f"code: {{local: {{inline_bytes: {EMPTY_MODULE}}}}}"
SERVICE = '"@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService'


def test_tags() -> None:
    tags = "[{tag_name: a, regex: '^x((y))'}, {tag_name: b, fixed_value: v}]"
    found = read(top=f"stats_config: {{stats_tags: {tags}, use_all_default_tags: false}}")
    assert found.stats == StatsConfig((StatsTag("a", "^x((y))"), StatsTag("b", None, "v")), False)
    assert found.warnings == ()
    assert read().stats == StatsConfig()


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("{regex: a}", "TagSpecifier needs 'tag_name'"),
        (
            "{tag_name: a, regex: '('}",
            "regular expression '(': missing ), unterminated subpattern at position 0",
        ),
        ("{tag_name: a, regex: a, fixed_value: b}", "only one of regex and fixed_value can be set"),
    ],
)
def test_tags_that_are_refused(tag: str, message: str) -> None:
    assert refused(top=f"stats_config: {{stats_tags: [{tag}]}}").message == message


PLUGIN = f"{{name: s, vm_config: {{{CODE}}}}}"


@pytest.mark.parametrize(
    "entry",
    [
        f"{{name: a, typed_config: {{{SERVICE}, singleton: true, config: {PLUGIN}}}}}",
        f"{{name: envoy.bootstrap.wasm, config: {{config: {PLUGIN}}}}}",
    ],
)
def test_services(entry: str) -> None:
    found = read(top=f"bootstrap_extensions: [{entry}]")
    assert [service.name for service in found.services] == ["s"]
    assert found.warnings == ()


def test_other_extensions_are_left_out() -> None:
    kind = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
    entry = f'{{name: a, typed_config: {{"@type": type.googleapis.com/{kind}}}}}'
    [warning] = read(top=f"bootstrap_extensions: [{entry}]").warnings
    assert warning.path == "bootstrap_extensions[0]"
    assert warning.message.endswith("InternalListener' are not supported: it is left out")


def test_a_service_needs_a_plugin() -> None:
    entry = f"{{name: a, typed_config: {{{SERVICE}}}}}"
    assert refused(top=f"bootstrap_extensions: [{entry}]").message == "WasmService needs 'config'"


def test_the_report() -> None:
    clusters = "[{name: c, connect_timeout: 1s}, {name: d}]"
    text = f"node: {{id: a}}\nflags_path: /x\nstatic_resources: {{clusters: {clusters}}}"
    assert report(load(text, "some.yaml")).splitlines() == [
        "configuration 'some.yaml' OK",
        "honoured:",
        "  Bootstrap: node, static_resources",
        "  Node: id",
        "  StaticResources: clusters",
        "  Cluster: name, connect_timeout",
        "ignored:",
        "  line 2: flags_path: not supported yet, ignored",
    ]
    assert report(load("node: {}", "x")).endswith("ignored: nothing")


def test_what_is_honoured_makes_no_difference() -> None:
    assert load("node: {id: ''}") == load("node: {}")
