"""`Snapshot`: state survives the way through bytes, what cannot be kept is refused; hostile bytes."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import (
    Func,
    FuncType,
    Global,
    GlobalType,
    HostFunc,
    Instance,
    Linker,
    Module,
    Snapshot,
    SnapshotError,
    Store,
    StoreLimits,
    Trap,
)
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits
from pywasmvm.runtime.gc import I31
from pywasmvm.runtime.memory import PAGE
from pywasmvm.runtime.snapshot import BLOCK, MAGIC, VERSION, SavedMemory, SavedTable
from pywasmvm.types import I32

ENGINES = ("interp", "translate", "auto")


def through_bytes(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, read again."""
    again = Snapshot.from_bytes(snapshot.to_bytes())
    assert again == snapshot
    return again


def revived(instance: Instance, store: Store | None = None, **imports: Any) -> Instance:
    """Another instance, begun as this one is now."""
    return Instance(instance.module, imports, store=store, snapshot=through_bytes(Snapshot.take(instance)))


#: Everything a snapshot holds: memories of both widths, globals of all types, tables, segments.
TEXT = """(module
  (memory $m (export "m") 2 9) (memory $n (export "n") 0) (memory $w (export "w") i64 1 3)
  (global $a (export "a") (mut i32) (i32.const 1)) (global $b (export "b") (mut i64) (i64.const 2))
  (global $c (export "c") (mut f32) (f32.const 3)) (global $d (export "d") (mut f64) (f64.const 4))
  (global $e (export "e") (mut v128) (v128.const i64x2 5 6))
  (global $f (export "f") (mut funcref) (ref.null func))
  (global $i (export "i") (mut anyref) (ref.null any)) (global $x (mut externref) (ref.null extern))
  (global $k (export "k") i32 (i32.const 77))
  (table $t (export "t") 4 20 funcref) (table $u (export "u") 2 i31ref)
  (elem (table $t) (i32.const 1) func $one $two) (elem $p func $two $one) (elem $q func $one)
  (elem declare func $one)
  (data $s (memory $m) (i32.const 70000) "segment") (data $y "passive") (data $z "dropped")
  (global $started (export "started") (mut i32) (i32.const 0))
  (func $one (export "one") (result i32) (i32.const 1))
  (func $two (export "two") (result i32) (i32.const 2))
  (func $start (global.set $started (i32.add (global.get $started) (i32.const 1))))
  (start $start)
  (func (export "init")
    (data.drop $z) (elem.drop $q)
    (drop (memory.grow $m (i32.const 3))) (drop (memory.grow $w (i64.const 1)))
    (i32.store $m (i32.const 300000) (i32.const 0x12345678))
    (i64.store $w (i64.const 131064) (i64.const -1))
    (i32.store8 $m (i32.const 70000) (i32.const 83))
    (drop (table.grow $t (ref.func $two) (i32.const 3))) (table.set $t (i32.const 1) (ref.null func))
    (table.set $u (i32.const 1) (ref.i31 (i32.const -1)))
    (global.set $f (ref.func $one)) (global.set $i (ref.i31 (i32.const 5)))
    (global.set $a (i32.const -1)) (global.set $c (f32.const nan:0x200001)))
  (func (export "call") (param i32) (result i32) (call_indirect $t (result i32) (local.get 0)))
  (func (export "load") (param i32) (result i32) (i32.load $m (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store $m (local.get 0) (local.get 1)))
  (func (export "wide") (param i64) (result i64) (i64.load $w (local.get 0)))
  (func (export "through_f") (result i32) (table.set $t (i32.const 0) (global.get $f))
    (call_indirect $t (result i32) (i32.const 0)))
  (func (export "fill_y") (memory.init $m $y (i32.const 0) (i32.const 0) (i32.const 7)))
  (func (export "fill_z") (memory.init $m $z (i32.const 0) (i32.const 0) (i32.const 1)))
  (func (export "fill_s") (memory.init $m $s (i32.const 0) (i32.const 0) (i32.const 1)))
  (func (export "fill_p") (table.init $t $p (i32.const 0) (i32.const 0) (i32.const 2)))
  (func (export "fill_q") (table.init $t $q (i32.const 0) (i32.const 0) (i32.const 1)))
  (func (export "grow") (param i32) (result i32) (memory.grow $m (local.get 0))))"""

