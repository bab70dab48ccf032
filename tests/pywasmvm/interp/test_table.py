"""Table and reference instructions as a guest sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import Func, TrapKind
from tests.support.instances import instance, trap

OUT = TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS

TEXT = """(module
  (table $x (export "x") 4 8 externref)
  (table $f (export "t") 3 funcref)
  (func $a (export "a")) (func $b (export "b"))
  (elem $e funcref (ref.func $a) (ref.null func) (ref.func $b))
  (elem $active (table $f) (i32.const 1) func $b)
  (elem $declared declare func $a)
  (func (export "read") (param i32) (result externref) local.get 0 table.get $x)
  (func (export "set") (param i32 externref) local.get 0 local.get 1 table.set $x)
  (func (export "size") (result i32) table.size $x)
  (func (export "grow") (param externref i32) (result i32) local.get 0 local.get 1 table.grow $x)
  (func (export "fill") (param i32 externref i32) local.get 0 local.get 1 local.get 2 table.fill $x)
  (func (export "copy") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 table.copy $x $x)
  (func (export "init") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 table.init $f $e)
  (func (export "again") (param i32) i32.const 0 i32.const 0 local.get 0 table.init $f $active)
  (func (export "declared") (param i32) i32.const 0 i32.const 0 local.get 0 table.init $f $declared)
  (func (export "drop") elem.drop $e)
  (func (export "null") (param externref) (result i32) local.get 0 ref.is_null)
  (func (export "ref") (result funcref) ref.func $b)
  (func (export "nothing") (result externref) ref.null extern))"""


def test_get_set_size() -> None:
    exports = instance(TEXT).exports
    thing = object()
    exports.set(2, thing)
    assert exports.read(2) is thing
    assert exports.x[2] is thing
    assert exports.read(0) is None
    assert exports.size() == 4
    for index in (4, 2**31, -1):
        assert trap(lambda at=index: exports.read(at)) is OUT  # type: ignore[misc]
        assert trap(lambda at=index: exports.set(at, None)) is OUT  # type: ignore[misc]


def test_any_python_object_is_an_externref_and_none_is_null() -> None:
    exports = instance(TEXT).exports
    things: list[object] = [0, "", False, 1.5, [], exports]
    for thing in things:
        assert exports.null(thing) == 0
    assert exports.null(None) == 1
    assert exports.nothing() is None
    assert exports.ref() is exports.b
    assert isinstance(exports.ref(), Func)


def test_growth() -> None:
    exports = instance(TEXT).exports
    assert exports.grow("new", 0) == 4
    assert exports.grow("new", 3) == 4
    assert [exports.read(index) for index in (3, 4, 6)] == [None, "new", "new"]
    assert exports.grow(None, 2) == -1
    assert exports.grow(None, -1) == -1
    assert exports.size() == 7
    assert exports.grow(None, 1) == 7


def test_fill() -> None:
    exports = instance(TEXT).exports
    exports.fill(1, "v", 2)
    assert list(exports.x) == [None, "v", "v", None]
    exports.fill(4, "v", 0)
    for index, count in ((3, 2), (5, 0), (0, 5), (2**32 - 1, 2)):
        assert trap(lambda at=index, n=count: exports.fill(at, "w", n)) is OUT  # type: ignore[misc]
    assert list(exports.x) == [None, "v", "v", None]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_copy_as_if_through_a_buffer(target: int, source: int, count: int) -> None:
    exports = instance(TEXT).exports
    for index, value in enumerate("abcd"):
        exports.x[index] = value
    if max(target, source) + count > 4:
        assert trap(lambda: exports.copy(target, source, count)) is OUT
        assert "".join(exports.x) == "abcd"
    else:
        exports.copy(target, source, count)
        expected = list("abcd")
        expected[target : target + count] = "abcd"[source : source + count]
        assert list(exports.x) == expected


def test_copy_between_tables() -> None:
    exports = instance("""(module
      (table $a (export "a") 3 externref) (table $b (export "b") 3 externref)
      (func (export "f") (param i32 i32 i32)
        local.get 0 local.get 1 local.get 2 table.copy $a $b))""").exports
    for index in range(3):
        exports.a[index], exports.b[index] = f"a{index}", f"b{index}"
    exports.f(0, 1, 2)
    assert list(exports.a) == ["b1", "b2", "a2"]
    assert list(exports.b) == ["b0", "b1", "b2"]


def test_init_and_drop() -> None:
    exports = instance(TEXT).exports
    assert list(exports.t) == [None, exports.b, None]
    exports.init(0, 0, 3)
    assert list(exports.t) == [exports.a, None, exports.b]
    for arguments in ((1, 0, 3), (0, 1, 3), (0, 4, 0), (4, 0, 0), (0, 2**32 - 1, 2)):
        assert trap(lambda given=arguments: exports.init(*given)) is OUT  # type: ignore[misc]
    exports.drop()
    exports.init(3, 0, 0)
    assert trap(lambda: exports.init(0, 0, 1)) is OUT


@pytest.mark.parametrize("name", ["again", "declared"])
def test_active_and_declarative_segments_are_dropped_at_once(name: str) -> None:
    exports = instance(TEXT).exports
    exports[name](0)
    assert trap(lambda: exports[name](1)) is OUT


def test_each_instance_drops_its_own_segments() -> None:
    first, second = instance(TEXT).exports, instance(TEXT).exports
    first.drop()
    second.init(0, 0, 3)
    assert second.t[0] is second.a
    assert second.a is not first.a


def test_globals_hold_references() -> None:
    exports = instance("""(module (func $f (export "f")) (elem declare func $f)
      (global (export "g") (mut funcref) (ref.func $f))
      (global (export "x") (mut externref) (ref.null extern))
      (func (export "set") (param externref) local.get 0 global.set 1)
      (func (export "clear") ref.null func global.set 0))""").exports
    assert exports.g.value is exports.f
    exports.clear()
    assert exports.g.value is None
    exports.set("thing")
    assert exports.x.value == "thing"
