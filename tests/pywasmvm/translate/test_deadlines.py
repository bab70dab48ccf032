"""Deadlines in translated code: everything that can run for ever is stopped, nobody else is, and it costs
nothing afterwards.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pywasmvm import Exhaustion, Instance, Module, Store, StoreLimits, TrapKind
from pywasmvm.translate import interrupt
from pywasmvm.translate.build import source_of
from pywasmvm.translate.engine import Translator

TREE = """(if (result i32) (local.get 0)
  (then (i32.add (call ${0} (i32.sub (local.get 0) (i32.const 1)))
    (call ${0} (i32.sub (local.get 0) (i32.const 1)))))
  (else (i32.const 1)))"""

TEXT = f"""(module (import "m" "tick" (func $tick)) (memory 16384)
  (type $t (func (param i32) (result i32)))
  (table 2 funcref) (elem (i32.const 0) $through_table $tail_table) (elem declare func $through_ref $tail_ref)
  (func (export "loop") (param i32) (result i32) (loop $l (br $l)) (unreachable))
  (func $count (export "count") (param $n i32) (result i32) (local $i i32) (local $s i32)
    (loop $l
      (local.set $s (i32.rotl (i32.add (local.get $s) (local.get $i)) (i32.const 7)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
    (local.get $s))
  (func (export "nested") (param $n i32) (result i32) (local $i i32)
    (loop $o
      (local.set $i (i32.const 0))
      (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
      (br_if $o (local.get $n)))
    (local.get $i))
  (func (export "helped") (param $n i32) (result i32)
    (loop $o (result i32) (drop (call $count (i32.const 100))) (br_if $o (local.get $n)) (i32.const 5)))
  (func $direct (export "direct") (param i32) (result i32) {TREE.format("direct")})
  (func $even (export "mutual") (param i32) (result i32) {TREE.format("odd")})
  (func $odd (param i32) (result i32) {TREE.format("even")})
  (func $through_table (export "table") (param i32) (result i32)
    (if (result i32) (local.get 0) (then (i32.add
      (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))
      (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))) (else (i32.const 1))))
  (func $through_ref (export "ref") (param i32) (result i32)
    (if (result i32) (local.get 0) (then (i32.add
      (call_ref $t (i32.sub (local.get 0) (i32.const 1)) (ref.func $through_ref))
      (call_ref $t (i32.sub (local.get 0) (i32.const 1)) (ref.func $through_ref)))) (else (i32.const 1))))
  (func $a (export "tail") (param i32) (result i32)
    (if (result i32) (local.get 0) (then (return_call $b (local.get 0))) (else (i32.const 6))))
  (func $b (param i32) (result i32) (return_call $a (local.get 0)))
  (func $tail_table (export "tail table") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (return_call_indirect (type $t) (local.get 0) (i32.const 1))) (else (i32.const 7))))
  (func $tail_ref (export "tail ref") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (return_call_ref $t (local.get 0) (ref.func $tail_ref))) (else (i32.const 8))))
  (func (export "fill") (param i32) (result i32)
    (loop $o
      (memory.fill (i32.const 0) (i32.const 1) (select (i32.const 0x4000_0000) (i32.const 9) (local.get 0)))
      (br_if $o (local.get 0)))
    (i32.load8_u (i32.const 3)))
  (func (export "around") (param i32) (result i32)
    (call $tick) (loop $l (br_if $l (local.get 0))) (i32.const 9))
  (func (export "host") (param $n i32) (result i32) (local $i i32)
    (call $tick)
    (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
    (local.get $i)))"""

#: What runs for ever (or far longer than any test) when it gets that argument, and what it gives for nought.
RUNAWAYS = {
    "count": 0xFFFF_FFFF, "nested": 1, "helped": 1, "direct": 40, "mutual": 40, "table": 40, "ref": 40,
    "tail": 1, "tail table": 1, "tail ref": 1, "fill": 1,
}  # fmt: skip
RESULTS = {
    "count": 0, "nested": 3, "helped": 5, "direct": 1, "mutual": 1, "table": 1, "ref": 1, "tail": 6,
    "tail table": 7, "tail ref": 8, "fill": 1,
}  # fmt: skip

#: Far more than the 50 ms that are aimed at: how late a machine with much to do may be.
PATIENCE = 20.0

monitored = pytest.mark.skipif(not interrupt._can(), reason="this Python looks at a flag in every loop")

MODULE = Module(TEXT)


def made(engine: str = "translate", tick: Callable[[], Any] = lambda: None, **limits: Any) -> Instance:
    store = Store(StoreLimits(**{"seconds": 60.0, **limits}), engine=engine)
    return Instance(MODULE, {"m": {"tick": tick}}, store=store)


def in_thread(run: Callable[[], None]) -> None:
    """Run it in a thread of its own; what it raises is raised here."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def armed(instance: Instance) -> list[int]:
    """The functions whose code is armed."""
    monitoring = interrupt._monitoring()
    tool = interrupt._tool()
    found = []
    for index, code in instance.codes.items():
        own = getattr(getattr(code, "body", code), "__code__", None)
        if own is not None and monitoring.get_local_events(tool, own):
            found.append(index)
    return found


