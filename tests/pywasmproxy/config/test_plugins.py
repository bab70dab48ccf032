"""The wasm filter's configuration in every form seen in the wild, and what the guest will read of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.config.model import (
    FailurePolicy,
    RemoteCode,
    RouterFilter,
    WasmCode,
    WasmFilter,
    WasmPlugin,
)
from tests.support.bootstrap import (
    EMPTY_MODULE,
    ROUTER_ENTRY,
    WASM,
    WELL_KNOWN,
    bootstrap,
    line_of,
    plugin,
    read,
    refused,
    wasm,
)

MODULE = base64.b64decode(EMPTY_MODULE)
WIRE = "node: {metadata: {pywasmvm: {struct_configuration: protobuf}}}"


def configured(value: str, node: str = "") -> bytes:
    return plugin(plugin=f"configuration: {value}", node=node).configuration


def well_known(name: str, value: str = "") -> str:
    return f'{{"@type": {WELL_KNOWN}{name}{f", value: {value}" if value else ""}}}'


def test_everything_at_once() -> None:
    found = plugin(
        {"HOME": "/h", "LANG": "C"},
        vm='vm_id: v, runtime: envoy.wasm.runtime.v8, configuration: {"@type": '
        + f"{WELL_KNOWN}StringValue, value: vmc}}, allow_precompiled: true, nack_on_code_cache_miss: false, "
        + "environment_variables: {host_env_keys: [HOME, NOPE], key_values: {A: b}}",
        plugin="name: named, root_id: r, "
        + f"configuration: {well_known('StringValue', 'text')}, failure_policy: fail_open, "
        + "reload_config: {backoff: {base_interval: 2s, max_interval: 9s}}, "
        + "capability_restriction_config: {allowed_capabilities: {proxy_log: {}, proxy_on_tick: {}}}, "
        + "allow_on_headers_stop_iteration: true",
    )
    assert found == WasmPlugin(
        name="named",
        root_id="r",
        vm_id="v",
        runtime="envoy.wasm.runtime.v8",
        code=WasmCode(MODULE),
        vm_configuration=b"vmc",
        configuration=b"text",
        failure_policy=FailurePolicy.FAIL_OPEN,
        reload_base_interval=2.0,
        environment_variables={"HOME": "/h", "A": "b"},
        allow_on_headers_stop_iteration=True,
        allowed_capabilities=frozenset({"proxy_log", "proxy_on_tick"}),
        allow_precompiled=True,
    )


def test_defaults() -> None:
    assert plugin() == WasmPlugin(code=WasmCode(MODULE))
    assert plugin().failure_policy is FailurePolicy.FAIL_CLOSED


def test_camel_case_names() -> None:
    found = plugin(
        plugin="rootId: r, failOpen: true", vm="vmId: v, environmentVariables: {keyValues: {A: b}}"
    )
    assert (found.root_id, found.fail_open, found.vm_id, found.environment_variables) == (
        "r",
        True,
        "v",
        {"A": "b"},
    )


PLUGIN = f"{{config: {{name: named, vm_config: {{code: {{local: {{inline_bytes: {EMPTY_MODULE}}}}}}}}}}}"
FIELDS = PLUGIN[1:-1]
URL = "type.googleapis.com/"
FORMS = {
    "the message itself": f'{{name: w, typed_config: {{"@type": {WASM}, {FIELDS}}}}}',
    "another prefix": f'{{name: w, typed_config: {{"@type": {WASM.replace(URL, "x.y/z/")}, {FIELDS}}}}}',
    "udpa TypedStruct": f'{{name: w, typed_config: {{"@type": {URL}udpa.type.v1.TypedStruct, '
    f"type_url: {WASM}, value: {PLUGIN}}}}}",
    "xds TypedStruct": f'{{name: w, typed_config: {{"@type": {URL}xds.type.v3.TypedStruct, '
    f"typeUrl: {WASM}, value: {PLUGIN}}}}}",
    "v2 message": f'{{name: w, typed_config: {{"@type": {URL}envoy.config.filter.http.wasm.v2.Wasm, '
    f"{FIELDS}}}}}",
    "legacy config": f"{{name: envoy.filters.http.wasm, config: {PLUGIN}}}",
    "legacy name": f"{{name: envoy.wasm, config: {PLUGIN}}}",
    "TypedStruct of a known name": "{name: envoy.filters.http.wasm, typed_config: "
    f'{{"@type": {URL}xds.type.v3.TypedStruct, value: {PLUGIN}}}}}',
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_the_filter(form: str) -> None:
    [found, router] = read(filters=f"[{form}, {ROUTER_ENTRY}]").listeners[0].http.http_filters
    assert isinstance(found, WasmFilter)
    assert found.plugin == WasmPlugin(name="named", code=WasmCode(MODULE))
    assert isinstance(router, RouterFilter)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (well_known("StringValue", "some text"), b"some text"),
        (well_known("StringValue", '"1"'), b"1"),
        (well_known("StringValue", '"h\\u00e9"'), "hé".encode()),
        (well_known("StringValue", '""'), b""),
        (well_known("StringValue"), b""),
        (well_known("StringValue", "{b: 1, a: [x, null]}"), b'{"b":1,"a":["x",null]}'),
        (well_known("BytesValue", "AAEC/w=="), b"\x00\x01\x02\xff"),
        (well_known("BytesValue", "AAEC_w"), b"\x00\x01\x02\xff"),
        (well_known("BytesValue"), b""),
        (
            well_known("Struct", '{z: 1, a: {y: no, x: "é"}, n: 1.5}'),
            '{"z":1,"a":{"y":false,"x":"é"},"n":1.5}'.encode(),
        ),
        (well_known("Struct", "{}"), b""),
        (well_known("Struct"), b""),
        (well_known("Int32Value", "7"), b"\x08\x07"),
        (well_known("Int32Value", "-1"), b"\x08" + b"\xff" * 9 + b"\x01"),
        (well_known("Int32Value", "0"), b""),
        (well_known("UInt32Value", "300"), b"\x08\xac\x02"),
        (well_known("Int64Value", '"9"'), b"\x08\x09"),
        (well_known("UInt64Value", "18446744073709551615"), b"\x08" + b"\xff" * 9 + b"\x01"),
        (well_known("BoolValue", "true"), b"\x08\x01"),
        (well_known("BoolValue", "false"), b""),
        (well_known("FloatValue", "1.5"), b"\x0d\x00\x00\xc0\x3f"),
        (well_known("DoubleValue", "1.5"), b"\x09\x00\x00\x00\x00\x00\x00\xf8\x3f"),
        (well_known("DoubleValue", "NaN"), b"\x09\x00\x00\x00\x00\x00\x00\xf8\x7f"),
        (well_known("DoubleValue", '"-Infinity"'), b"\x09\x00\x00\x00\x00\x00\x00\xf0\xff"),
        (well_known("DoubleValue", "2"), b"\x09\x00\x00\x00\x00\x00\x00\x00\x40"),
        (well_known("Duration", "1.5s"), b"\x08\x01\x10\x80\xca\xb5\xee\x01"),
        (well_known("Value", "x"), b"\x1a\x01x"),
        (well_known("Value", "null"), b"\x08\x00"),
        (well_known("Value"), b"\x08\x00"),
        (well_known("ListValue", "[1, a]"), b"\n\t\x11\x00\x00\x00\x00\x00\x00\xf0?\n\x03\x1a\x01a"),
        (well_known("Empty"), b""),
        (
            '{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: x/y, value: {a: 1}}',
            b"\n\x03x/y\x12\x10\n\x0e\n\x01a\x12\t\x11\x00\x00\x00\x00\x00\x00\xf0?",
        ),
        ('{"@type": type.googleapis.com/udpa.type.v1.TypedStruct}', b""),
        (
            well_known("Any", well_known("StringValue", "x")),
            b"\n/type.googleapis.com/google.protobuf.StringValue\x12\x03\n\x01x",
        ),
        (
            f'{{"@type": a.b/google.protobuf.Any, value: {well_known("BytesValue", "AA==")}}}',
            b"\n.type.googleapis.com/google.protobuf.BytesValue\x12\x03\n\x01\x00",
        ),
        ("bare text", b"bare text"),
        ("'5'", b"5"),
        ("{}", b""),
        ("null", b""),
    ],
)
def test_what_the_guest_reads(value: str, expected: bytes) -> None:
    assert configured(value) == expected
    assert plugin(vm=f"configuration: {value}").vm_configuration == expected


def test_a_struct_can_reach_the_guest_as_protobuf() -> None:
    value = well_known("Struct", "{b: 1, a: x}")
    assert (
        configured(value, WIRE)
        == b"\n\x0e\n\x01b\x12\t\x11\x00\x00\x00\x00\x00\x00\xf0?\n\x08\n\x01a\x12\x03\x1a\x01x"
    )
    assert configured(well_known("Struct", "{}"), WIRE) == b""
    assert configured(well_known("StringValue", "{b: 1}"), WIRE) == b'{"b":1}'
    as_json = "node: {metadata: {pywasmvm: {struct_configuration: json}}}"
    assert configured(value, as_json) == b'{"b":1,"a":"x"}'


def test_block_text_arrives_as_written() -> None:
    entry = f"""
          - name: w
            typed_config:
              "@type": {WASM}
              config:
                vm_config: {{code: {{local: {{inline_bytes: {EMPTY_MODULE}}}}}}}
                configuration:
                  "@type": {WELL_KNOWN}StringValue
                  value: |
                    {{"a": 1}}
                    more
          - {ROUTER_ENTRY}"""
    found = read(filters=entry).listeners[0].http.http_filters[0]
    assert isinstance(found, WasmFilter)
    assert found.plugin.configuration == b'{"a": 1}\nmore\n'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (well_known("StringValue", "1"), "expected text, found the number 1; put it in quotes"),
        (well_known("StringValue", "[a]"), "expected text, found a list"),
        (well_known("BytesValue", "'!'"), "this is no base64 text"),
        (well_known("BytesValue", "A"), "this is no base64 text"),
        (well_known("BytesValue", "é"), "this is no base64 text"),
        (well_known("Int32Value", "2147483648"), "2147483648 is not between -2147483648 and 2147483647"),
        (well_known("UInt32Value", "-1"), "-1 is not between 0 and 4294967295"),
        (well_known("BoolValue", "1"), "expected true or false, found the number 1"),
        (well_known("DoubleValue", "x"), "expected a number, found 'x'"),
        (well_known("DoubleValue", "[1]"), "expected a number, found a list"),
        (well_known("FloatValue", "1e300"), "the number is too large for a FloatValue"),
        (well_known("Duration", "5"), "expected a duration in seconds such as 1.5s, found the number 5"),
        (well_known("ListValue", "{}"), "expected a list, found a mapping"),
        (well_known("Struct", "[1]"), "expected a mapping, found a list"),
        (well_known("Empty", "{}"), "unknown field 'value' in Empty"),
        (
            f'{{"@type": {WELL_KNOWN}Struct, a: 1}}',
            "unknown field 'a' in google.protobuf.Struct; its content belongs under 'value'",
        ),
        ("{a: 1}", "a configuration needs '@type', for example type.googleapis.com/google.protobuf.Struct"),
        ("[1]", "expected a mapping, found a list"),
        ("5", "expected text, found the number 5; put it in quotes"),
        (well_known("Timestamp", "x"), "a configuration of type google.protobuf.Timestamp is not supported"),
        (
            well_known("StrngValue", "x"),
            "a configuration of type google.protobuf.StrngValue is not supported",
        ),
        ('{"@type": a/StringValue, value: x}', "a configuration of type StringValue is not supported"),
        ('{"@type": google.protobuf.Struct}', "'google.protobuf.Struct' is no type URL"),
        ('{"@type": ""}', "'' is no type URL"),
        (
            well_known("Any", "{}"),
            "a configuration needs '@type', for example type.googleapis.com/google.protobuf.Struct",
        ),
        (
            '{"@type": x/xds.type.v3.TypedStruct, url: x}',
            "unknown field 'url' in xds.type.v3.TypedStruct; its content belongs under 'value'",
        ),
    ],
)
def test_configurations_that_are_refused(value: str, message: str) -> None:
    error = refused(filters=wasm(f"configuration: {value}"))
    assert error.message == message
    assert error.path.startswith(
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"
        ".config.configuration"
    )


def test_a_mistyped_type_gets_a_suggestion() -> None:
    assert (
        refused(filters=wasm(f"configuration: {well_known('StrngValue')}")).suggestion
        == "google.protobuf.StringValue"
    )
    error = refused(filters=wasm('configuration: {"@type": google.protobuf.Struct}'))
    assert error.suggestion == "type.googleapis.com/google.protobuf.Struct"


# YAML has no surrogate pairs in its escapes, which is how JSON writes what is beyond the basic plane, and
# wants keys within 1024 characters
TEXT = st.text(st.characters(max_codepoint=0xD7FF), max_size=50)


@given(st.dictionaries(TEXT, st.integers(-5, 5) | TEXT | st.booleans() | st.none(), max_size=5))
def test_json_text_is_what_was_written(value: dict[str, object]) -> None:
    written = json.dumps(value)
    found = configured(well_known("Struct", written))
    assert (json.loads(found) if found else {}) == value


def test_code_from_a_file_is_looked_up_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.wasm").write_bytes(b"code")
    code = "{local: {filename: sub/f.wasm}}"
    assert plugin(code=code, directory=tmp_path).code == WasmCode(b"code", "sub/f.wasm")
    monkeypatch.chdir(tmp_path)
    assert plugin(code=code).code.data == b"code"
    assert plugin(code=f"{{local: {{filename: {tmp_path}/sub/f.wasm}}}}", directory="/").code.data == b"code"


@pytest.mark.parametrize("name", ["nope.wasm", ".", '"a\\0b"'])
def test_a_file_that_cannot_be_read(name: str) -> None:
    error = refused(filters=wasm(code=f"{{local: {{filename: {name}}}}}"))
    assert error.message == "Invalid path: " + name.strip('"').replace("\\0", "\0")
    assert error.path.endswith(".config.vm_config.code.local.filename")


def test_inline_code() -> None:
    assert plugin(code="{local: {inline_string: 'not wasm'}}").code == WasmCode(b"not wasm")
    assert plugin({"CODE": "x"}, code="{local: {environment_variable: CODE}}").code == WasmCode(b"x")
    error = refused(filters=wasm(code="{local: {environment_variable: CODE}}"))
    assert error.message == "environment variable CODE is not set"


REMOTE = "{{remote: {{http_uri: {{uri: '{uri}', cluster: svc, timeout: 2s}}, sha256: '{sha256}'}}}}"


def test_remote_code() -> None:
    digest = "AB" * 32
    found = plugin(code=REMOTE.format(uri="https://a.test/f.wasm?v=1", sha256=digest)).code
    assert found == WasmCode(b"", None, RemoteCode("https://a.test/f.wasm?v=1", "svc", 2.0, digest.lower()))
    assert found.sha256 == digest.lower()
    more = "retry_policy: {num_retries: 4, retry_back_off: {base_interval: 0.5s, max_interval: 3s}}}"
    code = REMOTE.format(uri="http://a/b", sha256=digest).removesuffix("}}") + f", {more}}}"
    assert plugin(code=code).code.remote == RemoteCode("http://a/b", "svc", 2.0, digest.lower(), 4, 0.5, 3.0)
    error = refused(filters=wasm(code=code.replace("cluster: svc", "cluster: svcc")))
    assert error.message == "unknown cluster 'svcc'"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("{}", "needs 'local'"),
        ("{local: {}}", "needs one of filename, inline_bytes, inline_string, environment_variable"),
        ("null", "vm_config.code is missing: there is nothing to run"),
        ("{local: {filename: a, inline_string: b}}", "only one of filename and inline_string can be set"),
        ("{remote: {}}", "RemoteDataSource needs 'http_uri'"),
        ("{remote: {http_uri: {uri: 'http://a/b', cluster: c}}}", "HttpUri needs 'timeout'"),
        (REMOTE.format(uri="b", sha256="0" * 64), "'b' is not an absolute http or https URI"),
        (REMOTE.format(uri="ftp://a/b", sha256="0" * 64), "'ftp://a/b' is not an absolute http or https URI"),
        (REMOTE.format(uri="http://a/b", sha256="0"), "a SHA-256 has 64 hexadecimal digits"),
        (REMOTE.format(uri="http://a/b", sha256=""), "a SHA-256 has 64 hexadecimal digits"),
        (
            "{remote: {http_uri: {uri: 'http://a/b', cluster: svc, timeout: 2s}}}",
            "needs 'sha256': code from elsewhere is only used when it is known",
        ),
        ("{local: {inline_string: b}, remote: {}}", "only one of local and remote can be set"),
        ("{local: {inline_bytes: '?'}}", "this is no base64 text"),
    ],
)
def test_code_that_is_refused(code: str, message: str) -> None:
    assert refused(filters=wasm(code=code)).message == message


def test_the_deprecated_boolean_and_the_policy_exclude_each_other() -> None:
    assert plugin(plugin="fail_open: true").fail_open
    assert plugin(plugin="fail_open: true, failure_policy: UNSPECIFIED").fail_open
    assert (
        plugin(plugin="fail_open: false, failure_policy: FAIL_CLOSED").failure_policy
        is FailurePolicy.FAIL_CLOSED
    )
    error = refused(filters=wasm("fail_open: true, failure_policy: FAIL_OPEN"))
    assert error.message == "only one of fail_open or failure_policy can be set"
    assert refused(filters=wasm("failure_policy: FAIL_OPNE")).suggestion == "FAIL_OPEN"


def test_reloading_has_its_back_off() -> None:
    found = read(filters=wasm("failure_policy: FAIL_RELOAD, reload_config: {backoff: {base_interval: 3s}}"))
    [one, _] = found.listeners[0].http.http_filters
    assert isinstance(one, WasmFilter)
    assert one.plugin.failure_policy is FailurePolicy.FAIL_RELOAD
    assert one.plugin.reload_base_interval == 3.0
    assert not found.warnings


def test_no_restriction_allows_everything() -> None:
    assert plugin(plugin="capability_restriction_config: {}").allowed_capabilities is None
    assert (
        plugin(plugin="capability_restriction_config: {allowed_capabilities: {}}").allowed_capabilities
        is None
    )


@pytest.mark.parametrize(
    "variables",
    ["{host_env_keys: [A], key_values: {A: b}}", "{host_env_keys: [A, A]}"],
)
def test_an_environment_variable_given_twice(variables: str) -> None:
    error = refused({"A": "x"}, filters=wasm(vm=f"environment_variables: {variables}"))
    assert error.message == "environment variable A is given twice"


def test_environment_values_are_text() -> None:
    assert (
        "put it in quotes" in refused(filters=wasm(vm="environment_variables: {key_values: {A: 1}}")).message
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (f'{{name: w, typed_config: {{"@type": {WASM}}}}}', "the wasm filter needs 'config'"),
        ("{name: envoy.filters.http.wasm}", "the wasm filter has no configuration"),
        ("{name: envoy.filters.http.wasm, typed_config: {}}", "the wasm filter has no configuration"),
        ("{name: envoy.filters.http.wasm, typed_config: {config: {}}}", "typed_config needs '@type'"),
        (
            '{name: w, typed_config: {"@type": x/udpa.type.v1.TypedStruct, config: {}}}',
            "unknown field 'config' in TypedStruct; the message's own fields belong under 'value'",
        ),
        (
            f'{{name: w, typed_config: {{"@type": x/udpa.type.v1.TypedStruct, type_url: {WASM}, value: x}}}}',
            "expected a mapping, found 'x'",
        ),
        (f'{{name: w, typed_config: {{"@type": {WASM}, confg: {{}}}}}}', "unknown field 'confg' in Wasm"),
        ("{name: w, typed_config: {}, config: {}}", "only one of typed_config and config can be set"),
    ],
)
def test_filters_that_are_refused(entry: str, message: str) -> None:
    assert refused(filters=f"[{entry}, {ROUTER_ENTRY}]").message == message


def test_an_unknown_plugin_field_names_line_path_and_suggestion() -> None:
    filters = wasm("root_idd: x")
    error = refused(filters=filters)
    assert error.line == line_of(bootstrap(filters=filters), "root_idd")
    assert error.path == (
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"
        ".config.root_idd"
    )
    assert (error.message, error.suggestion) == ("unknown field 'root_idd' in PluginConfig", "root_id")
