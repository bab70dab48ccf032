"""What the machine needs for calls: the function that an indirect call means, calls of the host, and of rows
of the table that have no kind of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.interp.frame import Frame
from pywasmvm.runtime.func import Func, HostFunc
from pywasmvm.types import DefType


def element(elements: list[Any], index: int, type_: DefType) -> Func:
    """The function an indirect call goes to."""
    if index >= len(elements):
        raise Trap(TrapKind.UNDEFINED_ELEMENT)
    found: Func | None = elements[index]
    if found is None:
        raise Trap(TrapKind.UNINITIALIZED_ELEMENT, str(index))
    if found.deftype is not type_ and type_ not in found.deftype.supers:
        raise Trap(TrapKind.INDIRECT_CALL_TYPE_MISMATCH)
    return found


def as_list(returned: Any, count: int) -> Sequence[Any]:
    """What the code of a function returned: None, one value or a tuple."""
    return () if count == 0 else (returned,) if count == 1 else returned


def call_host(callee: Func, frame: Frame, args: list[Any]) -> Sequence[Any]:
    if not isinstance(callee, HostFunc):
        raise TypeError(f"{callee!r} is neither a guest nor a host function")
    if callee.caller:
        return callee.results(callee.callable(frame.instance.caller, *args))
    return callee.results(callee.callable(*args))


def plain(frame: Frame, compute: Any, count: int, results: int) -> None:
    """A row with a signature and a number of operands that has no kind of its own."""
    values = frame.pop_many(count) if count else []
    returned = compute(*values)
    if results == 1:
        frame.stack.append(returned)
    elif results:
        frame.stack.extend(returned)
