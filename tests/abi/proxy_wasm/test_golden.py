"""Start-up as recorded on Envoy, and the story's filter through its whole life, without a proxy.

The golden cases are replayed in full against the proxy (tests/replay); here the ABI layer alone meets those
that are about it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from abi.proxy_wasm.failures import PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import LogRecord, MemoryHost
from abi.proxy_wasm.plugin import Plugin
from tests.replay import modules
from tests.replay.cases import GOLDEN, Case, load

EXAMPLE = Path(__file__).parents[3] / "examples" / "add-header" / "add-header.wasm"


def golden(record: LogRecord) -> dict[str, str]:
    return {"level": record.level.name.lower(), "prefix": record.prefix, "message": record.message}


def text(configuration: dict[str, Any] | None) -> bytes | None:
    """The bytes of a simple configuration; None when it is not one."""
    if configuration is None:
        return b""
    kind, value = configuration["@type"].rpartition(".")[2], configuration.get("value")
    if kind == "StringValue":
        return str(value).encode()
    if kind == "BytesValue":
        return base64.b64decode(str(value))
    return b"" if value == {} else None


def of_this_layer(case: Case) -> bool:
    """Runtimes and configurations of other types are decided above."""
    return all(
        not given.get("runtime") and text(given.get("configuration")) is not None
        for given in case.data["filters"]
    )


STARTUP = [
    case for name in ("startup", "seed") for case in load(GOLDEN / f"{name}.json") if of_this_layer(case)
]


@pytest.mark.npm
@pytest.mark.parametrize("case", STARTUP, ids=lambda case: case.name)
def test_start_up(case: Case) -> None:
    host, errors, started = MemoryHost(), [], True
    plugins: dict[tuple[Any, ...], Plugin] = {}
    for given in case.data["filters"]:
        config, vm_config = [text(given.get(k)) or b"" for k in ("configuration", "vm_configuration")]
        code = (modules.build() / f"{given['wasm']}.wasm").read_bytes()
        key = (given["wasm"], given.get("vm_id"), vm_config)
        names = {"name": given.get("name", ""), "root_id": given.get("root_id", ""), "config": config}
        try:
            if key in plugins:
                Plugin(plugins[key].vm, **names)
            else:
                plugins[key] = Plugin(
                    code,
                    **names,
                    vm_id=given.get("vm_id", ""),
                    vm_config=vm_config,
                    environment=given.get("environment_variables"),
                    host=host,
                    fail_open=given.get("fail_open", False),
                )
        except PluginStartError as error:
            started, errors = False, error.host_errors
    expected = case.data["expect"]
    assert started is expected["started"]
    assert errors == expected.get("host_errors", [])
    assert [golden(record) for record in host.records] == expected.get("startup_log", [])


@pytest.mark.npm
@pytest.mark.parametrize("config", [b"", b"x", b"{}"])
def test_the_articles_filter(config: bytes) -> None:
    # Its SDK is the one that passes a size where an address belongs.
    live(modules.build() / "seed.wasm", config, b"trendyol!")


@pytest.mark.parametrize("config", [b"", b"x", b"{}"])
def test_the_storys_filter(config: bytes) -> None:
    live(EXAMPLE, config, config or b"trendyol!")


def live(path: Path, config: bytes, value: bytes) -> None:
    """A whole life: start, two exchanges, the end."""
    plugin = Plugin.from_file(path, name="add_header", root_id="add_header", vm_id="my_vm_id", config=config)
    for context in (2, 3):
        first = len(plugin.logs)
        with plugin.http_stream() as stream:
            request = HeaderMap(
                [(":authority", "a"), (":path", "/"), (":method", "GET"), (":scheme", "http")]
            )
            stream.on_request_headers(request, True)
            response = HeaderMap([(":status", "200"), ("date", "now")])
            stream.on_response_headers(response, False)
            stream.on_response_body(bytearray(b"Hello World!"), True)
        assert response.lines == [(b":status", b"200"), (b"date", b"now"), (b"hi", value)]
        lines = [golden(record) for record in plugin.logs[first:]]
        assert [line["message"] for line in lines[-3:]] == [
            f"context id: {context}: {name}()" for name in ("onLog", "onDone", "onDelete")
        ]
        assert {(line["level"], line["prefix"]) for line in lines} == {
            ("debug", "add_header add_header my_vm_id")
        }
    assert plugin.close() is True


def test_the_storys_filter_refuses_a_root_id_it_does_not_know() -> None:
    with pytest.raises(PluginStartError) as caught:
        Plugin(EXAMPLE.read_bytes(), name="add_header", root_id="nope", config=b"x")
    [case] = [case for case in STARTUP if case.name == "seed_wrong_root"]
    assert caught.value.host_errors == case.data["expect"]["host_errors"]
