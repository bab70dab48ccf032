"""The machine: a state one can print, `step()`, and a loop that runs it (spec: Execution, Configurations).

The state is a stack of frames; a frame has its locals, its operand stack and the block it is in. The loop
executes block after block: it pays for a block when it enters it, then runs its operations; the numeric ones
are all alike (the function in `numerics` that the row names), so a handful of kinds covers the whole table.
Calls between guest functions push frames and never recurse in Python; calls of the host do, and the store
bounds them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pywasmvm.errors import Exhaustion, Trap, TrapKind, WasmException, format_backtrace
from pywasmvm.interp.blocks import (
    BINARY,
    BRANCH,
    BRANCH_CAST,
    BRANCH_CAST_FAIL,
    BRANCH_NON_NULL,
    BRANCH_NULL,
    BRANCH_TABLE,
    BRANCH_UNLESS,
    CALL,
    CALL_INDIRECT,
    CALL_REF,
    CONST,
    CONST_BINARY,
    DROP,
    ENTER,
    EXECUTE,
    GLOBAL_GET,
    JUMPS,
    L_LOAD,
    L_UNARY,
    LC_ADD,
    LC_BINARY,
    LL_BINARY,
    LOAD,
    LOAD_DIRECT,
    LOCAL_BINARY,
    LOCAL_GET,
    LOCAL_GET_TWO,
    LOCAL_SET,
    LOCAL_STORE,
    LOCAL_TEE,
    MEMORY_KINDS,
    NOTHING,
    PLACES,
    PLAIN,
    PUSH,
    RETURN,
    RETURN_CALL,
    RETURN_CALL_INDIRECT,
    RETURN_CALL_REF,
    S_UNARY,
    SC_BINARY,
    SELECT,
    SL_BINARY,
    SS_BINARY,
    STORE,
    TO_BOTH,
    TO_BRANCH_IF,
    TO_BRANCH_UNLESS,
    TO_LOCAL,
    TO_LOCAL_BRANCH,
    UNWIND,
    VALUES,
    Block,
    Prepared,
)
from pywasmvm.interp.call import as_list, call_host, element, plain
from pywasmvm.interp.exception import handle
from pywasmvm.interp.frame import Frame
from pywasmvm.interp.fuse import run_again
from pywasmvm.interp.prepare import prepare
from pywasmvm.runtime.func import HostFunc, WasmFunc
from pywasmvm.runtime.gc import is_instance
from pywasmvm.runtime.limits import BIG_FRAME, QUANTUM
from pywasmvm.runtime.store import Store

#: Machines that may wait for each other: host or translated code is between them, which needs the C stack.
MOST_MACHINES = 500


class Tiers(Protocol):
    """What a higher tier does for the machine, which asks when code may have got hot."""

    #: For how many calls the first one counts that is made in another call from the host.
    anew: int

    def first(self, func: WasmFunc) -> Callable[..., Any] | None:
        """The function is about to be interpreted for the first time, unless there is something better."""

    def prepared(self, func: WasmFunc, prepared: Prepared) -> None:
        """The function has been made ready for being interpreted."""

    def promote(self, func: WasmFunc) -> None:
        """The function has been called often: give it code of its own, in `func.fast`."""

    def sample(self, frames: list[Frame]) -> None:
        """A quantum of work is over in these frames."""

    def enter(self, func: WasmFunc, loop: int) -> Callable[..., Any] | None:
        """What goes on from the head of a loop with all locals given, to the end of the function."""

    def stopped(self, error: Exception) -> Exception:
        """What came out of the code of this tier, as a trap if it was one."""


class Machine:
    """Runs one call from the host.

    Either `run()`, or `step()` until it says that nothing is left; `results` then holds canonical values.
    Between steps the whole state can be printed.
    """

    def __init__(self, store: Store, *, single: bool = False) -> None:
        self.store, self.single = store, single
        #: Where hot code goes, if this is the lower of two tiers.
        self.tiers: Tiers | None = None if single else getattr(store.engine, "tiers", None)
        self.frames: list[Frame] = []
        self.results: list[Any] = []

    def enter(self, func: WasmFunc, args: Sequence[Any]) -> None:
        """Set the machine up to call a function with canonical arguments."""
        prepared = self.prepared(func)
        frame = Frame(func, prepared, [*args, *prepared.zeros])
        if prepared.slots >= BIG_FRAME:
            self.store.reserve_frame(self.frames, frame, prepared.slots)
        self.frames.append(frame)

    def prepared(self, func: WasmFunc) -> Prepared:
        """The blocks of a function; shared by all instances of its module."""
        # Tiers change blocks, so they have blocks of their own.
        key = ("step" if self.single else "interp" if self.tiers is None else "tiered", func.index)
        shared = func.instance.module.prepared
        found = shared.get(key)
        if not isinstance(found, Prepared):
            found = prepare(func.instance.module, func.index, single=self.single)
            if self.tiers is not None:
                self.tiers.prepared(func, found)
            shared[key] = found
        if not self.single:
            func.prepared = found
        return found

    @classmethod
    def runner(cls, func: WasmFunc) -> Callable[..., Any]:
        """A function that makes a machine for each call."""
        store, count = func.store, len(func.type.results)

        def run(*args: Any) -> Any:
            if store.machines >= MOST_MACHINES:
                raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
            store.machines += 1
            try:
                machine = cls(store)
                machine.enter(func, args)
                results = machine.run()
            finally:
                store.machines -= 1
            return None if count == 0 else results[0] if count == 1 else tuple(results)

        return run

    def run(self) -> list[Any]:
        """Run to the end; the results. Raises Trap, or what a host function raised."""
        self._run(once=False)
        return self.results

    def step(self) -> bool:
        """Execute one instruction of a machine made with `single`; whether there is more to do."""
        if self.frames:
            self._run(once=True)
            # Detours belong to the branch that took them.
            while self.frames and self.frames[-1].block.detour:
                self._run(once=True)
        if self.frames:
            self.frames[-1].index = self.frames[-1].block.start
        return bool(self.frames)

    def __str__(self) -> str:
        if not self.frames:
            return f"finished: {self.results}"
        return "\n".join(str(frame) for frame in reversed(self.frames))

    # -- the loop ----------------------------------------------------------------------------------------

    def _run(self, once: bool) -> None:
        """Run, or execute one block; an exception that is caught on the way lets the run go on."""
        while self._execute(once):
            pass

    def _execute(self, once: bool) -> bool:
        """Whether an exception was caught and there is more to do at once."""
        store, frames, tiers = self.store, self.frames, self.tiers
        most = store.limits.call_depth
        depth_left = 1 << 62 if most is None else most - store.depth
        frame = frames[-1]
        stack, locals_, instance = frame.stack, frame.locals, frame.instance
        memory, globals_ = instance.memory0, instance.global_cells
        block: Block = frame.block
        budget = taken = store.take()
        metered, unsampled, single = store.metered, 0, self.single
        # Frames that were left, to be used again: making one costs as much as a dozen instructions.
        spare: list[Frame] = []
        nothing: list[Any] = []
        kind: int | None = 0
        index = 0
        callee: Any = None  # the function a call goes to
        fast: Callable[..., Any] | None = None
        tail = False
        try:
            if len(frames) > depth_left:
                raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
            while True:
                if block.fresh:
                    run_again(block)
                budget -= block.cost
                if budget < 0:
                    index, kind = block.start, NOTHING
                    owed, budget = budget, 0
                    budget = taken = store.poll(owed)
                    unsampled = 0
                    if tiers is not None:
                        tiers.sample(frames)
                # `memory` is None only where no operation reaches it, and a block ends in a jump or has a
                # successor: validation saw to both, which is what the suppressions below rest on.
                for kind, arg, index in block.ops:  # noqa: B007 - what stopped us, when something does
                    if kind is None:  # fused: what it computes, of what, and where the value goes
                        kind, compute, first, second, goal, place = arg
                        if kind == LC_ADD:
                            value = locals_[first] + second & compute
                        elif kind == LC_BINARY:
                            value = compute(locals_[first], second)
                        elif kind == L_LOAD:
                            value = compute(memory.u8, locals_[first] + second)[0]  # type: ignore[union-attr]  # validated: there is a memory
                        elif kind == LL_BINARY:
                            value = compute(locals_[first], locals_[second])
                        elif kind == SC_BINARY:
                            value = compute(stack.pop(), second)
                        elif kind == S_UNARY:
                            value = compute(stack.pop())
                        elif kind == SS_BINARY:
                            right = stack.pop()
                            value = compute(stack.pop(), right)
                        elif kind == L_UNARY:
                            value = compute(locals_[first])
                        elif kind == SL_BINARY:
                            value = compute(stack.pop(), locals_[second])
                        else:
                            value = compute(memory.u8, stack.pop() + second)[0]  # type: ignore[union-attr]  # validated: there is a memory
                        if goal == PUSH:
                            stack.append(value)
                        elif goal == TO_LOCAL:
                            locals_[place] = value
                        elif goal == TO_BOTH:
                            locals_[place] = value
                            stack.append(value)
                        elif goal == TO_BRANCH_UNLESS:
                            if not value:
                                block = place
                                break
                        elif goal == TO_BRANCH_IF:
                            if value:
                                block = place
                                break
                        elif goal == TO_LOCAL_BRANCH:
                            local, block = place
                            locals_[local] = value
                            break
                        else:
                            local, target = place
                            locals_[local] = value
                            if value:
                                block = target
                                break
                    elif kind <= VALUES:
                        if kind == LOCAL_GET:
                            stack.append(locals_[arg])
                        elif kind == CONST_BINARY:
                            compute, right = arg
                            stack[-1] = compute(stack[-1], right)
                        elif kind == BINARY:
                            right = stack.pop()
                            stack[-1] = arg(stack[-1], right)
                        elif kind == CONST:
                            stack.append(arg)
                        elif kind == LOCAL_GET_TWO:
                            first, second = arg
                            stack.append(locals_[first])
                            stack.append(locals_[second])
                        else:  # UNARY
                            stack[-1] = arg(stack[-1])
                    elif kind <= PLACES:
                        if kind == LOCAL_SET:
                            locals_[arg] = stack.pop()
                        elif kind == STORE:
                            pack, offset = arg
                            value = stack.pop()
                            pack(memory.u8, stack.pop() + offset, value)  # type: ignore[union-attr]  # validated: there is a memory
                        elif kind == LOAD_DIRECT:
                            unpack, offset = arg
                            stack[-1] = unpack(memory.u8, stack[-1] + offset)[0]  # type: ignore[union-attr]  # validated: there is a memory
                        elif kind == LOCAL_BINARY:
                            compute, second = arg
                            stack[-1] = compute(stack[-1], locals_[second])
                        elif kind == LOCAL_STORE:
                            pack, offset, second = arg
                            pack(memory.u8, stack.pop() + offset, locals_[second])  # type: ignore[union-attr]  # validated: there is a memory
                        elif kind == LOCAL_TEE:
                            locals_[arg] = stack[-1]
                        elif kind == GLOBAL_GET:
                            stack.append(globals_[arg].cell_contents)
                        else:  # GLOBAL_SET
                            globals_[arg].cell_contents = stack.pop()
                    elif kind <= JUMPS:
                        if kind == CALL:
                            callee = instance.funcs[arg]
                            break
                        elif kind == RETURN:
                            frames.pop()
                            if not frames:
                                self.results = stack[-arg:] if arg else []
                                return False
                            left, frame = frame, frames[-1]
                            values, stack = stack, frame.stack
                            if arg == 1:
                                stack.append(values[-1])
                            elif arg:
                                stack += values[-arg:]
                            if not once and left.prepared.slots < BIG_FRAME:  # big ones are known by identity
                                values.clear()
                                left.locals = nothing
                                spare.append(left)
                            locals_, block = frame.locals, frame.block
                            if frame.instance is not instance:
                                instance = frame.instance
                                memory, globals_ = instance.memory0, instance.global_cells
                            break
                        elif kind == BRANCH_UNLESS:
                            if not stack.pop():
                                block = arg
                                break
                        elif kind == BRANCH:
                            block = arg
                            break
                        elif kind == BRANCH_TABLE:
                            targets, default = arg
                            selector = stack.pop()
                            block = targets[selector] if selector < len(targets) else default
                            break
                        else:  # BRANCH_IF
                            if stack.pop():
                                block = arg
                                break
                    elif kind == SELECT:
                        condition, other = stack.pop(), stack.pop()
                        if not condition:
                            stack[-1] = other
                    elif kind == LOAD:
                        load, offset = arg
                        stack[-1] = load(memory.u8, stack[-1] + offset)  # type: ignore[union-attr]  # validated: there is a memory
                    elif kind == DROP:
                        stack.pop()
                    elif kind == EXECUTE:
                        execute, immediate = arg
                        extra = execute(frame, immediate)
                        if extra:
                            budget -= extra
                            if budget < 0:
                                owed, budget = budget, 0
                                budget = store.poll(owed)
                    elif kind in (CALL_INDIRECT, RETURN_CALL_INDIRECT):
                        type_, table = arg
                        callee = element(instance.tables[table].elements, stack.pop(), type_)
                        tail = kind == RETURN_CALL_INDIRECT
                        break
                    elif kind == RETURN_CALL:
                        callee, tail = instance.funcs[arg], True
                        break
                    elif kind == PLAIN:
                        plain(frame, *arg)
                    elif kind == UNWIND:
                        height, arity = arg
                        stack[height:] = stack[-arity:] if arity else ()
                    elif kind in (CALL_REF, RETURN_CALL_REF):
                        callee = stack.pop()
                        if callee is None:
                            raise Trap(TrapKind.NULL_FUNCTION_REFERENCE)
                        tail = kind == RETURN_CALL_REF
                        break
                    elif kind == BRANCH_NULL:
                        if stack[-1] is None:
                            stack.pop()
                            block = arg
                            break
                    elif kind == BRANCH_NON_NULL:
                        if stack[-1] is not None:
                            block = arg
                            break
                        stack.pop()
                    elif kind == BRANCH_CAST:
                        if is_instance(stack[-1], arg[1]):
                            block = arg[0]
                            break
                    elif kind == BRANCH_CAST_FAIL:
                        if not is_instance(stack[-1], arg[1]):
                            block = arg[0]
                            break
                    elif kind == ENTER:
                        fast = tiers.enter(frame.func, arg[1])  # type: ignore[union-attr]  # only tiers leave this operation
                        if fast is None:
                            arg[0].ops = arg[0].ops[1:]
                            continue
                        callee, tail = frame.func, True
                        budget += block.cost  # translated code pays for the iteration itself
                        break
                    elif kind != NOTHING:
                        raise LookupError(f"operation of kind {kind}")
                else:
                    block = block.next  # type: ignore[assignment]  # only a jump ends the last block
                    if once:
                        frame.block = block
                        return False
                    continue
                if callee is None:
                    if once:
                        frame.block = block
                        return False
                    continue
                # A call. The frame waits at this instruction and goes on with the block after it.
                frame.index, frame.block = index, block.next  # type: ignore[assignment]
                count = callee.arity
                if fast is not None:  # this very frame goes on as translated code
                    args = locals_
                elif count:
                    args = stack[-count:]
                    del stack[-count:]
                else:
                    args = []
                if tail:
                    # Its frame makes room for that of the callee, whose results are those of the caller.
                    frames.pop()
                host = type(callee) is HostFunc
                if fast is None and not host:
                    fast = callee.fast
                    if fast is None and tiers is not None and callee.prepared is None:
                        fast = tiers.first(callee)
                if fast is None and not host:
                    if len(frames) >= depth_left:
                        raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
                    prepared: Prepared | None = None if single else callee.prepared
                    if prepared is None:
                        prepared = self.prepared(callee)
                    if tiers is not None:
                        prepared.heat -= 1 if prepared.serial == store.serial else tiers.anew
                        prepared.serial = store.serial
                        if prepared.heat <= 0:
                            tiers.promote(callee)
                    args += prepared.zeros
                    if prepared.slots >= BIG_FRAME:
                        frame = Frame(callee, prepared, args)
                        store.reserve_frame(frames, frame, prepared.slots)
                    elif spare:
                        frame = spare.pop()
                        frame.func, frame.prepared, frame.locals = callee, prepared, args
                        frame.instance = callee.instance
                    else:
                        frame = Frame(callee, prepared, args)
                    frames.append(frame)
                    stack, locals_, block = frame.stack, args, prepared.entry
                    if frame.instance is not instance:
                        instance = frame.instance
                        memory, globals_ = instance.memory0, instance.global_cells
                else:
                    if metered:  # what is left goes with the call
                        unsampled += taken - budget
                        store.give_back(budget)
                        budget = 0
                    store.depth += len(frames)
                    try:
                        if fast is None:
                            returned = call_host(callee, frame, args)
                        else:
                            returned = as_list(fast(*args), len(callee.type.results))
                    finally:
                        store.depth -= len(frames)
                    fast = None
                    if tail:
                        if not frames:
                            self.results = list(returned)
                            return False
                        frame = frames[-1]
                        stack, locals_, instance = frame.stack, frame.locals, frame.instance
                        memory, globals_ = instance.memory0, instance.global_cells
                    stack.extend(returned)
                    # The next poll may be far, and the call may have taken long.
                    store.check_deadline()
                    if metered:
                        budget = taken = store.take()
                        if unsampled >= QUANTUM and tiers is not None:
                            unsampled = 0
                            tiers.sample(frames)
                    block = frame.block
                callee, tail = None, False
                if once:
                    frame.block = block
                    return False
        except Exception as error:
            frame.index = index
            if isinstance(error, WasmException) and self._caught(error):
                return not once
            stopped = self._stopped(error, kind)
            if stopped is error:
                raise
            raise stopped from None
        finally:
            store.give_back(budget)

    def _caught(self, error: WasmException) -> bool:
        """Whether a handler takes the exception; the frames inside of it are left."""
        frames = self.frames
        for place in range(len(frames) - 1, -1, -1):
            if handle(frames[place], error):
                del frames[place + 1 :]
                return True
        return False

    def _stopped(self, error: Exception, kind: int | None) -> Exception:
        """What to raise for an exception that ended the loop: traps get their kind and wasm frames."""
        if self.tiers is not None:
            error = self.tiers.stopped(error)
        if kind in MEMORY_KINDS and isinstance(error, IndexError | struct.error | OverflowError):
            error = Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS)
        elif isinstance(error, RecursionError):
            error = Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
        frames = tuple(frame.trace() for frame in reversed(self.frames))
        if isinstance(error, Trap):
            error.frames += frames
        else:
            error.add_note(format_backtrace(frames))
        self.frames.clear()
        return error


class Interpreter:
    """The engine `interp`."""

    name = "interp"

    def prepare(self, func: WasmFunc) -> Callable[..., Any]:
        """A machine for each call from outside; calls inside are frames of the same machine."""
        return Machine.runner(func)

    def stopped(self, error: BaseException, store: Store) -> BaseException:
        """The machine has seen to it already."""
        return error

    def interrupt(self, store: Store) -> None:
        """The machine looks at the stop flag after every quantum of work."""

    def resume(self, store: Store) -> None:
        """The flag is all there is."""
