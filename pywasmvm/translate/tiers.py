"""The engine `auto`: the interpreter runs what runs once, and what gets hot moves to translated code.

A function moves when it has been called often, or when the interpreter finds itself in one of its loops at
the end of a quantum of work. A running loop does not have to end first: its head is given an operation that
enters translated code there, with the locals as they are (`enter`), and what that returns is what the frame
returns. So translation, which costs as much as running a function some fifty times, is paid only by code that
earns it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
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
    """When code moves: when interpreting it has cost what translating it will cost, so that it never costs
    more than twice what it would had one known before.

    A function moves after `calls` calls; its loops when the interpreter has been found in it so often, at the
    end of a quantum of work, that it must have run `worth` times as many instructions as the function has,
    and two times later when it only waits for a call. `callers` is how many frames are looked at then.
    """

    calls: int = 350
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

    def prepare(self, func: WasmFunc) -> Callable[..., Any]:
        """Runs the function on the interpreter until it has been called often enough."""
        known = self.first(func)
        if known is not None:
            return known
        run = Machine.runner(func)
        left = self.policy.calls

        def count(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if func.fast is None:
                    self.promote(func)
                return func.fast(*args)  # type: ignore[misc]  # that is what it is now
            return run(*args)

        return count

    def stopped(self, error: BaseException, store: Store | None = None) -> BaseException:
        """Faults of translated code as traps."""
        return faults.stopped(error)

    # -- what the machine calls --------------------------------------------------------------------------

    def first(self, func: WasmFunc) -> Callable[..., Any] | None:
        """Translated code of a function, if an earlier process has left some."""
        translation = self._translation(func)
        if translation.known(func.index):
            self.promote(func)
        elif translation.module.cache is not None:
            translation.interpreted[func.index] = None
        return func.fast

    def prepared(self, func: WasmFunc, prepared: Prepared) -> None:
        """Loops that an earlier process found hot are left at once."""
        prepared.heat = self.policy.calls
        known = self._translation(func).known_loops(func.index)
        if known:
            _leave(prepared, known)

    def _translation(self, func: WasmFunc) -> Translation:
        return translation_of(func.instance, self.translator.options(func.instance))

    def promote(self, func: WasmFunc) -> None:
        """From now on the function runs translated."""
        func.fast = self.translator.prepare(func)
        func.instance.set_code(func.index, func.fast)

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
            block.ops = ((ENTER, (block, loop), loop), *block.ops)
    prepared.loops = [(block, loop) for block, loop in prepared.loops if loop not in loops]


def entered(instance: Instance, index: int, loop: int, translator: Translator) -> Callable[..., Any] | None:
    """Translated code of a function from the head of a loop on."""
    translation = translation_of(instance, translator.options(instance))
    made = translation.function(instance, index, loop)
    return None if made is None else wrapped(made, instance.store)
