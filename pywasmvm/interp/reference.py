"""Reference instructions, and `unreachable`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.interp.frame import Frame


def unreachable(frame: Frame, immediate: None) -> None:
    """The trap that a guest asks for."""
    raise Trap(TrapKind.UNREACHABLE)


def _null(frame: Frame, heap: object) -> None:
    frame.stack.append(None)


def _is_null(frame: Frame, immediate: None) -> None:
    frame.stack[-1] = 1 if frame.stack[-1] is None else 0


def _func(frame: Frame, index: int) -> None:
    frame.stack.append(frame.instance.funcs[index])


def _as_non_null(frame: Frame, immediate: None) -> None:
    if frame.stack[-1] is None:
        raise Trap(TrapKind.NULL_REFERENCE)


EXECUTED: dict[str, Callable[[Any, Any], int | None]] = {
    "ref.null": _null,
    "ref.is_null": _is_null,
    "ref.func": _func,
    "ref.as_non_null": _as_non_null,
}
