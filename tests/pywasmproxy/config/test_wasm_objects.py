"""The WasmPlugin objects of Istio and Higress."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pywasmproxy.config import ConfigError, load
from pywasmproxy.config.model import Address, FailurePolicy, RouterFilter, WasmFilter
from pywasmproxy.config.wasm_objects import PluginObjects, added, holds_objects, load_objects, serving
from tests.support.bootstrap import bootstrap, wasm

CODE = b"\0asm\1\0\0\0"

ISTIO = """\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata:
  name: auth
  namespace: shop
spec:
  selector: {matchLabels: {app: shop}}
  url: file:///%s
  imagePullPolicy: Always
  phase: AUTHN
  priority: 10
  failStrategy: FAIL_OPEN
  pluginName: root
  pluginConfig: {realm: shop, numbers: [1, 2.5], on: true}
  vmConfig:
    env:
    - {name: GIVEN, value: here}
    - {name: HOME_OF, valueFrom: HOST}
    - {name: MISSING, valueFrom: HOST}
"""

HIGRESS = """\
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: limit}
spec:
  url: file://%s
  defaultConfig: {allow: all}
  matchRules:
  - {ingress: [shop/main], config: {allow: some}}
  - {domain: [a.test, "*.b.test"], config: {allow: none}}
  - {service: [svc.dns], configDisable: true}
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "filter.wasm"
    path.write_bytes(CODE)
    return path


def objects(*texts: str, directory: str | Path = "") -> PluginObjects:
    sources = [(text, f"file{number}") for number, text in enumerate(texts)]
    return load_objects(sources, directory=directory, environ={"HOME_OF": "us"})


def one(
    spec: str, *, version: str = "extensions.istio.io/v1alpha1", directory: str | Path = ""
) -> PluginObjects:
    metadata = f"apiVersion: {version}\nkind: WasmPlugin\nmetadata: {{name: p}}\n"
    return objects(f"{metadata}spec: {{{spec}}}", directory=directory)


def test_an_object_of_istio(code: Path) -> None:
    [found] = objects(ISTIO % str(code).lstrip("/")).objects
    plugin = found.plugin
    assert (plugin.name, plugin.root_id) == ("shop.auth", "root")
    assert plugin.code.data == CODE
    assert json.loads(plugin.configuration) == {"realm": "shop", "numbers": [1, 2.5], "on": True}
    assert plugin.failure_policy is FailurePolicy.FAIL_OPEN
    assert plugin.environment_variables == {"GIVEN": "here", "HOME_OF": "us"}
    assert (found.phase, found.priority) == ("AUTHN", 10)


def test_an_object_of_higress(code: Path) -> None:
    [found] = objects(HIGRESS % "filter.wasm", directory=code.parent).objects
    assert json.loads(found.plugin.configuration) == {
        "allow": "all",
        "_rules_": [
            {"allow": "some", "_match_route_": ["shop/main"]},
            {"allow": "none", "_match_domain_": ["a.test", "*.b.test"]},
        ],
    }
    assert found.plugin.failure_policy is FailurePolicy.FAIL_CLOSED


@pytest.mark.parametrize(
    ("spec", "configuration"),
    [
        ("", b""),
        ("defaultConfig: {a: 1}", b'{"a":1}'),
        ("pluginConfig: {a: 1}, defaultConfig: {b: 1}", b'{"a":1}'),
        (
            "defaultConfig: {a: 1}, defaultConfigDisable: true, matchRules: [{domain: [x], config: {b: 1}}]",
            b'{"_rules_":[{"b":1,"_match_domain_":["x"]}]}',
        ),
    ],
)
def test_configurations(spec: str, configuration: bytes, code: Path) -> None:
    [found] = one(f"url: 'file://filter.wasm', {spec}", directory=code.parent).objects
    assert found.plugin.configuration == configuration


def test_one_that_is_switched_off(code: Path) -> None:
    rules = "[{domain: [x], configDisable: true}]"
    spec = f"url: 'file://filter.wasm', defaultConfigDisable: true, matchRules: {rules}"
    assert one(spec, directory=code.parent).objects == ()


def test_phases_then_priorities(code: Path) -> None:
    def written(name: str, spec: str) -> str:
        head = f"apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\n"
        return f"{head}spec: {{url: 'file://filter.wasm', {spec}}}\n"

    first = "---\n".join(
        [written("last", ""), written("stats", "phase: STATS"), written("low", "phase: AUTHN")]
    )
    second = (
        written("high", "phase: AUTHN, priority: 7") + "---\n" + written("authz", "phase: AUTHZ") + "---\n"
    )
    found = objects(first, second, directory=code.parent)
    assert [one.plugin.name for one in found.objects] == ["high", "low", "authz", "stats", "last"]
    with pytest.raises(ConfigError, match="two objects are named 'last'"):
        objects(first, first, directory=code.parent)


