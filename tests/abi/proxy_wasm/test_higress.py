"""Real Go filters of Higress (ABI 0.2.100): instantiate, initialise, configure, handle a request."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.inspect import describe
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.types import Action
from pywasmvm import Module, StoreLimits

pytestmark = [pytest.mark.higress, pytest.mark.slow]

FILTERS = [
    (
        "gpustack-set-header-pre-route",
        b'{"routeNameHeader":"x-route","clusterNameHeader":"x-cluster"}',
        [],
    ),
    ("gpustack-ip-acl", b'{"allow":["127.0.0.1"]}', []),
    (
        "transformer",
        b'{"reqRules":[{"operate":"add","headers":[{"key":"X-added","value":"1"}]}]}',
        [(b"x-added", b"1")],
    ),
]


def code(name: str) -> bytes:
    spec = importlib.util.find_spec("gpustack_higress_plugins")
    assert spec is not None
    assert spec.origin is not None
    [path] = Path(spec.origin).parent.glob(f"plugins/{name}/*/plugin.wasm")
    return path.read_bytes()


@pytest.mark.parametrize(("name", "config", "added"), FILTERS, ids=[name for name, *_ in FILTERS])
def test_a_go_filter_starts_and_handles_a_request(
    name: str, config: bytes, added: list[tuple[bytes, bytes]]
) -> None:
    host = MemoryHost()
    plugin = Plugin(code(name), config=config, host=host, start_limits=StoreLimits(seconds=120))
    assert str(plugin.vm.version) == "0.2.100"
    assert any("plugin start successfully" in record.message for record in host.records)
    before = [(b":authority", b"a"), (b":path", b"/"), (b":method", b"GET"), (b"x-key", b"1")]
    headers = HeaderMap(before)
    with plugin.http_stream() as stream:
        assert stream.on_request_headers(headers, True) is Action.CONTINUE
    assert sorted(headers.lines) == sorted(before + added)
    assert list(host.errors) == []


def test_a_go_filter_refuses_a_configuration_and_says_why() -> None:
    from abi.proxy_wasm.failures import CONFIGURE_FAILED, PluginStartError

    host = MemoryHost()
    with pytest.raises(PluginStartError) as caught:
        Plugin(code("transformer"), config=b"{}", host=host, start_limits=StoreLimits(seconds=120))
    assert caught.value.reason == CONFIGURE_FAILED
    assert any("rule not exist" in record.message for record in host.records)


def test_what_inspect_tells_of_it() -> None:
    facts = describe(Module(code("transformer"), validate="lazy"))
    assert facts["abi_version"] == "0.2.100"
    assert facts["problems"] == []
    assert "proxy_on_redis_call_response" in facts["callbacks"]  # type: ignore[operator]
    assert "fd_write" in facts["wasi_calls"]  # type: ignore[operator]