MODULE = Module(TEXT)


def initialised(engine: str = "auto") -> Instance:
    made = Instance(MODULE, store=Store(engine=engine))
    made.exports.init()
    return made


@pytest.mark.parametrize("engine", ENGINES)
def test_an_instance_begins_where_the_other_was(engine: str) -> None:
    first = initialised(engine)
    again = revived(first, Store(engine=engine))
    exports = again.exports
    assert [exports.call(n) for n in (2, 4, 5, 6)] == [2, 2, 2, 2]
    assert exports.through_f() == 1
    assert (exports.load(300000), exports.wide(131064)) == (0x12345678, -1)
    assert exports.m.read(70000, 8) == b"Segment\0"
    assert exports.started.value == 1  # start has run once, in the other one
    assert (exports.a.value, exports.b.value, exports.d.value, exports.k.value) == (-1, 2, 4.0, 77)
    assert f32_to_bits(exports.c.raw) == 0x7FA00001
    assert exports.e.raw == 6 << 64 | 5
    assert exports.f.value is again.exports.one
    assert exports.i.value == I31(5)
    assert [len(exports.t), len(exports.u)] == [7, 2]
    assert list(exports.u) == [None, I31(-1)]
    assert (exports.m.pages, exports.n.pages, exports.w.pages) == (5, 0, 2)
    assert (again.store.pages, again.store.elements) == (first.store.pages, first.store.elements)
    assert Snapshot.take(revived(first)) == Snapshot.take(first)


@pytest.mark.parametrize("engine", ENGINES)
def test_dropped_segments_stay_dropped_and_others_do_not(engine: str) -> None:
    exports = revived(initialised(engine), Store(engine=engine)).exports
    exports.fill_y()
    assert exports.m.read(0, 7) == b"passive"
    exports.fill_p()
    assert [exports.call(0), exports.call(1)] == [2, 1]
    for name in ("fill_z", "fill_s", "fill_q"):
        with pytest.raises(Trap, match="out of bounds"):
            exports[name]()


@pytest.mark.parametrize("engine", ENGINES)
def test_instances_share_nothing(engine: str) -> None:
    first = initialised(engine)
    snapshot = Snapshot.take(first)
    others = [Instance(MODULE, snapshot=snapshot, store=Store(engine=engine)) for _ in range(2)]
    first.exports.store(300000, 1)
    others[0].exports.store(300000, 2)
    others[0].exports.t[2] = None
    assert others[1].exports.load(300000) == 0x12345678
    assert others[1].exports.call(2) == 2
    assert others[1].exports.grow(4) == 5  # up to its maximum, as declared
    assert others[1].exports.grow(1) == -1
    assert others[1].exports.load(9 * PAGE - 4) == 0
    assert Instance(MODULE, snapshot=snapshot).exports.load(300000) == 0x12345678


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app.snapshot"
    snapshot = Snapshot.take(initialised(), key=b"what it depends on", extra=b"and more")
    snapshot.save(path)
    assert Snapshot.load(path) == snapshot
    assert Snapshot.load(path).key == b"what it depends on"
    assert Snapshot.load(path).extra == b"and more"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        Snapshot.load(tmp_path / "none")
    with pytest.raises(OSError, match="none"):
        snapshot.save(tmp_path / "none" / "x")


def test_zeros_are_not_kept() -> None:
    instance = Instance(Module('(module (memory (export "memory") 4096))'))
    instance.exports.memory.data[5 * BLOCK] = 1
    [memory] = Snapshot.take(instance).memories
    assert (memory.pages, memory.kept) == (4096, BLOCK)
    assert len(Snapshot.take(instance).to_bytes()) < 10_000


