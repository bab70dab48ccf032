"""Loops that find out about deadlines at no cost: CPython 3.12 and 3.13 can call us at their next jump.

`sys.monitoring` counts events per code object, so nothing is armed until a call is late. Then the watchdog's
thread arms the backward jumps of the translated code that the call has on its stack, and the callback, in the
thread of the call, lets the store raise its Exhaustion. Other Pythons look at a flag in every loop; so do
these where other tools have all the tool ids. (Calls are no matter of ours: `runtime/doors.py`.)

Code objects are shared by all instances of a module, so the callback runs in the wrong thread, too, or under
another store in the same thread, and asks who is running. There is no lock: what is armed and should not be
disarms itself at its next jump, and what should be and is not is armed at the watchdog's next tick.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from _thread import get_ident
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from pywasmvm.runtime.thunks import is_entry
from pywasmvm.translate.link import PREFIX

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store

#: Tool ids that Python reserves for nobody.
_TOOL_IDS = (4, 3)

_NAME = "pywasmvm deadlines"


class _Late:
    """A store whose call is late, and the code that is armed for it, by identity."""

    __slots__ = ("codes", "store")

    def __init__(self, store: Store) -> None:
        self.store = weakref.ref(store)
        self.codes: dict[int, CodeType] = {}


#: By identity of the store.
_LATE: dict[int, _Late] = {}


def _can() -> bool:
    """Whether this is a Python where all of this has been tried."""
    return (
        sys.implementation.name == "cpython"
        and (3, 12) <= sys.version_info[:2] <= (3, 13)
        # Without its lock, code would be changed under those who run it, and frames walked while they change.
        and getattr(sys, "_is_gil_enabled", lambda: True)()
    )


def _monitoring() -> Any:
    return getattr(sys, "monitoring")  # noqa: B009 - the type checker looks at 3.11, which has none


def _tool() -> int | None:
    """Our tool id, taken when first asked for; None where there is none for us."""
    if not _can():
        return None
    monitoring = _monitoring()
    for tool in _TOOL_IDS:
        if monitoring.get_tool(tool) == _NAME:
            return tool
    for tool in _TOOL_IDS:
        try:
            monitoring.use_tool_id(tool, _NAME)
        except ValueError:
            continue
        return tool
    return None


def available() -> bool:
    """Whether loops can do without looking at the stop flag."""
    return _tool() is not None


def arm(store: Store) -> None:
    """The running call of the store is late: its loops shall stop. For the watchdog's thread."""
    tool = _tool()
    if tool is None:
        return
    monitoring = _monitoring()
    event = monitoring.events.JUMP
    late = _LATE.get(id(store))
    if late is None or late.store() is not store:
        late = _LATE[id(store)] = _Late(store)
    with contextlib.suppress(ValueError):  # somebody has taken our tool id away: the next tick takes another
        monitoring.register_callback(tool, event, _jumped)
        for code in _on_the_stack(store):
            late.codes[id(code)] = code
            monitoring.set_local_events(tool, code, event)


def disarm(store: Store) -> None:
    """The call is late no longer."""
    late = _LATE.get(id(store))
    if late is not None and late.store() is store:
        _forget(id(store))


def _forget(key: int) -> None:
    late = _LATE.pop(key, None)
    if late is None:
        return
    others = list(_LATE.values())
    for code in list(late.codes.values()):
        if not any(id(code) in other.codes for other in others):
            _quiet(code)


def _quiet(code: CodeType) -> None:
    tool = _tool()
    if tool is not None:
        with contextlib.suppress(ValueError):
            _monitoring().set_local_events(tool, code, 0)


def _jumped(code: CodeType, start: int, target: int) -> None:
    """Armed code is about to jump. Raises Exhaustion if that is the late call."""
    here, elsewhere = False, False
    for key, late in list(_LATE.items()):
        store = late.store()
        if store is None or not store.late:
            _forget(key)
        elif store.owner == get_ident():
            here = True
        elif id(code) in late.codes:
            elsewhere = True
    if here:
        store = _running(sys._getframe(1))
        if store is not None and store.late:
            disarm(store)
            store.halt()
    if here or not elsewhere:
        # Either nobody is late, or a call that waits for this one: to ask once a tick is enough.
        _quiet(code)


def _running(frame: FrameType | None) -> Store | None:
    """The store whose code a frame runs."""
    while frame is not None:
        if is_entry(frame.f_code):
            return frame.f_locals.get("store")
        frame = frame.f_back
    return None


def _on_the_stack(store: Store) -> list[CodeType]:
    """Translated code of the store's running call, each once.

    Its thread goes on meanwhile: what is missed is on the stack at the next tick, if it matters.
    """
    frame = sys._current_frames().get(store.owner)
    found: dict[int, CodeType] = {}
    inside: dict[int, CodeType] = {}  # of the call from the host whose frames are being looked at
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PREFIX):
            inside[id(code)] = code
        elif is_entry(code):
            if frame.f_locals.get("store") is store:
                found |= inside
            inside = {}
        frame = frame.f_back
    return list(found.values())
