"""`Store`: owner of everything a guest can touch, and keeper of its limits (spec: Execution, Store).

A store belongs to one thread at a time. Calls from the host nest (a host function may call the guest
again); the outermost one starts the clock.
"""

from __future__ import annotations

import gc
import sys
import time
import weakref
from _thread import get_ident
from types import CellType
from typing import TYPE_CHECKING, Any

from pywasmvm.errors import Exhaustion, TrapKind
from pywasmvm.runtime import doors
from pywasmvm.runtime.engine import Engine, engine_named
from pywasmvm.runtime.limits import FRAME_SLOTS, QUANTUM, REENTRY_DEPTH, StoreLimits
from pywasmvm.runtime.watchdog import WATCHDOG

if TYPE_CHECKING:
    from pywasmvm.runtime.instance import Instance

#: What runs functions when nobody says.
DEFAULT_ENGINE = "auto"

#: Python frames that `REENTRY_DEPTH` turns between host and guest may need.
_RECURSION_LIMIT = 8_000

#: Calls of translated functions that may nest when no limit is set, or a higher one.
_MOST_FRAMES = 60_000

#: Python frames that such a call may take: the function, and what counts its calls (`translate/wrappers.py`).
_FRAMES_OF_A_CALL = 2

#: Python frames for the host itself, besides those of translated functions.
_SPARE_FRAMES = 2_000


def _kinds(limits: StoreLimits) -> tuple[object, ...]:
    """What of the limits decides which code is made."""
    return limits.seconds is None, limits.fuel is None, limits.call_depth