def test_host_functions_are_linked_anew() -> None:
    module = Module(
        '(module (import "e" "f" (func $f (result i32))) (table (export "t") 1 funcref)'
        " (elem declare func $f)"
        ' (func (export "init") (table.set 0 (i32.const 0) (ref.func $f)))'
        ' (func (export "run") (result i32) (call_indirect (result i32) (i32.const 0))))'
    )
    first = Instance(module, {"e": {"f": lambda: 1}})
    first.exports.init()
    linker = Linker()
    linker.define_func("e", "f", FuncType((), (I32,)), lambda: 2)
    again = linker.instantiate(module, snapshot=Snapshot.take(first))
    assert (first.exports.run(), again.exports.run()) == (1, 2)


def test_before_the_start_function() -> None:
    first = Instance(MODULE, start=False)
    again = revived(first)
    assert again.exports.started.value == 0
    again.start()
    assert again.exports.started.value == 1


# -- any state -----------------------------------------------------------------------------------------------

PLAIN = Module("""(module (memory (export "m") 1 40) (memory (export "w") i64 0 40)
  (global (export "a") (mut i32) (i32.const 0)) (global (export "b") (mut i64) (i64.const 0))
  (global (export "c") (mut f32) (f32.const 0)) (global (export "d") (mut f64) (f64.const 0))
  (global (export "e") (mut v128) (v128.const i64x2 0 0)) (global (export "f") (mut funcref) (ref.null func))
  (table (export "t") 0 5000 funcref)
  (func (export "f0")) (func (export "f1")) (func (export "f2") (result i32) (i32.const 3)))""")

FUNCTIONS = st.sampled_from([None, "f0", "f1", "f2"])
WRITES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=40)), max_size=8
)


@given(
    pages=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    writes=st.tuples(WRITES, WRITES),
    numbers=st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.floats(width=32),
        st.floats(),
        st.integers(0, 2**128 - 1),
    ),
    function=FUNCTIONS,
    table=st.one_of(
        st.lists(FUNCTIONS, max_size=30), st.builds(lambda f, n: [f] * n, FUNCTIONS, st.integers(0, 5000))
    ),
)
def test_any_state_survives(
    pages: tuple[int, int],
    writes: tuple[list[tuple[float, bytes]], list[tuple[float, bytes]]],
    numbers: tuple[int, int, float, float, int],
    function: str | None,
    table: list[str | None],
) -> None:
    first = Instance(PLAIN)
    exports = first.exports
    for memory, more, pieces in zip((exports.m, exports.w), pages, writes, strict=True):
        memory.grow(more)
        for share, data in pieces:
            at = int(share * memory.nbytes)
            memory.data[at : at + len(data)] = list(data)[: memory.nbytes - at]
    for name, value in zip("abcde", numbers, strict=True):
        exports[name].raw = value
    exports.f.value = function and exports[function]
    exports.t.grow(len(table))
    for index, element in enumerate(table):
        exports.t[index] = element and exports[element]
    again = revived(first).exports
    for name in "mw":
        assert again[name].pages == exports[name].pages
        assert bytes(again[name].data) == bytes(exports[name].data)
    for name in "abe":
        assert again[name].raw == exports[name].raw
    assert f32_to_bits(again.c.raw) == f32_to_bits(exports.c.raw)
    assert f64_to_bits(again.d.raw) == f64_to_bits(exports.d.raw)
    assert again.f.value is (function and again[function])
    assert list(again.t) == [element and again[element] for element in table]


# -- what cannot be kept -------------------------------------------------------------------------------------


def made(text: str, imports: dict[str, Any] | None = None, store: Store | None = None) -> Instance:
    return Instance(Module(f"(module {text})"), {"e": imports or {}}, store=store)


def of_another() -> Func:
    function = made('(func (export "f"))').exports.f
    assert isinstance(function, Func)
    return function


