"""Everything a call does, instruction by instruction: what `pywasmvm trace` prints.

The work of a step is found by comparing: the locals of the frame always, memories where the instruction may
have written one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pywasmvm.debug.stepper import State, Stepper
from pywasmvm.isa import Opcode
from pywasmvm.runtime.func import WasmFunc
from pywasmvm.runtime.instance import Instance
from pywasmvm.runtime.memory import Memory

#: Instructions besides stores that change memory; those that call may run any host function.
_WRITING = frozenset({"memory.fill", "memory.copy", "memory.init"})


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes of memory number `memory` that changed, from `address` on."""

    memory: int
    address: int
    before: bytes
    after: bytes

    def __str__(self) -> str:
        where = f"memory {self.memory} " if self.memory else ""
        if len(self.after) > 8:
            return f"{where}{self.address:#x}: {len(self.after)} bytes"
        return f"{where}{self.address:#x}: {self.before.hex(' ')} -> {self.after.hex(' ')}"


@dataclass(frozen=True, slots=True)
class Step:
    """One executed instruction: the state before it, and what it did.

    `stack` are the operands afterwards (those of the function that runs next), `locals` the changed ones by
    name with their new value, `memory` the changed bytes, `pages` the memories that grew with their new size.
    """

    before: State
    stack: tuple[Any, ...]
    locals: dict[str, Any] = field(default_factory=dict)
    memory: tuple[Change, ...] = ()
    pages: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        before = self.before
        place = f"{before.offset:06x}  {'  ' * before.depth}{before.instruction}"
        changes = [f"{name} = {value}" for name, value in self.locals.items()]
        changes += map(str, self.memory)
        changes += [f"memory {number}: {pages} pages" for number, pages in self.pages]
        text = f"{place:<44}  [{' '.join(map(str, self.stack))}]"
        return f"{text:<64}  {'; '.join(changes)}".rstrip()


def trace(instance: Instance, function: str | WasmFunc, *args: Any) -> Iterator[Step]:
    """Run a call and yield each step once it is done. Raises Trap after the last one that completed."""
    stepper = Stepper(instance, function, *args)
    while not stepper.finished:
        yield _step(stepper)


def _step(stepper: Stepper) -> Step:
    frame = stepper.frame
    before, old_locals = stepper.state, list(frame.locals)
    opcode = frame.prepared.code.ops[frame.index]
    memories = frame.instance.memories
    sizes = [memory.pages for memory in memories]
    copies = [bytes(memory.u8) for memory in memories] if _writes(opcode) else []
    stepper.step()
    names = list(before.locals)
    changed = [n for n, (old, new) in enumerate(zip(old_locals, frame.locals, strict=True)) if old is not new]
    after = _named(stepper, before, names, changed, frame.locals)
    found = [change for n, old in enumerate(copies) for change in _changes(n, old, memories[n])]
    pages = [(n, m.pages) for n, (m, old) in enumerate(zip(memories, sizes, strict=True)) if m.pages != old]
    stack = stepper.results if stepper.finished else stepper.stack
    return Step(before, stack, after, tuple(found), tuple(pages))


def _named(
    stepper: Stepper, before: State, names: list[str], changed: list[int], values: list[Any]
) -> dict[str, Any]:
    """The changed locals as a host sees them."""
    if not stepper.finished and stepper.state.depth == before.depth:
        shown = stepper.state.locals
        return {names[n]: shown[names[n]] for n in changed if shown[names[n]] != before.locals[names[n]]}
    return {names[n]: values[n] for n in changed}


def _writes(opcode: Opcode) -> bool:
    """Whether an instruction may change memory: stores do, bulk operations do, and what a call runs may."""
    stores = opcode.access is not None and ".store" in opcode.name
    return stores or opcode.name in _WRITING or "call" in opcode.name


def _changes(number: int, before: bytes, memory: Memory) -> Iterator[Change]:
    """Runs of bytes that differ from what they were."""
    now = memory.data[: len(before)]
    differing = np.flatnonzero(np.frombuffer(before, dtype=np.uint8) != now)
    if not len(differing):
        return
    for run in np.split(differing, np.flatnonzero(np.diff(differing) > 1) + 1):
        start, end = int(run[0]), int(run[-1]) + 1
        yield Change(number, start, before[start:end], now[start:end].tobytes())