class Store:
    """Memories, tables, globals and functions share a store with their instances.

    `limits` may be replaced between calls; how large a memory may ever get is fixed when it is made.
    `engine` names what runs functions: `"interp"`, `"translate"`, or `"auto"`, which moves to translated
    code what gets hot. Raises ValueError for an unknown engine.
    """

    def __init__(self, limits: StoreLimits | None = None, *, engine: str | None = None) -> None:
        self._limits = limits if limits is not None else StoreLimits()
        self.engine: Engine = engine_named(DEFAULT_ENGINE if engine is None else engine)
        self.pages = 0  # of all memories of this store
        self.elements = 0  # of all tables of this store
        self.heap = 0  # fields and elements of all its structs and arrays, and one for each
        self._fuel = self._limits.fuel
        self._deadline: float | None = None
        self.owner = 0  # thread of the running call, or of the last one
        self.nesting = 0  # calls from the host that are active
        self.serial = 0  # of the outermost call that runs or ran last
        #: A call may begin without `enter`: nothing has to be set up for it.
        self.ready = False
        #: A call may not end without `leave`: there is something to clear away.
        self.untidy = False
        #: Whether the watchdog's thread sees to the time limit; else engines look at the clock.
        self.watched = False
        self._expired = -1
        #: Set when the running call is out of time: loops of translated code look at it.
        self.stop = CellType(False)
        self._closed = False  # doors: set before any is closed
        #: Units that translated code may still use before it has to ask; below zero when it owes some.
        self.fuel_cell = CellType(0)
        self.slots = 0  # variables of the running translated functions that have very many
        #: Everything that lives here and has code.
        self.instances: weakref.WeakSet[Instance] = weakref.WeakSet()
        self.machines = 0  # of the interpreter, that wait for each other
        self.depth = 0  # frames of activations that wait in a host function
        #: Big frames, outermost first: the stack it is on, its place there, itself, slots of all up to it.
        self._big_frames: list[tuple[list[Any], int, Any, int]] = []

    @property
    def limits(self) -> StoreLimits:
        """The limits in force. Setting them refills the fuel and leaves what is in use alone."""
        return self._limits

    @limits.setter
    def limits(self, limits: StoreLimits) -> None:
        before, self._limits = self._limits, limits
        if _kinds(before) != _kinds(limits):
            # Translated code was made for the kinds of limits there were.
            self._forget_code()
        self._fuel = limits.fuel
        self.ready = False

    def _forget_code(self) -> None:
        for instance in list(self.instances):
            instance.forget_code()

    @property
    def fuel_left(self) -> int | None:
        """Units of fuel left; None when fuel is not limited."""
        return None if self._fuel is None else max(self._fuel + self.fuel_cell.cell_contents, 0)

    def refuel(self, units: int) -> None:
        """Add fuel. Raises ValueError when the store has no fuel limit."""
        if self._fuel is None:
            raise ValueError("this store has no fuel limit: give it one with StoreLimits(fuel=...)")
        self._fuel += units

    # -- what engines call -----------------------------------------------------------------------------

    def enter(self) -> None:
        """A call from the host begins. Raises RuntimeError in a thread that does not own the store."""
        thread = get_ident()
        if self.nesting == 0:
            self.owner = thread
            self.serial += 1
            self._prepare()
        elif self.owner != thread:
            raise RuntimeError("this store is running in another thread: a store belongs to one at a time")
        elif self.nesting >= REENTRY_DEPTH:
            raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
        self.nesting += 1

    def _prepare(self) -> None:
        """Set up the first call, and every call where no thread watches the time."""
        most = self._limits.call_depth
        calls = _MOST_FRAMES if most is None else min(most, _MOST_FRAMES)
        needed = max(_RECURSION_LIMIT, calls * _FRAMES_OF_A_CALL + _SPARE_FRAMES)
        if sys.getrecursionlimit() < needed:
            # Raised once and left there: lowering it while another thread is deep kills the process.
            sys.setrecursionlimit(needed)
        seconds = self._limits.seconds
        self._deadline = None
        if seconds is not None:
            relied, self.watched = self.watched, seconds > 0 and WATCHDOG.watch(self)
            if not self.watched:
                self._deadline = time.monotonic() + seconds
                if relied:
                    self._forget_code()  # made without a look at the clock
        # Fuel is counted and the clock looked at by code that needs its units settled at the end.
        self.ready = self._fuel is None and (seconds is None or self.watched)
        self.untidy = not self.ready

    def leave(self) -> None:
        """The call from the host is over."""
        self.nesting -= 1
        if self.nesting == 0:
            self._big_frames.clear()
            self.untidy = False
            self._deadline = None  # the host may use memories between calls
            left, self.fuel_cell.cell_contents = self.fuel_cell.cell_contents, 0
            if self._fuel is not None and left:
                self._fuel += left
                if self._fuel < 0:
                    self._fuel = 0
                    raise Exhaustion(TrapKind.OUT_OF_FUEL)

    def expire(self, serial: int) -> None:
        """The watchdog says that the call with this serial number is out of time, and says so again at every
        tick until it has ended: what the thread of the call undoes meanwhile is done again.
        """
        self._expired = serial
        self.stop.cell_contents = True
        self._closed = True
        doors.close(self)
        self.engine.interrupt(self)

    def unwatched(self) -> None:
        """The watchdog goes to sleep: the next call has to wake it."""
        self.ready = False

    def halt(self) -> None:
        """The stop flag was seen, or a closed door. Raises Exhaustion if it is meant for the running call."""
        # Before the question: the watchdog answers it before it does these.
        self.stop.cell_contents = False
        if self._closed:
            self._closed = False
            doors.open_all(self)
            self.engine.resume(self)
        if self.late:
            raise Exhaustion(TrapKind.DEADLINE_EXCEEDED)

    @property
    def late(self) -> bool:
        """Whether the running call is the one that the watchdog found to be out of time."""
        return self.nesting > 0 and self._expired == self.serial

    @property
    def metered(self) -> bool:
        """Whether fuel is counted."""
        return self._fuel is not None

    def take(self) -> int:
        """Units that may run before the next `poll`; `give_back` returns what was not used."""
        fuel = self._fuel
        if fuel is None:
            return QUANTUM
        if self.fuel_cell.cell_contents:
            fuel += self.fuel_cell.cell_contents
            self.fuel_cell.cell_contents = 0
        units = min(fuel, QUANTUM)
        self._fuel = fuel - units
        return units

    def give_back(self, units: int) -> None:
        """Return units that were taken and not used."""
        if self._fuel is not None and units > 0:
            self._fuel += units

    def poll(self, units: int) -> int:
        """The units taken are used up (`units` is negative: how many are owed): look at the limits.

        Gives new units, or raises Exhaustion.
        """
        self.check_deadline()
        if self._fuel is None:
            return QUANTUM
        if self._fuel + units < 0:
            self._fuel = 0
            raise Exhaustion(TrapKind.OUT_OF_FUEL)
        self._fuel += units  # pay what is owed
        return self.take()

    def settle(self) -> None:
        """Translated code has used up its units: look at the limits, and give it more. Raises Exhaustion."""
        cell = self.fuel_cell
        if self._fuel is None:
            cell.cell_contents = QUANTUM
        else:
            left = self._fuel + cell.cell_contents
            self._fuel = cell.cell_contents = 0
            if left < 0:
                raise Exhaustion(TrapKind.OUT_OF_FUEL)
            cell.cell_contents = min(left, QUANTUM)
            self._fuel = left - cell.cell_contents
        self.check_deadline()

    def check_deadline(self) -> None:
        """Raise Exhaustion when the outermost call has run out of time."""
        if self.stop.cell_contents:
            self.halt()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise Exhaustion(TrapKind.DEADLINE_EXCEEDED)

    def reserve_frame(self, frames: list[Any], frame: object, slots: int) -> None:
        """Count a big frame that is about to be put on the stack `frames`. Raises Exhaustion.

        Nothing is told when a frame is left: those that are no longer where they were are dropped here.
        """
        big = self._big_frames
        while big:
            stack, place, owner, _ = big[-1]
            if place < len(stack) and stack[place] is owner:
                break
            big.pop()
        total = slots + (big[-1][3] if big else 0)
        if total > FRAME_SLOTS:
            raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
        self.untidy = True
        big.append((frames, len(frames), frame, total))

    def reserve_pages(self, pages: int) -> bool:
        """Count pages as used; whether the limit allows it."""
        limit = self._limits.memory_pages
        if limit is not None and self.pages + pages > limit:
            return False
        self.pages += pages
        return True

    def reserve_heap(self, count: int) -> None:
        """Count fields or elements of a new struct or array. Raises Exhaustion at the limit."""
        limit = self._limits.heap_fields
        if limit is not None and self.heap + count > limit:
            gc.collect()  # what guests drop in cycles lives until somebody looks
            if self.heap + count > limit:
                raise Exhaustion(TrapKind.ALLOCATION_TOO_LARGE)
        self.heap += count

    def reserve_elements(self, count: int) -> bool:
        """Count table elements as used; whether the limit allows it."""
        limit = self._limits.table_elements
        if limit is not None and self.elements + count > limit:
            return False
        self.elements += count
        return True
