"""How time is taken: CPU time of this process, the contestants in turn, the best of several rounds."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping

#: CPU seconds of the whole process, so that work in another thread of it (a watchdog's) is not free.
clock = time.process_time


class WrongAnswerError(Exception):
    """An engine computed something else than it should: its time is worth nothing."""


def check(name: str, found: object, expected: object) -> None:
    """Raise WrongAnswerError unless they are equal."""
    if found != expected:
        raise WrongAnswerError(f"{name}: {found!r}, expected {expected!r}")


def best(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least seconds of each. In turn, so that a slow moment of the machine meets all of them."""
    least = dict.fromkeys(contestants, math.inf)
    for _ in range(rounds):
        gc.collect()  # garbage of the last round should not be collected in the time of this one
        for name, measure in contestants.items():
            least[name] = min(least[name], measure())
    return least


def geomean(values: Iterable[float]) -> float:
    """Geometric mean."""
    numbers = list(values)
    return math.exp(sum(map(math.log, numbers)) / len(numbers))
