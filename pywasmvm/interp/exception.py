"""Exceptions: throwing, and which handler of a function takes what was thrown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pywasmvm.errors import Trap, TrapKind, WasmException
from pywasmvm.interp.blocks import Block
from pywasmvm.interp.frame import Frame
from pywasmvm.runtime.tag import Exn


def throw(frame: Frame, tag_index: int) -> None:
    """Raise an exception with the operands the tag asks for."""
    tag = frame.instance.tags[tag_index]
    count = len(tag.type.type.params)
    values = tuple(frame.pop_many(count)) if count else ()
    raise WasmException(tag, values, Exn(tag, values))


def throw_ref(frame: Frame, immediate: None) -> None:
    """Raise an exception that was caught before; it stays the same one."""
    exn = frame.stack.pop()
    if exn is None:
        raise Trap(TrapKind.NULL_EXCEPTION_REFERENCE)
    raise WasmException(exn.tag, exn.values, exn)


@dataclass(slots=True)
class Clause:
    """A catch clause: `tag` is None for those that take everything, `reference` adds the exception itself.

    The branch cuts the operand stack to `height` and goes to `target`.
    """

    tag: int | None
    reference: bool
    target: Block
    height: int


@dataclass(slots=True)
class Handler:
    """A `try_table`: its clauses cover the instructions after `start` and before `end`."""

    start: int
    end: int
    clauses: list[Clause]


def handle(frame: Frame, error: WasmException) -> bool:
    """Let the frame's innermost fitting clause take the exception; whether there was one.

    A frame that waits for a call, or the one that threw, is at the instruction `frame.index`.
    """
    at = frame.index
    for handler in reversed(frame.prepared.handlers):  # the last one opened is the innermost
        if not handler.start < at < handler.end:
            continue
        for clause in handler.clauses:
            if clause.tag is None or frame.instance.tags[clause.tag] is error.tag:
                _branch(frame, clause, error)
                return True
    return False


def _branch(frame: Frame, clause: Clause, error: WasmException) -> None:
    carried: list[Any] = [] if clause.tag is None else list(error.values)
    if clause.reference:
        if error.exn is None:  # a host function threw it
            error.exn = Exn(error.tag, error.values)  # type: ignore[arg-type]
        carried.append(error.exn)
    frame.stack[clause.height :] = carried
    frame.block = clause.target
