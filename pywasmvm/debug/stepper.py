"""Runs a function one instruction at a time, with the whole state to look at in between.

It is the reference interpreter itself that runs, prepared with one instruction to a block.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pywasmvm.debug.disassembly import Disassembler, Line
from pywasmvm.interp.frame import Frame
from pywasmvm.interp.machine import Machine
from pywasmvm.module import Module
from pywasmvm.runtime.func import WasmFunc
from pywasmvm.runtime.instance import Instance
from pywasmvm.runtime.values import to_canonical, to_python
from pywasmvm.types import ValType


@dataclass(frozen=True, slots=True)
class State:
    """Where a function stands: before the instruction `instruction` at byte `offset` of its module.

    `stack` holds the operands as they are inside (integers unsigned), the top last; `locals` the parameters
    and locals by name (or number) as a host sees them. `depth` counts the frames below.
    """

    function: str
    index: int
    offset: int
    instruction: str
    stack: tuple[Any, ...]
    locals: dict[str, Any]
    depth: int

    def __str__(self) -> str:
        stack = " ".join(map(str, self.stack))
        return f"{self.function} +{self.offset:#x}  {self.instruction}  [{stack}]"


class Stepper:
    """Steps through a call of an exported function, or of a `Func`, with the given arguments.

    Before the first step, and after each, `instruction` is what runs next. Calls step into guest functions;
    host functions run as one step. A trap ends the run and is raised by the step that meets it.
    """

    def __init__(self, instance: Instance, function: str | WasmFunc, *args: Any) -> None:
        func = instance.exports[function] if isinstance(function, str) else function
        if not isinstance(func, WasmFunc):
            raise TypeError(f"{function!r} is no function of a guest: {func!r}")
        if len(args) != func.arity:
            raise TypeError(f"{func.name} takes {func.arity} arguments ({func.type}), got {len(args)}")
        values = [to_canonical(t)(v) for t, v in zip(func.type.params, args, strict=True)]
        self.instance, self.func = instance, func
        self._machine = Machine(func.store, single=True)
        self._machine.enter(func, values)
        self._breakpoints: set[tuple[Module, int, int | None]] = set()

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the call is over."""
        return not self._machine.frames

    @property
    def results(self) -> tuple[Any, ...]:
        """What the call gave back, as a host sees it; empty before it is over."""
        types = self.func.type.results
        if not self.finished or len(self._machine.results) != len(types):
            return ()
        return tuple(to_python(t)(v) for t, v in zip(types, self._machine.results, strict=True))

    @property
    def frames(self) -> tuple[State, ...]:
        """The state of every active function, the innermost first; the others wait at their calls."""
        frames = self._machine.frames
        return tuple(_state(frame, depth) for depth, frame in reversed(list(enumerate(frames))))

    @property
    def state(self) -> State:
        """The state of the innermost function. Raises RuntimeError when the call is over."""
        if self.finished:
            raise RuntimeError("the call is over")
        frames = self._machine.frames
        return _state(frames[-1], len(frames) - 1)

    @property
    def instruction(self) -> str:
        """The instruction that runs next, as text."""
        return self.state.instruction

    @property
    def offset(self) -> int:
        """Where it stands in its module."""
        return self.state.offset

    @property
    def stack(self) -> tuple[Any, ...]:
        """The operands of the innermost function, the top last; integers unsigned."""
        return self.state.stack

    @property
    def locals(self) -> dict[str, Any]:
        """The locals of the innermost function by name."""
        return self.state.locals

    @property
    def frame(self) -> Frame:
        """The innermost frame of the machine itself. Raises RuntimeError when the call is over."""
        if self.finished:
            raise RuntimeError("the call is over")
        return self._machine.frames[-1]

    def __str__(self) -> str:
        return "\n".join(map(str, self.frames)) if not self.finished else f"finished: {self.results}"

    # -- moving ------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Execute one instruction; whether there is another. Raises Trap, or what a host function raised."""
        store = self.func.store
        store.enter()
        try:
            return self._machine.step()
        finally:
            store.leave()

    def next(self) -> bool:
        """Execute one instruction, and all of a function that it calls."""
        depth = len(self._machine.frames)
        more = self.step()
        while more and len(self._machine.frames) > depth and not self._at_breakpoint():
            more = self.step()
        return more

    def out(self) -> bool:
        """Run until the innermost function is over."""
        depth = len(self._machine.frames)
        more = self.step()
        while more and len(self._machine.frames) >= depth and not self._at_breakpoint():
            more = self.step()
        return more

    def break_at(self, function: str | int, offset: int | None = None) -> None:
        """Stop `run` at an instruction of a function of this instance's module, or at its first one.

        Raises KeyError for a function that is not there, ValueError for an offset with no instruction.
        """
        module = self.instance.module
        index = module.functions[function].index
        if offset is not None and offset not in {line.offset for line in _lines(module, index)}:
            raise ValueError(f"{function} has no instruction at offset {offset:#x}")
        self._breakpoints.add((module, index, offset))

    def run(self) -> bool:
        """Run to the next breakpoint or to the end; whether there is more to run."""
        while self.step():
            if self._at_breakpoint():
                return True
        return False

    def _at_breakpoint(self) -> bool:
        if not self._breakpoints:
            return False
        frame = self._machine.frames[-1]
        module, index = frame.instance.module, frame.func.index
        offset = frame.prepared.code.offsets[frame.index]
        first = frame.index == 0 and (module, index, None) in self._breakpoints
        return first or (module, index, offset) in self._breakpoints

    def __iter__(self) -> Iterator[State]:
        """The state before every instruction that is left, each executed when the next state is asked for."""
        while not self.finished:
            yield self.state
            self.step()


@functools.lru_cache(maxsize=256)
def _lines(module: Module, index: int) -> tuple[Line, ...]:
    """The instructions of a function as a listing has them."""
    return tuple(Disassembler(module.syntax).lines(index))


def local_types(frame: Frame) -> list[ValType]:
    """The types of a frame's parameters and locals."""
    found = list(frame.func.type.params)
    for count, type_ in frame.prepared.code.locals:
        found += [frame.instance.module.context.close(type_)] * count
    return found


def _state(frame: Frame, depth: int) -> State:
    module, index = frame.instance.module, frame.func.index
    line = _lines(module, index)[frame.index]
    names = module.names.locals.get(index, {})
    shown = {
        names.get(number, str(number)): to_python(type_)(value)
        for number, (type_, value) in enumerate(zip(local_types(frame), frame.locals, strict=True))
    }
    return State(module.function_name(index), index, line.offset, line.text, tuple(frame.stack), shown, depth)
