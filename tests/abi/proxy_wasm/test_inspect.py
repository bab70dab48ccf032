"""What `pywasmvm inspect` can tell about a filter."""

from __future__ import annotations

from abi.proxy_wasm.inspect import describe
from pywasmvm import Module
from tests.support.wat import wat


def test_a_module_that_is_no_filter() -> None:
    assert describe(Module(wat("(module)"))) == {}


def test_a_filter() -> None:
    module = Module(
        wat(
            '(module (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))'
            f'(import "env" "proxy_http_call" (func (param {"i32 " * 10}) (result i32)))'
            '(import "wasi_unstable" "proc_exit" (func (param i32)))'
            '(func (export "proxy_abi_version_0_2_0")) (func (export "mine"))'
            '(func (export "proxy_on_tick") (param i32))'
            '(func (export "malloc") (param i32) (result i32) (i32.const 8)))'
        )
    )
    facts = describe(module)
    assert facts == {
        "abi_version": "0.2.0",
        "callbacks": ["proxy_on_tick", "malloc"],
        "host_calls": ["proxy_log", "proxy_http_call"],
        "wasi_calls": ["proc_exit"],
        "problems": [],
    }


def test_what_would_be_refused() -> None:
    module = Module(
        wat(
            '(module (import "env" "nope" (func)) (func (export "proxy_abi_version_0_2_0"))'
            '(func (export "proxy_on_tick")))'
        )
    )
    assert describe(module)["problems"] == [
        "Failed to load Wasm module due to a missing import: env.nope",
        "Bad function signature for: proxy_on_tick, want: i32 -> void, but the module exports: void -> void",
        "Wasm module is missing malloc function.",
    ]