def with_import(kind: str, text: str) -> Callable[[], Instance]:
    """An instance that imports what another one exports."""

    def make() -> Instance:
        other = made(f'({kind} (export "x") {text})')
        return made(f'(import "e" "x" ({kind} {text}))', {"x": other.exports["x"]}, other.store)

    return make


def imported_mutable_global() -> Instance:
    other = made('(global (export "x") (mut i32) (i32.const 0))')
    return made('(import "e" "x" (global (mut i32)))', {"x": other.exports.x}, other.store)


def imported_host_reference() -> Instance:
    from pywasmvm.types import HeapType, ref

    return made(
        '(import "e" "x" (global externref))',
        {"x": Global(GlobalType(ref(True, HeapType.EXTERN), False), "a")},
    )


def imported_guest_function() -> Instance:
    other = made('(func (export "x"))')
    return made('(import "e" "x" (func))', {"x": other.exports.x}, other.store)


def host_object_in_a_global() -> Instance:
    instance = made('(global (export "x") (mut externref) (ref.null extern))')
    instance.exports.x.value = object()
    return instance


def host_object_in_a_table() -> Instance:
    instance = made('(table (export "t") 5 externref)')
    instance.exports.t[3] = "text"
    return instance


def host_function_in_a_table() -> Instance:
    instance = made('(table (export "t") 5 funcref)')
    instance.exports.t[3] = HostFunc(FuncType(), lambda: None, name="mine")
    return instance


def foreign_function_in_a_global() -> Instance:
    instance = made('(global (export "x") (mut funcref) (ref.null func))')
    instance.exports.x.value = of_another()
    return instance


def an_exception_in_a_table() -> Instance:
    instance = made(
        '(tag $t) (table $x 1 exnref) (func (export "init") (table.set $x (i32.const 0)'
        " (block (result exnref) (try_table (catch_all_ref 0) (throw $t)) (unreachable))))"
    )
    instance.exports.init()
    return instance


UNSOUND = {
    "the import e.x is a memory": with_import("memory", "1"),
    "the import e.x is a table": with_import("table", "1 funcref"),
    "the import e.x is a tag": with_import("tag", ""),
    "the import e.x is a mutable global": imported_mutable_global,
    "the import e.x is a reference": imported_host_reference,
    "the import e.x is a function of another instance": imported_guest_function,
    "global 0 holds a reference to an object": host_object_in_a_global,
    "global 0 holds a function of another instance": foreign_function_in_a_global,
    "table 0 holds a reference to an object": host_object_in_a_table,
    "table 0 holds a function of another instance or of the host: <HostFunc mine": host_function_in_a_table,
    "table 0 holds a reference to an object that cannot be kept: <Exn": an_exception_in_a_table,
    "global 0 holds a reference to an object that cannot be kept: <Struct": lambda: made(
        "(type $s (struct (field i32))) (global (ref $s) (struct.new_default $s))"
    ),
    "global 0 holds a reference to an object that cannot be kept: <Array": lambda: made(
        "(type $s (array (mut i8))) (global (mut anyref) (array.new_default $s (i32.const 3)))"
    ),
    "element segment 0 holds a reference to an object that cannot be kept: <Struct": lambda: made(
        "(type $s (struct)) (elem anyref (item (struct.new $s)))"
    ),
}


@pytest.mark.parametrize("message", UNSOUND)
def test_what_is_not_the_instances_own_is_refused(message: str) -> None:
    instance = UNSOUND[message]()
    with pytest.raises(SnapshotError) as caught:
        Snapshot.take(instance)
    assert message in str(caught.value)


def test_a_running_call_is_refused() -> None:
    errors: list[SnapshotError] = []

    def look() -> None:
        with pytest.raises(SnapshotError, match="a call is running") as caught:
            Snapshot.take(instance)
        errors.append(caught.value)

    instance = made('(import "e" "f" (func)) (func (export "run") (call 0))', {"f": look})
    instance.exports.run()
    assert len(errors) == 1
    Snapshot.take(instance)


