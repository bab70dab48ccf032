"""v128 values between host and guest."""

from __future__ import annotations

import pytest

from pywasmvm import Global, GlobalType, Memory
from pywasmvm.types import V128
from tests.support.instances import instance

TEXT = """(module (memory (export "memory") 1) (global (export "g") (mut v128) (v128.const i32x4 1 2 3 4))
  (func (export "same") (param v128) (result v128) (local.get 0))
  (func (export "store") (param i32 v128) (v128.store (local.get 0) (local.get 1)))
  (func (export "load") (param i32) (result v128) (v128.load (local.get 0)))
  (func (export "lane") (param v128) (result i32) (i32x4.extract_lane 1 (local.get 0))))"""

VALUE = 4 << 96 | 3 << 64 | 2 << 32 | 1


def test_a_vector_is_an_integer_or_sixteen_bytes() -> None:
    exports = instance(TEXT).exports
    assert exports.same(VALUE) == VALUE
    assert exports.same(VALUE.to_bytes(16, "little")) == VALUE
    assert exports.lane(VALUE) == 2
    assert exports.g.value == VALUE
    exports.g.value = bytes(range(16))
    assert exports.g.value == int.from_bytes(bytes(range(16)), "little")
    exports.store(32, VALUE)
    memory = exports.memory
    assert isinstance(memory, Memory)
    assert list(memory.view("<u4", 32, 4)) == [1, 2, 3, 4]
    assert exports.load(36) == VALUE >> 32


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, OverflowError), (1 << 128, OverflowError), (b"abc", TypeError)]
)
def test_what_is_no_vector(wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        instance(TEXT).exports.same(wrong)


def test_a_vector_global_starts_at_zero() -> None:
    assert Global(GlobalType(V128)).value == 0
