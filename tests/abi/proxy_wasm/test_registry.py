"""`VmRegistry`: who shares a VM, who shares a root context."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.registry import VmRegistry
from pywasmvm import Module
from tests.support.wat import wat


def code(more: str = "") -> bytes:
    return wat(
        '(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))'
        '(func (export "malloc") (param i32) (result i32) (i32.const 1024))'
        f'(func (export "proxy_on_tick") (param i32) unreachable) {more})'
    )


BASE: dict[str, Any] = {"name": "a", "root_id": "r", "config": b"c", "vm_id": "V", "vm_config": b"vc"}


@pytest.mark.parametrize(
    ("change", "same_vm", "same_root"),
    [
        ({}, True, True),
        ({"root_id": "other"}, True, False),
        ({"config": b"other"}, True, False),
        ({"name": "other"}, True, False),
        ({"allow_on_headers_stop_iteration": True}, True, False),
        ({"vm_config": b"other"}, False, False),
        ({"vm_id": "other"}, False, False),
    ],
)
def test_what_is_shared(change: dict[str, Any], same_vm: bool, same_root: bool) -> None:
    registry = VmRegistry()
    first = registry.plugin(code(), **BASE)
    second = registry.plugin(code(), **{**BASE, **change})
    assert (first.vm is second.vm) is same_vm
    assert (first is second) is same_root
    assert second.root.id == (1 if same_root or not same_vm else 2)
    assert len(registry.vms) == 2 - same_vm
    assert len(registry.plugins) == 2 - same_root


def test_other_code_is_another_vm() -> None:
    registry = VmRegistry()
    other = code('(func (export "x"))')
    assert registry.plugin(code(), **BASE).vm is not registry.plugin(other, **BASE).vm


def test_a_decoded_module_is_its_own_identity() -> None:
    registry, module = VmRegistry(), Module(code())
    assert registry.plugin(module, **BASE) is registry.plugin(module, **BASE)
    assert registry.plugin(module, **BASE) is not registry.plugin(Module(code()), **BASE)


def test_a_dead_vm_is_replaced_for_all_its_plugins() -> None:
    registry = VmRegistry()
    first = registry.plugin(code(), **BASE)
    second = registry.plugin(code(), **{**BASE, "name": "b"})
    with pytest.raises(PluginFailure):
        first.tick()
    assert second.failed
    fresh = registry.plugin(code(), **{**BASE, "name": "b"})
    assert fresh is not second
    assert not fresh.failed
    assert registry.plugin(code(), **BASE).vm is fresh.vm
    assert registry.vms == [fresh.vm]


def test_a_forgotten_vm_lives_on_for_its_users() -> None:
    registry = VmRegistry()
    first = registry.plugin(code(), **BASE)
    registry.forget(first.vm)
    assert registry.plugin(code(), **BASE) is not first
    assert not first.failed


def test_refused_plugins_are_not_kept() -> None:
    refusing = code('(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))')
    registry = VmRegistry()
    with pytest.raises(PluginStartError):
        registry.plugin(refusing, **BASE)
    assert registry.vms == []
    assert registry.plugins == []


def test_closing() -> None:
    registry = VmRegistry()
    plugin = registry.plugin(code(), **BASE)
    assert registry.close() is True
    assert plugin.closed
    again = registry.plugin(code(), **BASE)
    assert again is not plugin
    waiting = code('(func (export "proxy_on_done") (param i32) (result i32) (i32.const 0))')
    registry.plugin(waiting, **BASE)
    assert registry.close() is False
