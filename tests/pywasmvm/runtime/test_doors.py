"""Doors: a late call runs into them wherever it calls a function, and nobody else notices."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from pywasmvm import Exhaustion, Instance, Module, Store, StoreLimits, TrapKind
from pywasmvm.runtime import doors

TEXT = """(module (import "m" "tick" (func $tick))
  (type $t (func (param i32) (result i32)))
  (table 1 funcref) (elem (i32.const 0) $leaf) (elem declare func $leaf)
  (func $leaf (export "leaf") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func $direct (export "direct") (param i32) (result i32) (call $tick) (call $leaf (local.get 0)))
  (func (export "table") (param i32) (result i32)
    (call $tick) (call_indirect (type $t) (local.get 0) (i32.const 0)))
  (func (export "ref") (param i32) (result i32)
    (call $tick) (call_ref $t (local.get 0) (ref.func $leaf)))
  (func (export "tail") (param i32) (result i32) (call $tick) (return_call $leaf (local.get 0)))
  (func (export "outer") (param i32) (result i32) (call $direct (local.get 0))))"""

WAYS = ("direct", "table", "ref", "tail")


#: Where calls are counted, no function stands in place of a call.
LIMITS = StoreLimits(seconds=50.0, call_depth=100)


def made(tick: Any) -> Instance:
    """An instance with all functions called once, so that each has code; then `tick` is called."""
    calls: list[Any] = [lambda: None]
    store = Store(LIMITS, engine="translate")
    instance = Instance(Module(TEXT), {"m": {"tick": lambda: calls[0]()}}, store=store)
    for name in (*WAYS, "outer"):
        assert instance.exports[name](1) == 2
    calls[0] = functools.partial(tick, store)
    return instance


def closed(instance: Instance) -> int:
    """How many doors are closed."""
    return sum(
        getattr(instance.funcs[index].code, "func", None) is doors._knock
        or getattr(instance.code_cell(index).cell_contents, "func", None) is doors._knock
        for index in instance.codes
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_late_call_is_stopped_where_it_calls(way: str) -> None:
    instance = made(lambda store: store.expire(store.serial))
    with pytest.raises(Exhaustion) as caught:
        instance.exports[way](1)
    assert caught.value.kind is TrapKind.DEADLINE_EXCEEDED
    # The function that was about to be entered, and who called it, if that is still there.
    frames = [(frame.func, frame.instruction) for frame in caught.value.frames]
    called = {"direct": "call", "table": "call_indirect", "ref": "call_ref"}
    assert frames == [("leaf", None), *([(way, called[way])] if way in called else [])]


def test_frames_reach_to_the_outermost() -> None:
    instance = made(lambda store: store.expire(store.serial))
    with pytest.raises(Exhaustion) as caught:
        instance.exports["outer"](1)
    assert [frame.func for frame in caught.value.frames] == ["leaf", "direct", "outer"]


@pytest.mark.parametrize("way", WAYS)
def test_doors_that_were_closed_for_an_earlier_call_open(way: str) -> None:
    """The call may end just when the watchdog closes."""
    instance = made(lambda store: None)
    store = instance.store
    store.expire(store.serial)
    assert closed(instance) == len(instance.codes) == 6
    assert instance.exports[way](1) == 2
    assert closed(instance) == 0
    # In the middle of a call, with nothing that opens all at once.
    instance = made(lambda store: doors.close(store))
    assert instance.exports[way](1) == 2
    leaf = instance.exports["leaf"]
    assert leaf.code is instance.codes[leaf.index]
    assert instance.code_cell(leaf.index).cell_contents is leaf.code


def test_doors_open_when_the_call_was_stopped() -> None:
    instance = made(lambda store: store.expire(store.serial))
    with pytest.raises(Exhaustion):
        instance.exports["outer"](1)
    assert closed(instance) == 0
    assert instance.exports["leaf"](5) == 6


def test_the_host_cannot_go_on_with_a_late_call() -> None:
    """A host function that ignores that the guest it called was stopped does not save its own caller."""
    seen: list[TrapKind] = []

    def tick(store: Store) -> None:
        store.expire(store.serial)
        try:
            instance.exports["leaf"](1)
        except Exhaustion as error:
            seen.append(error.kind)
        store.expire(store.serial)  # the next tick

    instance = made(tick)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports["direct"](1)
    assert seen == [TrapKind.DEADLINE_EXCEEDED]


def test_code_that_is_found_meanwhile_opens_a_door_until_the_next_tick() -> None:
    def tick(store: Store) -> None:
        store.expire(store.serial)
        leaf = instance.exports["leaf"]
        instance.set_code(leaf.index, instance.codes[leaf.index])
        if ticks:
            store.expire(store.serial)

    ticks: list[int] = []
    instance = made(tick)
    assert instance.exports["direct"](1) == 2
    ticks.append(1)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports["direct"](1)


def test_new_limits_open_doors() -> None:
    """What was made for other limits is not called again, whether or not a door is in front of it."""
    instance = made(lambda store: None)
    store = instance.store
    store.expire(store.serial)
    store.limits = StoreLimits(fuel=1_000, call_depth=100)
    assert instance.exports["direct"](1) == 2
    assert store.fuel_left is not None
    assert store.fuel_left < 1_000
    assert closed(instance) == 0


def test_doors_of_other_instances_of_the_store() -> None:
    """A guest that calls another instance is stopped there; guests of other stores are left alone."""
    store = Store(LIMITS, engine="translate")
    module = Module("""(module (func (export "leaf") (param i32) (result i32)
      (i32.add (local.get 0) (i32.const 1))))""")
    user = Module("""(module (import "m" "tick" (func $tick))
      (import "m" "leaf" (func $leaf (param i32) (result i32)))
      (func (export "f") (param i32) (result i32) (call $tick) (call $leaf (local.get 0))))""")
    ticks: list[Store] = []
    other = Instance(module, store=Store(LIMITS, engine="translate"))
    assert other.exports["leaf"](1) == 2
    leaf = Instance(module, store=store).exports["leaf"]

    def tick() -> None:
        for late in ticks:
            late.expire(late.serial)

    given = {"m": {"tick": tick, "leaf": leaf}}
    run = Instance(user, given, store=store).exports["f"]
    assert run(1) == 2
    ticks.append(store)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        run(1)
    ticks[:] = [other.store]
    assert run(1) == 2


def test_guests_do_not_catch_it() -> None:
    store = Store(LIMITS, engine="translate")
    ticks: list[int] = []

    def tick() -> None:
        if ticks:
            store.expire(store.serial)

    instance = Instance(
        Module("""(module (import "m" "tick" (func $tick)) (func $leaf)
          (func (export "f") (result i32)
            (block $all (try_table (catch_all $all) (call $leaf) (call $tick) (call $leaf))
              (return (i32.const 1)))
            (i32.const 2)))"""),
        {"m": {"tick": tick}},
        store=store,
    )
    assert instance.exports["f"]() == 1
    ticks.append(1)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports["f"]()


def test_between_calls_nothing_is_late() -> None:
    store = Store(LIMITS, engine="translate")
    module = Module('(module (memory (export "memory") 1) (func (export "f")))')
    exports = Instance(module, store=store).exports
    exports["f"]()
    store.expire(store.serial)
    exports["memory"].fill(0, 7, 10)
    assert exports["memory"].read(9, 1) == b"\7"
