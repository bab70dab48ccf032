"""Functions, tables, globals and stores from the host's side."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pywasmvm import (
    Func,
    FuncType,
    Global,
    GlobalType,
    Limits,
    Linker,
    Module,
    Store,
    StoreLimits,
    Table,
    TableType,
    Trap,
    TrapKind,
)
from pywasmvm.numerics.bits import F32NaN
from pywasmvm.types import EXTERNREF, F32, F64, FUNCREF, I32, I64
from tests.support.instances import instance, trap
from tests.support.wat import wat


class TestFunc:
    IDENTITY = "".join(
        f'(func (export "{t}") (param {t}) (result {t}) local.get 0)'
        for t in ("i32", "i64", "f32", "f64", "funcref", "externref")
    )

    @pytest.fixture
    def exports(self) -> object:
        return instance(f"(module {self.IDENTITY})").exports

    @pytest.mark.parametrize("value", [0, 1, -1, 2**31 - 1, -(2**31), True, np.int64(-7), np.uint8(200)])
    def test_integers(self, exports: dict[str, Func], value: int) -> None:
        assert exports["i32"](value) == int(value)
        assert exports["i64"](value) == int(value)
        assert type(exports["i64"](value)) is int

    def test_integers_out_of_range(self, exports: dict[str, Func]) -> None:
        assert exports["i32"](2**32 - 1) == -1
        assert exports["i64"](2**64 - 1) == -1
        for name, value in (("i32", 2**32), ("i32", -(2**31) - 1), ("i64", 2**64), ("i64", -(2**63) - 1)):
            with pytest.raises(OverflowError, match=f"does not fit in an {name}"):
                exports[name](value)

    @pytest.mark.parametrize("value", [1.0, "1", None, b"1"])
    def test_what_is_not_an_integer(self, exports: dict[str, Func], value: object) -> None:
        with pytest.raises((TypeError, AttributeError)):
            exports["i32"](value)

    def test_floats(self, exports: dict[str, Func]) -> None:
        assert exports["f64"](0.1) == 0.1
        assert exports["f64"](3) == 3.0
        assert type(exports["f64"](3)) is float
        assert exports["f32"](0.1) == np.float32(0.1)
        assert exports["f32"](2) == 2.0
        nan = exports["f32"](F32NaN(0x7FA00001))
        assert nan.bits == 0x7FA00001
        with pytest.raises((TypeError, ValueError)):
            exports["f64"]("one")

    def test_references(self, exports: dict[str, Func]) -> None:
        thing = object()
        assert exports["externref"](thing) is thing
        assert exports["funcref"](exports["i32"]) is exports["i32"]
        assert exports["funcref"](None) is None
        with pytest.raises(TypeError, match="is no funcref"):
            exports["funcref"](print)

    def test_the_number_of_arguments_is_checked(self, exports: dict[str, Func]) -> None:
        for args in ((), (1, 2)):
            with pytest.raises(TypeError, match=r"i32 takes 1 arguments \(i32 -> i32\)"):
                exports["i32"](*args)
            with pytest.raises(TypeError, match="i32 takes 1 arguments"):
                exports["i32"].raw(*args)

    def test_raw_calls_do_not_convert(self, exports: dict[str, Func]) -> None:
        assert exports["i32"].raw(2**32 - 1) == 2**32 - 1
        both = instance('(module (func (export "f") (result i32 i64) i32.const -1 i64.const -1))').exports.f
        assert both.raw() == (2**32 - 1, 2**64 - 1)
        assert both() == (-1, -1)
        assert instance('(module (func (export "f")))').exports.f.raw() is None

    def test_equal_types_are_one_object(self, exports: dict[str, Func]) -> None:
        other = instance('(module (func (export "f") (param i32) (result i32) local.get 0))').exports.f
        assert other.type is exports["i32"].type
        assert str(other.type) == "i32 -> i32"

    def test_a_host_function_called_by_the_host(self) -> None:
        linker = Linker()
        host = linker.define_func("env", "f", FuncType.parse("i32 -> i64"), lambda a: a + 1)
        assert host(-1) == 2**32
        assert host.raw(2**32 - 1) == 2**32
        assert repr(host) == "<HostFunc env.f: i32 -> i64>"
        two = linker.define_func("env", "g", FuncType.parse("-> i32 i32"), lambda: (1, -1))
        assert two() == (1, -1)
        assert two.raw() == (1, 2**32 - 1)
        with_caller = linker.define_func("env", "h", FuncType(), lambda caller: None, caller=True)
        assert with_caller() is None


class TestTable:
    def test_from_the_host(self) -> None:
        table = Table(TableType(EXTERNREF, Limits(2, 4)), "v")
        assert list(table) == ["v", "v"]
        table[1] = "w"
        assert table[1] == "w"
        assert len(table) == 2
        assert table.grow(2, "x") == 2
        assert list(table) == ["v", "w", "x", "x"]
        assert table.type == TableType(EXTERNREF, Limits(4, 4))
        with pytest.raises(MemoryError, match="a table of 4 elements cannot grow by 1"):
            table.grow(1)
        for index in (4, -1):
            assert trap(lambda at=index: table[at]) is TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS  # type: ignore[misc]
            with pytest.raises(Trap):
                table[index] = None

    def test_a_table_of_functions_holds_functions(self) -> None:
        table = Table(TableType(FUNCREF, Limits(1)))
        table[0] = instance('(module (func (export "f")))').exports.f
        table[0] = None
        with pytest.raises(TypeError, match="is no funcref"):
            table[0] = "f"

    def test_no_table_is_larger_than_its_index_space(self) -> None:
        table = Table(TableType(FUNCREF, Limits(1)))
        assert table.try_grow(2**32 - 1, None) == -1

    def test_growth_that_the_machine_refuses_is_given_back(self) -> None:
        store = Store(limits=StoreLimits(table_elements=None))
        table = Table(TableType(FUNCREF, Limits(1)), None, store)

        class Refusing(list):
            def __iadd__(self, other: object) -> object:  # type: ignore[misc,override]
                raise MemoryError

        table.elements = Refusing(table.elements)
        assert table.try_grow(1000, None) == -1
        assert store.elements == 1


class TestGlobal:
    def test_values_are_converted(self) -> None:
        counter = Global(GlobalType(I32, True), 2**32 - 1)
        assert counter.value == -1
        counter.value = -2
        assert counter.raw == 2**32 - 2
        with pytest.raises(OverflowError):
            counter.value = 2**32
        assert Global(GlobalType(I64, True)).value == 0
        assert Global(GlobalType(F64)).value == 0.0
        assert Global(GlobalType(F32), 0.1).value == np.float32(0.1)
        assert Global(GlobalType(EXTERNREF)).value is None

    def test_an_immutable_one_cannot_be_set(self) -> None:
        constant = Global(GlobalType(I32), 3)
        with pytest.raises(TypeError, match="immutable"):
            constant.value = 4
        assert constant.value == 3


class TestStore:
    def test_belongs_to_one_thread_while_it_runs(self) -> None:
        errors: list[BaseException] = []
        text = '(module (import "env" "h" (func $h)) (func (export "f") call $h) (func (export "g")))'

        def elsewhere() -> None:
            try:
                made.exports.g()
            except RuntimeError as error:
                errors.append(error)

        def host() -> None:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

        linker = Linker()
        linker.define_func("env", "h", FuncType(), host)
        made = linker.instantiate(Module(wat(text)))
        made.exports.f()
        assert "running in another thread" in str(errors[0])
        thread = threading.Thread(target=made.exports.g)  # but may change hands between calls
        thread.start()
        thread.join()
        assert made.exports.g() is None

    def test_a_store_survives_whatever_a_call_raised(self) -> None:
        text = """(module (import "env" "h" (func $h))
          (func (export "f") call $h) (func (export "g") unreachable))"""
        guest = instance(text, {"env": {"h": lambda: 1 / 0}})
        for _ in range(300):  # more often than calls may nest
            with pytest.raises(ZeroDivisionError):
                guest.exports.f()
            assert trap(guest.exports.g) is TrapKind.UNREACHABLE
        assert guest.store.depth == 0