@pytest.mark.parametrize("where", ["main", "worker"])
@pytest.mark.parametrize("engine", ["translate", "translate-flat", "auto"])
@pytest.mark.parametrize("name", ["loop", *RUNAWAYS])
def test_a_runaway_is_stopped_and_the_instance_goes_on(name: str, engine: str, where: str) -> None:
    instance = made(engine)
    exports = instance.exports

    def run() -> None:
        for _ in range(2):
            instance.store.limits = StoreLimits(seconds=0.1)
            began = time.monotonic()
            with pytest.raises(Exhaustion) as caught:
                exports[name](RUNAWAYS.get(name, 0))
            assert caught.value.kind is TrapKind.DEADLINE_EXCEEDED
            assert caught.value.frames
            assert 0.1 <= time.monotonic() - began < PATIENCE
            instance.store.limits = StoreLimits(seconds=60.0)  # limits of the same kind: the same code
            for other, result in RESULTS.items():
                assert exports[other](0) == result

    if where == "main":
        run()
    else:
        in_thread(run)


def test_only_the_late_one_of_two_threads_is_stopped() -> None:
    """Both run the same code object."""
    late, other = made(seconds=0.1), made()
    expected = other.exports["count"](700_000)
    both = threading.Barrier(2)
    found: list[Any] = []

    def runs() -> None:
        both.wait()
        found.extend(other.exports["count"](700_000) for _ in range(3))

    thread = threading.Thread(target=runs)
    thread.start()
    both.wait()
    for _ in range(2):
        with pytest.raises(Exhaustion, match="deadline exceeded"):
            late.exports["count"](0xFFFF_FFFF)
    thread.join()
    assert found == [expected] * 3
    codes: list[Any] = [i.codes[i.exports["count"].index] for i in (late, other)]
    assert codes[0].__code__ is codes[1].__code__


def test_frames_say_where_it_was() -> None:
    with pytest.raises(Exhaustion) as caught:
        made(seconds=0.05).exports["helped"](1)
    assert caught.value.frames[-1].func == "helped"
    with pytest.raises(Exhaustion) as caught:
        made(seconds=0.05).exports["direct"](40)
    assert {frame.func for frame in caught.value.frames} == {"direct"}
    assert {frame.instruction for frame in caught.value.frames[1:]} == {"call"}


# -- one thread, and no clock: the watchdog's part is played by a host function ------------------------------


def test_a_loop_is_stopped_after_a_call_of_the_host() -> None:
    def tick() -> None:
        instance.store.expire(instance.store.serial)

    instance = made(tick=tick)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports["host"](1_000)
    assert instance.exports["count"](0) == 0


def test_a_call_that_ended_meanwhile_does_not_stop_the_next() -> None:
    def tick() -> None:
        store = instance.store
        store.expire(store.serial)
        store.serial += 1  # as if this were another call

    instance = made(tick=tick)
    assert instance.exports["host"](1_000) == 1_000
    instance.store.expire(instance.store.serial)
    assert instance.exports["count"](0) == 0
    assert instance.exports["direct"](3) == 8


def test_another_store_inside_of_the_late_one_is_left_alone() -> None:
    """A host function runs another guest for a late one, with the same code, in the same thread."""
    results: list[int] = []

    def tick() -> None:
        store = outer.store
        store.expire(store.serial)
        for _ in range(2):
            results.append(inner.exports["host"](1_000))
            store.expire(store.serial)

    outer, inner = made(tick=tick), made()
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        outer.exports["host"](1_000)
    assert results == [1_000] * 2


def test_a_late_call_that_waits_does_not_stop_other_threads() -> None:
    results: list[int] = []

    def tick() -> None:
        late.store.expire(late.store.serial)
        in_thread(lambda: results.append(other.exports["host"](1_000)))

    late, other = made(tick=tick), made()
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        late.exports["host"](1_000)
    assert results == [1_000]


# -- what is specific to the ways of looking -----------------------------------------------------------------


def source(name: str) -> str:
    """The source of a function as a watched store runs it."""
    instance = made()
    instance.exports["count"](0)  # the watchdog watches
    options = Translator("translate").options(instance)
    return source_of(MODULE, instance.exports[name].index, options) or ""


def loop_looks() -> bool:
    """Whether the loop of a function looks at the stop flag."""
    return "if stop:" in source("count")


def test_loops_look_at_the_flag_only_where_they_must() -> None:
    assert loop_looks() is not interrupt.available()
    assert interrupt.available() is interrupt._can()


def test_calls_never_look() -> None:
    for name in ("direct", "mutual", "table", "ref", "tail", "tail table", "tail ref"):
        assert "stop" not in source(name)


@monitored
@pytest.mark.parametrize("name", ["count", "nested", "helped", "direct"])
def test_nothing_stays_armed(name: str) -> None:
    instance = made(seconds=0.05)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports[name](RUNAWAYS[name])
    instance.store.limits = StoreLimits(seconds=60.0)
    # The watchdog may have come once more while the call was ending: then the next jump sees to it.
    instance.exports["helped"](0)
    instance.exports[name](0)
    instance.exports["count"](10)
    assert armed(instance) == []
    assert not interrupt._LATE


