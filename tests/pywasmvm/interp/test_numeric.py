"""Every numeric instruction through a module: its code in the table runs the function of its name.

What the functions compute is tested in tests/pywasmvm/numerics; here only that decoder, validator and
interpreter agree on which instruction is which, and that NaN bits survive every way through the machine.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import Instance, Module, Trap
from pywasmvm.numerics import function
from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from tests.support.instances import instance
from tests.support.numeric import EDGES, INSTRUCTIONS, bits, operand, patterns
from tests.support.wat import wat


@pytest.fixture(scope="module")
def all_instructions() -> Instance:
    functions = "".join(
        f'(func (export "{name}") (param {" ".join(params)}) (result {result})'
        f"{''.join(f' local.get {n}' for n in range(len(params)))} {name})\n"
        for name, (params, result) in INSTRUCTIONS.items()
    )
    return Instance(Module(wat(f"(module {functions})")))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_instruction_runs_its_function(name: str, all_instructions: Instance) -> None:
    params, result = INSTRUCTIONS[name]
    source = random.Random(name)
    run, compute = all_instructions.exports[name], function(name)
    for _ in range(40):
        values = [operand(type_, source.choice(EDGES[type_])) for type_ in params]
        try:
            expected = bits(result, compute(*values))
        except Trap as error:
            with pytest.raises(Trap, match=error.message):
                run.raw(*values)
        else:
            assert bits(result, run.raw(*values)) == expected


NAN_PATHS = """(module
  (memory 1) (table 1 funcref)
  (type $t (func (param TYPE) (result TYPE)))
  (global $g (mut TYPE) (TYPE.const 0))
  (global $c TYPE (TYPE.const nan:PAYLOAD))
  (func $id (export "id") (type $t) local.get 0)
  (elem (i32.const 0) $id)
  (func (export "load") (param INT) (result TYPE)
    i32.const 8 local.get 0 INT.store i32.const 8 TYPE.load)
  (func (export "store") (param TYPE) (result INT)
    i32.const 8 local.get 0 TYPE.store i32.const 8 INT.load)
  (func (export "copy") (param INT) (result INT)
    i32.const 0 local.get 0 INT.store
    i32.const 11 i32.const 0 TYPE.load TYPE.store offset=1
    i32.const 12 INT.load)
  (func (export "local") (param TYPE) (result TYPE) (local TYPE)
    local.get 0 local.tee 1 local.set 0 local.get 1)
  (func (export "global") (param TYPE) (result TYPE) local.get 0 global.set $g global.get $g)
  (func (export "select") (param TYPE) (result TYPE) local.get 0 TYPE.const 1 i32.const 1 select)
  (func (export "call") (param TYPE) (result TYPE) local.get 0 call $id)
  (func (export "indirect") (param TYPE) (result TYPE) local.get 0 i32.const 0 call_indirect (type $t))
  (func (export "block") (param TYPE) (result TYPE)
    block (result TYPE) i32.const 9 local.get 0 br 0 end)
  (func (export "reinterpret") (param TYPE) (result TYPE)
    local.get 0 INT.reinterpret_TYPE TYPE.reinterpret_INT)
  (func (export "const") (result INT) TYPE.const -nan:PAYLOAD INT.reinterpret_TYPE)
  (func (export "initial") (result INT) global.get $c INT.reinterpret_TYPE))"""

VALUE_PATHS = ["id", "local", "global", "select", "call", "indirect", "block", "reinterpret"]


def nan_paths(type_: str) -> Instance:
    payload = "0x200001" if type_ == "f32" else "0x4000000000001"
    text = NAN_PATHS.replace("TYPE", type_).replace("INT", f"i{type_[1:]}").replace("PAYLOAD", payload)
    return instance(text)


@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_no_bit_changes_on_any_way_through_the_machine(type_: str) -> None:
    exports = nan_paths(type_).exports
    from_bits, to_bits = (f32_from_bits, f32_to_bits) if type_ == "f32" else (f64_from_bits, f64_to_bits)

    @given(patterns(type_))
    def check(pattern: int) -> None:
        value = from_bits(pattern)
        for path in VALUE_PATHS:
            assert to_bits(exports[path].raw(value)) == pattern, path
        assert to_bits(exports.load.raw(pattern)) == pattern
        assert exports.store.raw(value) == pattern
        assert exports.copy.raw(pattern) == pattern

    check()
    for pattern in EDGES[type_]:
        check.hypothesis.inner_test(pattern)  # type: ignore[attr-defined]


def test_payloads_written_in_the_module() -> None:
    narrow, wide = nan_paths("f32").exports, nan_paths("f64").exports
    assert narrow.const.raw() == 0xFFA00001
    assert narrow.initial.raw() == 0x7FA00001
    assert wide.const.raw() == 0xFFF4000000000001
    assert wide.initial.raw() == 0x7FF4000000000001


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1))
def test_arguments_signed_or_unsigned_give_signed_results(a: int, b: int) -> None:
    exports = _IDENTITIES.exports
    assert exports.i64(a) == exports.i64(a % 2**64) == a
    signed = b - 2**32 if b >= 2**31 else b
    assert exports.i32(b) == exports.i32(signed) == signed


_IDENTITIES = instance("""(module
  (func (export "i32") (param i32) (result i32) local.get 0)
  (func (export "i64") (param i64) (result i64) local.get 0))""")