def test_the_digest(code: Path) -> None:
    digest = hashlib.sha256(CODE).hexdigest()
    assert one(f"url: 'file://filter.wasm', sha256: {digest.upper()}", directory=code.parent).objects
    with pytest.raises(ConfigError, match=f"the SHA-256 of filter.wasm is {digest}, not 0{digest[1:]}"):
        one(f"url: 'file://filter.wasm', sha256: '0{digest[1:]}'", directory=code.parent)


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ("url: 'file://none.wasm'", "spec.url", "Invalid path: none.wasm"),
        ("phase: AUTHN", "spec", "WasmPluginSpec needs 'url'"),
        (
            "url: 'https://a.test/f.wasm'",
            "spec.url",
            "needs 'sha256': code from elsewhere is only used when it is known",
        ),
        (
            "url: 'oci://registry.test/a:1'",
            "spec.url",
            "oci:// URLs are not supported yet: download the code and name it with file://",
        ),
        (
            "url: registry.test/a:1",
            "spec.url",
            "other URLs are not supported yet: download the code and name it with file://",
        ),
        ("url: 'file://filter.wasm', phase: LAST", "spec.phase", "'LAST' is no phase; known: "),
        ("url: 'file://filter.wasm', pluginconfig: {}", "spec.pluginconfig", "unknown field 'pluginconfig'"),
        (
            "url: 'file://filter.wasm', matchRules: [{config: {}}]",
            "spec.matchRules[0]",
            "a rule needs one of ingress, domain, service",
        ),
    ],
)
def test_objects_that_are_refused(spec: str, path: str, message: str, code: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        one(spec, directory=code.parent)
    assert caught.value.message.startswith(message)
    assert (caught.value.path, caught.value.file) == (path, "file0")


def test_what_is_no_such_object() -> None:
    with pytest.raises(ConfigError, match="expected an object of kind WasmPlugin"):
        objects("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}")
    with pytest.raises(ConfigError, match=r"apiVersion is one of extensions\.istio\.io/v1alpha1, "):
        one("url: 'file://x'", version="extensions.example.test/v1")
    assert holds_objects("kind: WasmPlugin", "f")
    assert not holds_objects(bootstrap(), "f")
    assert not holds_objects("[]", "f")


def test_network_plugins_are_left_out(code: Path) -> None:
    found = one("url: 'file://filter.wasm', type: NETWORK", directory=code.parent)
    assert found.objects == ()
    assert [warning.message for warning in found.warnings] == [
        "plugins for TCP are not supported here: it is left out"
    ]


def test_traffic_selectors_warn(code: Path) -> None:
    found = one("url: 'file://filter.wasm', match: [{mode: CLIENT}]", directory=code.parent)
    assert [warning.path for warning in found.warnings] == ["spec.match"]


def test_before_one_upstream(code: Path) -> None:
    found = one("url: 'file://filter.wasm'", directory=code.parent)
    made = serving(found, Address("up.test", 81), Address("127.0.0.1", 80))
    assert made.listeners[0].address == Address("127.0.0.1", 80)
    assert [one.address for one in made.clusters[0].endpoints] == [Address("up.test", 81)]
    filters = made.listeners[0].http.http_filters
    assert [type(filter) for filter in filters] == [WasmFilter, RouterFilter]
    assert made.files == (str(code),)


def test_before_the_filters_of_a_configuration(code: Path) -> None:
    found = one("url: 'file://filter.wasm'", directory=code.parent)
    base = load(bootstrap(filters=wasm("name: own")))
    filters = added(base, found).listeners[0].http.http_filters
    assert [getattr(one, "plugin", one).name for one in filters] == ["p", "own", "router"]


@pytest.mark.parametrize(
    ("url", "name", "address", "secure"),
    [
        ("http://a.test/f.wasm", "http://a.test", Address("a.test", 80), False),
        ("https://a.test:8443/f.wasm?x", "https://a.test:8443", Address("a.test", 8443), True),
    ],
)
def test_code_from_elsewhere(url: str, name: str, address: Address, secure: bool) -> None:
    digest = "AB" * 32
    found = one(f"url: '{url}', sha256: {digest}")
    [plugin] = [entry.plugin for entry in found.objects]
    assert plugin.code.remote is not None
    assert (plugin.code.remote.uri, plugin.code.remote.cluster) == (url, name)
    assert plugin.code.sha256 == digest.lower()
    source = serving(found, Address("up.test", 81), Address("127.0.0.1", 80)).clusters[-1]
    assert (source.name, source.endpoints[0].address, source.tls is not None) == (name, address, secure)
