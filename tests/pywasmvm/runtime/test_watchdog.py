"""Deadlines: kept in every thread and for every kind of code, never early, and the instance stays usable."""

from __future__ import annotations

import threading
import time

import pytest

from pywasmvm import Exhaustion, Instance, Module, Store, StoreLimits, TrapKind
from pywasmvm.runtime import watchdog

TEXT = """(module (memory 2000)
  (func (export "loop") loop br 0 end)
  (func $rec (export "rec") (param i32) (result i32)
    (if (result i32) (i32.gt_s (local.get 0) (i32.const 1))
      (then (i32.add (call $rec (i32.sub (local.get 0) (i32.const 1)))
        (call $rec (i32.sub (local.get 0) (i32.const 2)))))
      (else (i32.const 1))))
  (func $a (export "tail") return_call $b) (func $b return_call $a)
  (func (export "fill") loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 131072000)) br 0 end)
  (func (export "short") (result i32) (local i32)
    (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 2000))))
    (local.get 0)))"""

ENGINES = ("interp", "translate", "auto")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["loop", "rec", "tail", "fill"])
def test_a_runaway_is_stopped(name: str, engine: str) -> None:
    store = Store(StoreLimits(seconds=0.1), engine=engine)
    exports = Instance(Module(TEXT), store=store).exports
    args = (60,) if name == "rec" else ()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Exhaustion) as caught:
            exports[name](*args)
        assert caught.value.kind is TrapKind.DEADLINE_EXCEEDED
        assert time.monotonic() - began >= 0.1  # never early
        store.limits = StoreLimits()
        assert exports["short"]() == 2000
        store.limits = StoreLimits(seconds=0.1)


def test_in_threads_of_their_own() -> None:
    found: list[object] = []

    def run() -> None:
        store = Store(StoreLimits(seconds=0.1), engine="translate")
        exports = Instance(Module(TEXT), store=store).exports
        with pytest.raises(Exhaustion, match="deadline exceeded"):
            exports["loop"]()
        store.limits = StoreLimits()
        found.append(exports["short"]())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2000] * 3


def test_many_short_calls_are_no_long_one() -> None:
    store = Store(StoreLimits(seconds=2.0), engine="translate")
    short = Instance(Module(TEXT), store=store).exports["short"]
    store.limits = StoreLimits(seconds=0.2)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        assert short() == 2000


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["loop", "rec", "tail"])
def test_without_threads_the_clock_is_looked_at(
    name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog.WATCHDOG, "watch", lambda store: False)
    exports = Instance(Module(TEXT), store=Store(StoreLimits(seconds=0.1), engine=engine)).exports
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        exports[name](*((60,) if name == "rec" else ()))


def test_a_late_flag_does_not_stop_the_next_call() -> None:
    """The watchdog may raise the flag just when the call it means has ended."""
    store = Store(StoreLimits(seconds=50.0), engine="translate")
    short = Instance(Module(TEXT), store=store).exports["short"]
    short()
    store.expire(store.serial)
    assert short() == 2000


@pytest.mark.parametrize("engine", ENGINES)
def test_limits_that_come_later_are_kept_too(engine: str) -> None:
    store = Store(engine=engine)
    exports = Instance(Module(TEXT), store=store).exports
    for _ in range(40):
        assert exports["short"]() == 2000
    store.limits = StoreLimits(fuel=3_000)
    with pytest.raises(Exhaustion, match="out of fuel"):
        exports["short"]()
    store.limits = StoreLimits(seconds=0.1)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        exports["loop"]()
    store.limits = StoreLimits(call_depth=20)
    with pytest.raises(Exhaustion, match="call stack exhausted"):
        exports["rec"](40)
    store.limits = StoreLimits()
    assert exports["rec"](10) == 89