@monitored
def test_code_is_armed_while_its_call_is_late() -> None:
    seen: list[list[int]] = []

    def tick() -> None:
        instance.store.expire(instance.store.serial)
        seen.append(armed(instance))

    instance = made(tick=tick)
    for _ in range(2):
        with pytest.raises(Exhaustion, match="deadline exceeded"):
            instance.exports["host"](1_000)
        assert armed(instance) == []
    assert seen == [[instance.exports["host"].index]] * 2


@monitored
@pytest.mark.parametrize("late", ["host", "around"])
def test_what_is_inside_or_outside_of_the_late_call_is_not_armed(late: str) -> None:
    """Only code of the late store is, not that of another which waits for it, or which it waits for."""
    seen: list[list[int]] = []
    hooks: list[Callable[[], Any]] = [lambda: None]

    def tick() -> None:
        with contextlib.suppress(Exhaustion):
            inner.exports["host"](1)

    def tock() -> None:
        store = stores[late]
        store.expire(store.serial)
        seen.append(armed(outer))

    outer, inner = made(tick=lambda: hooks[-1]()), made(tick=tock)
    stores = {"around": outer.store, "host": inner.store}
    for name in stores:  # so that `armed` knows the code
        outer.exports[name](0)
    hooks.append(tick)
    with contextlib.suppress(Exhaustion):
        outer.exports["around"](0)
    assert seen == [[outer.exports[late].index]]


@monitored
def test_code_that_is_armed_by_mistake_disarms_itself() -> None:
    """As when the watchdog arms while the call is being stopped."""
    instance = made(tick=lambda: None)
    assert instance.exports["host"](5) == 5
    instance.store.expire(instance.store.serial)
    code: Any = instance.codes[instance.exports["host"].index]
    monitoring = interrupt._monitoring()
    monitoring.set_local_events(interrupt._tool(), code.__code__, monitoring.events.JUMP)
    assert armed(instance) == [instance.exports["host"].index]
    assert instance.exports["host"](5) == 5
    assert armed(instance) == []


@monitored
def test_code_that_two_late_calls_want_stays_armed_for_the_second() -> None:
    def tick() -> None:
        outer.store.expire(outer.store.serial)
        with pytest.raises(Exhaustion, match="deadline exceeded"):
            inner.exports["host"](1_000)
        assert armed(outer) == [outer.exports["host"].index]

    def tock() -> None:
        inner.store.expire(inner.store.serial)

    outer, inner = made(tick=tick), made(tick=tock)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        outer.exports["host"](1_000)
    assert armed(outer) == []


@pytest.fixture
def no_tool_id() -> Iterator[None]:
    """Other tools have all ids there are."""
    if interrupt._can():
        monitoring = interrupt._monitoring()
        for tool in interrupt._TOOL_IDS:
            monitoring.free_tool_id(tool)
            monitoring.use_tool_id(tool, "somebody else")
    yield
    if interrupt._can():
        for tool in interrupt._TOOL_IDS:
            monitoring.free_tool_id(tool)


@pytest.mark.usefixtures("no_tool_id")
def test_without_a_tool_id_loops_look_at_the_flag() -> None:
    assert not interrupt.available()
    assert loop_looks()
    for engine in ("translate", "auto"):
        exports = made(engine, seconds=0.1).exports
        for name in ("loop", "count", "direct"):
            with pytest.raises(Exhaustion, match="deadline exceeded"):
                exports[name](RUNAWAYS.get(name, 0))
        assert exports["count"](0) == 0


@monitored
def test_one_tool_id_is_enough() -> None:
    monitoring = interrupt._monitoring()
    for tool in interrupt._TOOL_IDS:
        monitoring.free_tool_id(tool)
    monitoring.use_tool_id(4, "somebody else")
    try:
        with pytest.raises(Exhaustion, match="deadline exceeded"):
            made(seconds=0.05).exports["count"](0xFFFF_FFFF)
        assert monitoring.get_tool(3) == interrupt._NAME
    finally:
        monitoring.free_tool_id(3)
        monitoring.free_tool_id(4)


def test_beside_a_tracer() -> None:
    """Debuggers and coverage watch the same code."""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        return trace

    exports = made(seconds=0.1).exports
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for name in ("count", "direct"):
            with pytest.raises(Exhaustion, match="deadline exceeded"):
                exports[name](RUNAWAYS[name])
    finally:
        sys.settrace(before)
    assert exports["count"](0) == 0


@monitored
def test_who_sets_no_deadline_takes_no_tool_id() -> None:
    script = """if 1:
        import sys
        from pywasmvm import Instance, Module, Store, StoreLimits
        module = Module('(module (func (export "f") (loop (nop))))')
        for seconds in (None, 60.0):
            Instance(module, store=Store(StoreLimits(seconds=seconds), engine="translate")).exports["f"]()
            print([sys.monitoring.get_tool(tool) for tool in (3, 4)])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[None, None]", f"[None, {interrupt._NAME!r}]"]
