"""Instantiation: imports resolved and checked, segments written in order, start run, exports shared."""

from __future__ import annotations

import pytest

from pywasmvm import (
    Func,
    FuncType,
    Global,
    GlobalType,
    Instance,
    Limits,
    Linker,
    LinkError,
    Memory,
    MemoryType,
    Module,
    Store,
    Table,
    TableType,
    Trap,
    TrapKind,
)
from pywasmvm.types import EXTERNREF, FUNCREF, I32, I64
from tests.support.instances import instance, trap
from tests.support.wat import wat

PROVIDER = """(module
  (func (export "f") (param i32) (result i32) local.get 0)
  (memory (export "m") 2 5)
  (table (export "t") 3 6 funcref)
  (table (export "x") 3 externref)
  (global (export "c") i32 (i32.const 7))
  (global (export "v") (mut i64) (i64.const 8))
  (func (export "grow") i32.const 1 memory.grow drop ref.null func i32.const 2 table.grow 0 drop))"""

GOOD = [
    '(func (import "p" "f") (param i32) (result i32))',
    '(memory (import "p" "m") 2 5)',
    '(memory (import "p" "m") 1 9)',
    '(memory (import "p" "m") 0)',
    '(table (import "p" "t") 3 6 funcref)',
    '(table (import "p" "t") 0 funcref)',
    '(table (import "p" "x") 2 externref)',
    '(global (import "p" "c") i32)',
    '(global (import "p" "v") (mut i64))',
]

BAD = [
    '(func (import "p" "f") (param i64) (result i32))',
    '(func (import "p" "f") (param i32))',
    '(func (import "p" "m"))',
    '(func (import "p" "c"))',
    '(memory (import "p" "m") 3)',
    '(memory (import "p" "m") 2 4)',
    '(memory (import "p" "f") 1)',
    '(memory (import "p" "t") 1)',
    '(table (import "p" "t") 4 funcref)',
    '(table (import "p" "t") 3 5 funcref)',
    '(table (import "p" "t") 3 externref)',
    '(table (import "p" "x") 3 4 externref)',
    '(table (import "p" "m") 1 funcref)',
    '(global (import "p" "c") (mut i32))',
    '(global (import "p" "c") i64)',
    '(global (import "p" "v") i64)',
    '(global (import "p" "v") (mut i32))',
    '(global (import "p" "m") i32)',
]


def link(text: str, provider: Instance | None = None) -> Instance:
    provider = provider or instance(PROVIDER)
    return Instance(Module(wat(f"(module {text})")), {"p": provider.exports}, store=provider.store)


@pytest.mark.parametrize("text", GOOD)
def test_a_matching_import_links(text: str) -> None:
    assert isinstance(link(text), Instance)


@pytest.mark.parametrize("text", BAD)
def test_another_type_does_not(text: str) -> None:
    with pytest.raises(LinkError, match=r"^incompatible import type: p\.\w") as caught:
        link(text)
    assert caught.value.module == "p"
    assert caught.value.expected
    assert caught.value.found


def test_a_missing_import() -> None:
    with pytest.raises(
        LinkError, match=r"^unknown import: p\.nothing \(the module wants func \(i32 ->\)\)"
    ) as caught:
        link('(func (import "p" "nothing") (param i32))')
    assert (caught.value.module, caught.value.name) == ("p", "nothing")
    with pytest.raises(LinkError, match=r"unknown import: q\.f"):
        link('(func (import "q" "f"))')


def test_matching_looks_at_the_current_size() -> None:
    provider = instance(PROVIDER)
    for text in ('(memory (import "p" "m") 3)', '(table (import "p" "t") 5 funcref)'):
        with pytest.raises(LinkError):
            link(text, provider)
    provider.exports.grow()
    for text in ('(memory (import "p" "m") 3)', '(table (import "p" "t") 5 funcref)'):
        link(text, provider)


