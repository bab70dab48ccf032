"""The engine `auto`: the interpreter runs what runs once, and what gets hot moves to translated code.

A function moves when it has been called often, or when the interpreter finds itself in one of its loops at
the end of a quantum of work. A running loop does not have to end first: its head is given an operation that
enters translated code there, with the locals as they are (`enter`), and what that returns is what the frame
returns. So translation, which costs as much as running a function some fifty times, is paid only by code that
earns it back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import CellType
from typing import Any

from pywasmvm.interp.blocks import ENTER, Prepared
from pywasmvm.interp.machine import Interpreter, Machine
from pywasmvm.runtime.func import WasmFunc
from pywasmvm.runtime.instance import Instance
from pywasmvm.runtime.limits import QUANTUM
from pywasmvm.runtime.store import Store
from pywasmvm.translate import faults
from pywasmvm.translate.engine import Translator, translation_of
from pywasmvm.translate.link import Translation
from pywasmvm.translate.wrappers import wrapped


@dataclass(frozen=True, slots=True)
class Policy:
    """When code moves: about when interpreting it has cost what translating it will cost, so that it rarely
    costs more than twice what it would had one known before.

    A function moves after `calls` calls, or when it was called in `turns` calls from the host (what is part
    of every request will be part of the next), to code that is made quickly; after `again` more calls it gets
    the best there is. Its loops move when the interpreter has been found in it so often, at the end of a
    quantum of work, that it must have run `worth` times as many instructions as the function has, and two
    times later when it only waits for a call. `callers` is how many frames are looked at then.
    """

    calls: int = 500
    turns: int = 24
    again: int = 3_000
    worth: int = 250
    callers: int = 4


class Tiered(Interpreter):
    """The interpreter with a way up."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.name = "auto"
        self.policy = policy if policy is not None else Policy()
        self.translator = Translator("translate")
        #: What the machine asks.
        self.tiers = self
        #: For how many calls the first one in a call from the host counts.
        self.anew = max(self.policy.calls // self.policy.turns, 1)

    def prepare(self, func: WasmFunc) -> Callable[..., Any]:
        """Runs the function on the interpreter until it has been called often enough."""
        known = self.first(func)
        if known is not None:
            return known
        run = Machine.runner(func)
        left, anew = self._heat(func), self.anew

        def count(*args: Any) -> Any:
            nonlocal left
            left -= anew
            if left < 0:
                if func.fast is None:
                    self.promote(func)
                return func.fast(*args)  # type: ignore[misc]  # that is what it is now
            return run(*args)

        return count

    def stopped(self, error: BaseException, store: Store | None = None) -> BaseException:
        """Faults of translated code as traps."""
        return faults.stopped(error)

    def interrupt(self, store: Store) -> None:
        """Stop loops of translated code; the machine looks at the stop flag."""
        self.translator.interrupt(store)

    def resume(self, store: Store) -> None:
        """Leave loops alone again."""
        self.translator.resume(store)

    # -- what the machine calls --------------------------------------------------------------------------

    def first(self, func: WasmFunc) -> Callable[..., Any] | None:
        """Translated code of a function, if an earlier process has left some."""
        if not func.instance.warm:
            self._warm(func.instance)
        if not self._known(func) and func.instance.module.cache is not None:
            self._translation(func).interpreted[func.index] = None
        return func.fast

    def prepared(self, func: WasmFunc, prepared: Prepared) -> None:
        """Loops that an earlier process found hot are left at once."""
        prepared.heat = self._heat(func)
        known = self._translation(func).known_loops(func.index)
        if known:
            _leave(prepared, known)

    def _warm(self, instance: Instance) -> None:
        """Bind what an earlier process found hot, when the instance is first called: no request has to wait
        for it.
        """
        instance.warm = True
        cache = instance.module.cache
        if cache is not None:
            for index in sorted(cache.hot):
                func = instance.funcs[index]
                if isinstance(func, WasmFunc) and func.instance is instance:
                    self._known(func)

    def _known(self, func: WasmFunc) -> bool:
        """Whether an earlier process has left code of the function, which then runs it."""
        if self._translation(func).known(func.index):
            self.improve(func)
        elif translation_of(func.instance, self.translator.quick(func.instance)).known(func.index):
            self.promote(func)
        else:
            return False
        return True

    def _heat(self, func: WasmFunc) -> int:
        """Calls until the function moves: not the same for all, so that no request has to wait for all."""
        calls = self.policy.calls
        return calls + func.index % 16 * calls // 24

    def _translation(self, func: WasmFunc) -> Translation:
        return translation_of(func.instance, self.translator.options(func.instance))

    def promote(self, func: WasmFunc) -> None:
        """From now on the function runs translated: quickly first, and better if it is called on and on."""
        instance = func.instance
        translation = translation_of(instance, self.translator.quick(instance))
        better = functools.partial(self.improve, func)
        counting = {"left": CellType(self.policy.again), "better": CellType(better)}
        made = translation.function(instance, func.index, given=counting)
        if made is None or wrapped(made, func.store) is not made:
            self.improve(func)
            return
        func.fast = made
        instance.set_code(func.index, func.fast)

    def improve(self, func: WasmFunc) -> Callable[..., Any]:
        """From now on the function runs as the best code there is, which is given."""
        func.fast = self.translator.prepare(func)
        func.instance.set_code(func.index, func.fast)
        return func.fast

    def sample(self, frames: list[Any]) -> None:
        """A quantum of work is over: whose loops are running?"""
        policy = self.policy
        for above, frame in enumerate(reversed(frames[-policy.callers :])):
            prepared: Prepared = frame.prepared
            prepared.samples += 1
            due = 2 + len(prepared.code) * policy.worth // QUANTUM + 2 * (above > 0)
            if prepared.samples >= due:
                prepared.heat = 0
                if prepared.loops:
                    _leave(prepared, [loop for _, loop in prepared.loops])

    def enter(self, func: WasmFunc, loop: int) -> Callable[..., Any] | None:
        """What runs the function from the head of a loop on, given all locals; None if it cannot be
        entered.
        """
        return entered(func.instance, func.index, loop, self.translator)


def _leave(prepared: Prepared, loops: Collection[int]) -> None:
    """Have the interpreter enter translated code at the heads of loops, from the next iteration on."""
    for block, loop in prepared.loops:
        if loop in loops:
            if block.source is not None:
                block.source(block)
            block.ops = ((ENTER, (block, loop), loop), *block.ops)
    prepared.loops = [(block, loop) for block, loop in prepared.loops if loop not in loops]


def entered(instance: Instance, index: int, loop: int, translator: Translator) -> Callable[..., Any] | None:
    """Translated code of a function from the head of a loop on."""
    translation = translation_of(instance, translator.options(instance))
    made = translation.function(instance, index, loop)
    return None if made is None else wrapped(made, instance.store)
