"""The engine `translate`: every function becomes a Python function when it is first called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pywasmvm.runtime.func import WasmFunc
from pywasmvm.runtime.instance import Instance
from pywasmvm.runtime.memory import PAGE
from pywasmvm.runtime.store import Store
from pywasmvm.translate import faults, interrupt
from pywasmvm.translate.link import Translation
from pywasmvm.translate.options import Options
from pywasmvm.translate.versions import SMALL
from pywasmvm.translate.wrappers import PYTHONS_OWN, wrapped

#: Memories that cannot get bigger have small addresses only.
SMALL_PAGES = SMALL // PAGE


class Translator:
    """The engine that translates all functions at their first call."""

    def __init__(self, name: str, *, flat: bool = False) -> None:
        self.name, self.flat = name, flat

    def options(self, instance: Instance) -> Options:
        """The variant of the code that the limits of a store and the memories of an instance ask for."""
        store = instance.store
        limits = store.limits
        timed = limits.seconds is not None
        by_fuel = limits.fuel is not None or (timed and not store.watched)
        # A call that is counted has to be one.
        counted = limits.call_depth is not None and limits.call_depth < PYTHONS_OWN
        poll = timed and not by_fuel and not interrupt.available()
        return _options(poll, by_fuel, self.flat, _small(instance), not counted)

    def quick(self, instance: Instance) -> Options:
        """The variant that is made in a fraction of the time and runs nearly as fast."""
        return _quick(self.options(instance))

    def prepare(self, func: WasmFunc) -> Callable[..., Any]:
        """The translated function, bound to its instance."""
        instance = func.instance
        translation = translation_of(instance, self.options(instance))
        made = translation.function(instance, func.index)
        if made is None:
            raise LookupError(f"{func!r} has no beginning")
        return wrapped(made, func.store)

    def stopped(self, error: BaseException, store: Store) -> BaseException:
        """Faults of Python as the traps they stand for."""
        return faults.stopped(error)

    def interrupt(self, store: Store) -> None:
        """Stop loops that do not look at the stop flag."""
        interrupt.arm(store)

    def resume(self, store: Store) -> None:
        """Leave loops alone again."""
        interrupt.disarm(store)


# Asked for with every function, and nearly always the same.


@functools.lru_cache(maxsize=64)
def _options(poll: bool, fuel: bool, flat: bool, small: bool, inline: bool) -> Options:
    return Options(poll=poll, fuel=fuel, flat=flat, small=small, inline=inline)


@functools.lru_cache(maxsize=64)
def _quick(options: Options) -> Options:
    return replace(options, inline=False, quick=True)


@functools.lru_cache(maxsize=64)
def _key(options: Options) -> tuple[str, int]:
    return f"translate {options}", -1


def _small(instance: Instance) -> bool:
    return all(memory.most_pages <= SMALL_PAGES for memory in instance.memories)


def translation_of(instance: Instance, options: Options) -> Translation:
    """The translated functions of its module, shared by all instances."""
    shared = instance.module.prepared
    key = _key(options)
    found = shared.get(key)
    if not isinstance(found, Translation):
        found = shared[key] = Translation(instance.module, options)
    return found