def test_what_is_imported_is_shared() -> None:
    provider = instance(PROVIDER)
    user = link(
        """(import "p" "m" (memory 2)) (import "p" "v" (global $v (mut i64)))
        (import "p" "t" (table 3 funcref)) (import "p" "f" (func $f (param i32) (result i32)))
        (export "m" (memory 0)) (export "v" (global $v)) (export "t" (table 0)) (export "f" (func $f))
        (func (export "write") i32.const 5 i32.const 42 i32.store8 i64.const 99 global.set $v
          i32.const 1 ref.func $f table.set 0)""",
        provider,
    )
    for name in "mvtf":
        assert user.exports[name] is provider.exports[name]
    user.exports.write()
    assert provider.exports.m.read(5, 1) == b"*"
    assert provider.exports.v.value == 99
    assert provider.exports.t[1] is provider.exports.f


def test_imports_made_by_the_host() -> None:
    store = Store()
    memory = Memory(MemoryType(Limits(1)), store)
    table = Table(TableType(EXTERNREF, Limits(2)), "init", store)
    counter = Global(GlobalType(I32, True), -5, store)
    text = """(module (import "h" "m" (memory 1)) (import "h" "t" (table 2 externref))
      (import "h" "g" (global (mut i32)))
      (func (export "f") (result externref) i32.const 0 global.get 0 i32.store
        i32.const 7 global.set 0 i32.const 1 table.get 0))"""
    guest = Instance(Module(wat(text)), {"h": {"m": memory, "t": table, "g": counter}})
    assert guest.store is store
    assert guest.exports.f() == "init"
    assert memory.read(0, 4) == b"\xfb\xff\xff\xff"
    assert counter.value == 7


def test_an_instance_lives_in_one_store() -> None:
    provider = instance(PROVIDER)
    with pytest.raises(ValueError, match="belongs to another store"):
        Instance(Module(wat('(module (memory (import "p" "m") 1))')), {"p": provider.exports}, store=Store())


def test_a_python_function_is_made_a_host_function() -> None:
    text = '(module (import "h" "add" (func $a (param i32 i32) (result i32))) (export "add" (func $a)))'
    guest = Instance(Module(wat(text)), {"h": {"add": lambda a, b: a + b}})
    assert guest.exports.add(2, -5) == -3
    with pytest.raises(LinkError, match=r"incompatible import type: h\.add .*found 5"):
        Instance(Module(wat(text)), {"h": {"add": 5}})  # type: ignore[dict-item]
    with pytest.raises(LinkError, match=r"incompatible import type: h\.m"):
        Instance(Module(wat('(module (memory (import "h" "m") 1))')), {"h": {"m": lambda: 0}})


class TestStart:
    TEXT = """(module (memory (export "memory") 1) (data (i32.const 0) "a")
      (func $start i32.const 0 i32.const 0 i32.load8_u i32.const 1 i32.add i32.store8) (start $start))"""

    def test_runs_after_the_segments_were_written(self) -> None:
        assert instance(self.TEXT).exports.memory.read(0, 1) == b"b"

    def test_can_be_put_off(self) -> None:
        guest = Instance(Module(wat(self.TEXT)), start=False)
        assert guest.exports.memory.read(0, 1) == b"a"
        guest.start()
        assert guest.exports.memory.read(0, 1) == b"b"
        Instance(Module(wat("(module)")), start=False).start()

    def test_a_trap_in_it_is_a_trap(self) -> None:
        with pytest.raises(Trap) as caught:
            instance("(module (func $boom unreachable) (start $boom))")
        assert caught.value.frames[0].func == "boom"

    def test_an_imported_function_may_be_it(self) -> None:
        called: list[int] = []
        linker = Linker()
        linker.define_func("h", "go", FuncType(), lambda: called.append(1))
        linker.instantiate(Module(wat('(module (import "h" "go" (func)) (start 0))')))
        assert called == [1]


