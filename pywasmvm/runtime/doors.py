"""Doors in front of functions: how calls find out that time is over, and pay nothing while it is not.

Code calls a guest function through its closure cell or through `Func.code`. The watchdog closes the door of a
store whose call is late: it puts a small function into all of these places, and who calls next runs into it.
That function lets the store decide; if it is not the late call that knocks (that one may have ended just
now), the door is opened and the call goes through.

There is no lock. A closed door is only ever slow, never wrong, so all that can go wrong when two threads
write at the same time is a door that stays open, for which the watchdog comes again at its next tick, or one
that stays closed until somebody knocks. Only the thread that the store belongs to opens doors.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pywasmvm.errors import Exhaustion, Frame

if TYPE_CHECKING:
    from pywasmvm.runtime.func import WasmFunc
    from pywasmvm.runtime.store import Store


def close(store: Store) -> None:
    """Every function of the store that has been called before asks the store at its next call."""
    try:
        instances = list(store.instances)
    except RuntimeError:  # the other thread has just added one
        return
    for instance in instances:
        for index in list(instance.codes):
            func: Any = instance.funcs[index]
            func.code = door = functools.partial(_knock, func)
            cell = instance.code_cells.get(index)
            if cell is not None:
                cell.cell_contents = door


def open_all(store: Store) -> None:
    """Calls go straight to what runs the functions again."""
    for instance in list(store.instances):
        for index, code in list(instance.codes.items()):
            instance.set_code(index, code)


def _knock(func: WasmFunc, *args: Any) -> Any:
    try:
        func.store.halt()
    except Exhaustion as error:
        instance = func.instance
        module, index = instance.module, func.index
        error.frames = (Frame(module.name, module.function_name(index), index, None, None),)
        raise
    # The watchdog may have closed this one after all were opened. It must not stay so: Python functions
    # that others call for them need the C stack, and a recursion would come through here again and again.
    code = func.instance.codes[func.index]
    func.instance.set_code(func.index, code)
    return code(*args)