def test_imported_globals_must_be_what_they_were() -> None:
    module = Module(
        '(module (import "e" "base" (global i32)) (memory (export "m") 1) (data (global.get 0) "x"))'
    )
    type_ = GlobalType(I32, False)
    snapshot = Snapshot.take(Instance(module, {"e": {"base": Global(type_, 5)}}))
    again = Instance(module, {"e": {"base": Global(type_, 5)}}, snapshot=snapshot)
    assert again.exports.m.read(5, 1) == b"x"
    with pytest.raises(SnapshotError, match="the imported global 0 had another value"):
        Instance(module, {"e": {"base": Global(type_, 6)}}, snapshot=snapshot)


def test_another_module() -> None:
    snapshot = Snapshot.take(made("(memory 1)"))
    with pytest.raises(SnapshotError, match="it was taken of another module"):
        Instance(Module("(module (memory 1) (func))"), snapshot=snapshot)


def test_the_same_module_as_text_and_as_binary() -> None:
    snapshot = Snapshot.take(initialised())
    again = Instance(Module(MODULE.to_bytes(), validate="lazy"), snapshot=snapshot)
    assert again.exports.load(300000) == 0x12345678


# -- limits --------------------------------------------------------------------------------------------------


def test_limits_of_the_store_hold() -> None:
    snapshot = Snapshot.take(initialised())
    store = Store(StoreLimits(memory_pages=6))
    with pytest.raises(SnapshotError, match="memory 2 cannot have 2 pages"):
        Instance(MODULE, store=store, snapshot=snapshot)
    store = Store(StoreLimits(table_elements=8))
    with pytest.raises(SnapshotError, match="table 1 cannot have 2 elements"):
        Instance(MODULE, store=store, snapshot=snapshot)
    exact = Store(StoreLimits(memory_pages=7, table_elements=9))
    assert Instance(MODULE, store=exact, snapshot=snapshot).exports.grow(1) == -1


# -- bytes from anywhere -------------------------------------------------------------------------------------


def signed(contents: bytes) -> bytes:
    """Contents with a right head."""
    return MAGIC + struct.pack("<IQ32s", VERSION, len(contents), hashlib.sha256(contents).digest()) + contents


SAMPLE = Snapshot.take(initialised(), key=b"k").to_bytes()
CONTENTS = SAMPLE[len(MAGIC) + 44 :]


def test_damage_anywhere_is_noticed() -> None:
    assert signed(CONTENTS) == SAMPLE
    for at in range(len(SAMPLE)):
        damaged = bytearray(SAMPLE)
        damaged[at] ^= 0x40
        with pytest.raises(SnapshotError):
            Snapshot.from_bytes(damaged)
        with pytest.raises(SnapshotError):
            Snapshot.from_bytes(SAMPLE[:at])
    with pytest.raises(SnapshotError, match="bytes of contents"):
        Snapshot.from_bytes(SAMPLE + b"\0")


def test_other_files_and_formats() -> None:
    with pytest.raises(SnapshotError, match="no snapshot"):
        Snapshot.from_bytes(MODULE.to_bytes())
    later = MAGIC + struct.pack("<I", VERSION + 1) + SAMPLE[len(MAGIC) + 4 :]
    with pytest.raises(SnapshotError, match=f"format {VERSION + 1}"):
        Snapshot.from_bytes(later)


def harmless(data: bytes) -> None:
    """Either refused, or an instance within all bounds."""
    store = Store(StoreLimits(memory_pages=20, table_elements=40))
    try:
        instance = Instance(MODULE, store=store, snapshot=Snapshot.from_bytes(data))
    except SnapshotError:
        return
    for memory, type_ in zip(instance.memories, MODULE.context.memories, strict=True):
        assert type_.limits.min <= memory.pages <= (type_.limits.max or 20)
    for element in instance.exports.t:
        assert element is None or element in instance.funcs
    for element in instance.exports.u:
        assert element is None or isinstance(element, I31)
    assert Snapshot.take(instance).module == Snapshot.from_bytes(data).module