class TestSegments:
    def test_globals_give_offsets_and_items(self) -> None:
        provider = instance(PROVIDER)
        user = link(
            """(import "p" "c" (global $c i32)) (import "p" "m" (memory 1))
            (global $f funcref (ref.func $g)) (func $g (export "g"))
            (table (export "t") 10 funcref)
            (elem (table 0) (global.get $c) funcref (global.get $f) (ref.null func) (ref.func $g))
            (data (global.get $c) "seven")""",
            provider,
        )
        assert provider.exports.m.read(6, 7) == b"\0seven\0"
        assert [index for index, item in enumerate(user.exports.t) if item is not None] == [7, 9]
        assert user.exports.t[7] is user.exports.g

    @pytest.mark.parametrize(
        ("segment", "kind"),
        [
            ('(data (i32.const 131070) "abc")', TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS),
            ('(data (i32.const -1) "")', TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS),
            ("(elem (i32.const 2) func $f $f)", TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS),
            ("(elem (i32.const 4) func)", TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS),
        ],
    )
    def test_one_that_does_not_fit_traps(self, segment: str, kind: TrapKind) -> None:
        text = f'(import "p" "m" (memory 2)) (import "p" "t" (table 3 funcref)) (func $f) {segment}'
        assert trap(lambda: link(text)) is kind

    def test_empty_ones_may_stand_at_the_end(self) -> None:
        link("""(import "p" "m" (memory 2)) (import "p" "t" (table 3 funcref))
          (data (i32.const 131072) "") (elem (i32.const 3) func)""")

    def test_what_was_written_before_a_trap_stays(self) -> None:
        provider = instance(PROVIDER)
        text = """(import "p" "m" (memory 2)) (import "p" "t" (table 3 funcref))
          (func $f (result i32) i32.const 77)
          (elem (i32.const 1) func $f)
          (data (i32.const 3) "kept") (data (i32.const 131070) "lost") (data (i32.const 0) "not")"""
        assert trap(lambda: link(text, provider)) is TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS
        assert provider.exports.m.read(0, 8) == b"\0\0\0kept\0"
        assert not provider.exports.m.data[131070:].any()
        assert provider.exports.t[1]() == 77  # the function outlives its failed module


class TestExports:
    TEXT = """(module (memory (export "mem") 1) (func (export "add-one"))
      (global (export "keys") i32 (i32.const 1)))"""

    def test_are_a_mapping_in_section_order(self) -> None:
        exports = instance(self.TEXT).exports
        assert list(exports) == ["mem", "add-one", "keys"]
        assert len(exports) == 3
        assert "mem" in exports
        assert "other" not in exports
        assert exports.get("other") is None
        assert isinstance(exports["add-one"], Func)
        assert isinstance(exports["keys"], Global)  # also where an attribute would be something else
        assert isinstance(exports.mem, Memory)
        with pytest.raises(KeyError):
            exports["other"]

    def test_a_missing_attribute_names_what_there_is(self) -> None:
        with pytest.raises(
            AttributeError, match="no export named 'other'; the module exports mem, add-one, keys"
        ):
            instance(self.TEXT).exports.other  # noqa: B018
        with pytest.raises(AttributeError, match="the module exports nothing"):
            instance("(module)").exports.other  # noqa: B018
        with pytest.raises(AttributeError):
            instance(self.TEXT).exports.__nothing__  # noqa: B018

    def test_representations_are_readable(self) -> None:
        guest = instance(self.TEXT.replace("(module", "(module $app"))
        assert repr(guest) == "<Instance of app>"
        assert repr(guest.exports) == "<Exports: mem, add-one, keys>"
        assert repr(guest.exports.mem) == "<Memory of 1 pages>"
        assert repr(guest.exports["keys"]) == "<Global global i32: 1>"
        assert repr(guest.exports["add-one"]) == "<WasmFunc add-one: ->>"
        assert repr(Table(TableType(FUNCREF, Limits(3)))) == "<Table of 3 funcref>"


def test_every_instance_has_its_own_state() -> None:
    text = """(module (memory (export "m") 1) (table (export "t") 1 externref)
      (global $g (mut i64) (i64.const 0))
      (func (export "next") (result i64) global.get $g i64.const 1 i64.add global.set $g global.get $g))"""
    module = Module(wat(text))
    first, second = Instance(module), Instance(module)
    assert [first.exports.next(), first.exports.next(), second.exports.next()] == [1, 2, 1]
    assert first.exports.m is not second.exports.m
    first.exports.t[0] = "x"
    assert second.exports.t[0] is None
    assert GlobalType(I64, True) == module.context.globals[0]
