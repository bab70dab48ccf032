"""Timers that are patient, and many that share one of the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pywasmproxy.server import patience
from pywasmproxy.server.patience import PatientTimer, Timers


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def test_timers_of_several_delays_are_due_in_their_order() -> None:
    timers, fired = Timers(), list[str]()
    timers.start(0.2, fired.append, "late")
    timers.start(0.02, fired.append, "soon")
    timers.start(0.02, fired.append, "next")
    await eventually(lambda: len(fired) == 3)
    assert fired == ["soon", "next", "late"]
    assert len(timers) == 0


async def test_a_queue_goes_on_after_its_first_timer() -> None:
    timers, fired = Timers(), list[int]()
    timers.start(0.05, fired.append, 1)
    await asyncio.sleep(0.03)
    timers.start(0.05, fired.append, 2)
    await eventually(lambda: len(fired) == 2)
    timers.start(0.05, fired.append, 3)
    await eventually(lambda: fired == [1, 2, 3])


async def test_who_is_cancelled_is_not_called() -> None:
    timers, fired = Timers(), list[int]()
    all_of_them = [timers.start(0.02, fired.append, number) for number in range(4)]
    for timer in all_of_them[::2]:
        timer.cancel()
    await eventually(lambda: len(fired) == 2)
    await asyncio.sleep(0.05)
    assert fired == [1, 3]
    all_of_them[1].cancel()  # too late, and harmless


async def test_a_due_timer_may_still_be_cancelled() -> None:
    """That is what the patience is for: the answer was there in time, nobody had looked."""
    timers, fired = Timers(), list[int]()
    timer = timers.start(0.001, fired.append, 1)
    await eventually(lambda: len(timers) == 0)  # due, and being patient
    timer.cancel()
    await asyncio.sleep(patience.PAUSE * (patience.ROUNDS + 20))
    assert fired == []


async def test_one_long_wait_does_not_keep_all_that_came_after_it() -> None:
    timers = Timers()
    timers.start(1000, print, None)
    waiting = [timers.start(1000, print, None) for _ in range(10)]
    for _ in range(20_000):
        timers.start(1000, print, None).cancel()
    assert len(timers) <= patience.FEW + 1
    for timer in waiting:
        assert not timer.cancelled
    timers.close()


async def test_nobody_is_called_after_the_end() -> None:
    timers, fired = Timers(), list[int]()
    timers.start(0.01, fired.append, 1)
    timers.close()
    await asyncio.sleep(0.05)
    assert fired == []


async def test_a_patient_timer_lets_the_loop_look_at_its_sockets_first() -> None:
    fired = list[str]()
    PatientTimer(0, lambda: fired.append("timer"))
    for _ in range(patience.ROUNDS):
        await asyncio.sleep(0)
        fired.append("loop")
    await eventually(lambda: "timer" in fired)
    assert fired.index("timer") == patience.ROUNDS
