"""A thousand damaged binaries: only documented errors, and the verdict of another validator on each.

Bytes of good modules are flipped, cut, doubled, moved; what comes out is malformed, invalid or still valid.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from pywasmvm import InvalidError, MalformedError, Module
from tests.pywasmvm.binary.test_malformed import CASES
from tests.support.smith import smith
from tests.support.wat import wat

SMALL = [
    wat("""(module (type (func (param i32) (result i32))) (import "m" "f" (func (type 0)))
      (table 2 3 funcref) (memory 1 2) (global (mut i64) (i64.const 5)) (export "e" (func 1)) (start 2)
      (elem (i32.const 0) func 1) (data "abc")
      (func (type 0) (local f32 f64) local.get 0 if (result i32) i32.const 1 else i32.const 2 end
        i32.const 0 call_indirect (type 0))
      (func block loop br 1 end end i32.const 0 i32.const 0 i32.const 1 memory.init 0 data.drop 0)
      (func (result i32 i64) i32.const 1 i64.const 2 i32.const 0 br_table 0 0))"""),
    wat("""(module (table 1 externref) (func (param externref) (result i32) local.get 0 ref.is_null)
      (func (result f32) f32.const 1 f32.const 2 i32.const 0 select f32.sqrt)
      (func i32.const 0 i64.load offset=8 drop i32.const 0 f64.const 1 f64.store align=4) (memory 0))"""),
]


def damaged(seed: int) -> bytes:
    """A module with one to three faults."""
    source = random.Random(seed)
    data = bytearray(source.choice(SMALL) if seed % 2 else smith(seed % 20))
    for _ in range(source.choice([1, 1, 1, 2, 3])):
        place = source.randrange(8 if seed % 10 else 0, len(data))
        other = source.randrange(len(data))
        match source.randrange(7):
            case 0:
                data[place] ^= 1 << source.randrange(8)
            case 1:
                data[place] = source.randrange(256)
            case 2:
                data[place] = source.choice([0x00, 0x0B, 0x40, 0x7F, 0x80, 0xFF, 0xFC, 0x05, 0x70])
            case 3:
                del data[place : place + source.randrange(1, 5)]
            case 4:
                data[place:place] = source.randbytes(source.randrange(1, 4))
            case 5:
                data[place] = data[other]
            case _:
                data[place : place + 4] = data[other : other + 4]
    return bytes(data)


def verdict(data: bytes) -> str:
    try:
        Module(data)
    except MalformedError as error:
        if error.offset is None or not 0 <= error.offset <= len(data):
            raise AssertionError(f"no place in {error!r}") from error
        return "malformed"
    except InvalidError as error:
        if not str(error):
            raise AssertionError("no message") from error
        return "invalid"
    return "valid"


@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_only_documented_errors(first: int) -> None:
    found = {verdict(damaged(seed)) for seed in range(first, first + 50)}
    assert "malformed" in found


@pytest.fixture(scope="module")
def other() -> Any:
    """Another validator with the features that we have and no more."""
    wasmtime = pytest.importorskip("wasmtime")
    config = wasmtime.Config()
    for feature in ("gc", "function_references", "exceptions", "tail_call", "memory64", "multi_memory"):
        setattr(config, f"wasm_{feature}", True)
    for feature in ("simd", "relaxed_simd"):
        setattr(config, f"wasm_{feature}", True)
    for feature in ("threads", "wide_arithmetic", "custom_page_sizes", "stack_switching"):
        setattr(config, f"wasm_{feature}", False)
    engine = wasmtime.Engine(config)

    def accepts(data: bytes) -> bool:
        try:
            wasmtime.Module.validate(engine, data)
        except wasmtime.WasmtimeError:
            return False
        return True

    return accepts


@pytest.mark.wasmtime
@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_same_verdict_as_another_validator(first: int, other: Any) -> None:
    differing = [
        seed
        for seed in range(first, first + 50)
        if (verdict(damaged(seed)) == "valid") != other(damaged(seed))
    ]
    assert not differing


@pytest.mark.wasmtime
@pytest.mark.parametrize("case", CASES)
def test_another_validator_agrees_on_what_is_malformed(case: str, other: Any) -> None:
    assert not other(CASES[case][0])


@pytest.mark.wasmtime
def test_another_validator_accepts_the_originals(other: Any) -> None:
    for data in (*SMALL, *(smith(seed) for seed in range(20))):
        assert verdict(data) == "valid"
        assert other(data)