def test_every_byte_changed_and_signed_again_does_no_harm() -> None:
    for at in range(len(CONTENTS)):
        for change in (1, 0x80, 0xFF):
            hostile = bytearray(CONTENTS)
            hostile[at] ^= change
            harmless(signed(bytes(hostile)))
        harmless(signed(CONTENTS[:at]))


@given(st.binary(max_size=200), st.integers(0, len(CONTENTS)), st.integers(0, 200))
def test_hostile_contents_do_no_harm(new: bytes, at: int, length: int) -> None:
    harmless(signed(CONTENTS[:at] + new + CONTENTS[at + length :]))


def changed(**fields: Any) -> Snapshot:
    """A snapshot of `MODULE` that says something else, through bytes."""
    values = {name: getattr(Snapshot.take(initialised()), name) for name in Snapshot.__slots__}
    return through_bytes(Snapshot(**values | fields))


def memories(first: SavedMemory) -> tuple[SavedMemory, ...]:
    return first, *Snapshot.take(initialised()).memories[1:]


EMPTY = SavedMemory(5, bytes(10), ())
FULL = zlib.compress(bytes(BLOCK))
CODES = struct.pack("<7I", *[0] * 7)

HOSTILE: dict[str, dict[str, Any]] = {
    "too few pages": {"memories": memories(SavedMemory(1, bytes(2), ()))},
    "too many pages": {"memories": memories(SavedMemory(10, bytes(20), ()))},
    "no memories": {"memories": ()},
    "a bomb": {"memories": memories(SavedMemory(5, b"\x80" + bytes(9), (zlib.compress(bytes(1 << 24)),)))},
    "too little": {"memories": memories(SavedMemory(5, b"\xc0" + bytes(9), (FULL,)))},
    "no zlib": {"memories": memories(SavedMemory(5, b"\x80" + bytes(9), (b"abc",)))},
    "cut zlib": {"memories": memories(SavedMemory(5, b"\x80" + bytes(9), (FULL[:-3],)))},
    "more behind": {"memories": memories(SavedMemory(5, b"\x80" + bytes(9), (FULL + b"x",)))},
    "no globals": {"globals": ()},
    "a table too small": {"tables": (SavedTable(3, zlib.compress(CODES[:12])),) * 2},
    "a table too large": {"tables": (SavedTable(21, zlib.compress(bytes(84))),) * 2},
    "a huge table": {"tables": (SavedTable(1 << 60, zlib.compress(CODES)),) * 2},
    "no such function": {"tables": (SavedTable(7, zlib.compress(CODES[:-1] + b"\x01")),) * 2},
    "a number among functions": {"tables": (SavedTable(7, zlib.compress(CODES[:-1] + b"\x80")),) * 2},
    "a function among numbers": {
        "tables": (SavedTable(7, zlib.compress(CODES)), SavedTable(2, zlib.compress(b"\1\0\0\0" * 2)))
    },
    "an active data segment": {"dropped_data": (0,)},
    "no such data segment": {"dropped_data": (3,)},
    "an active element segment": {"dropped_elems": (0,)},
    "no such element segment": {"dropped_elems": (99,)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_contents_that_do_not_fit_the_module_are_refused(what: str) -> None:
    assert Instance(MODULE, snapshot=changed(memories=memories(EMPTY))).exports.load(300000) == 0
    with pytest.raises(SnapshotError):
        Instance(MODULE, snapshot=changed(**HOSTILE[what]))


@pytest.mark.parametrize("index", range(10))
def test_values_that_no_global_can_have_are_refused(index: int) -> None:
    values = list(Snapshot.take(initialised()).globals)
    values[index] = b"\xff" * 16
    if index in (4, 8):  # a vector can have any value, and what cannot be changed is not read
        Instance(MODULE, snapshot=changed(globals=tuple(values)))
        return
    with pytest.raises(SnapshotError, match=f"global {index} does not fit"):
        Instance(MODULE, snapshot=changed(globals=tuple(values)))
