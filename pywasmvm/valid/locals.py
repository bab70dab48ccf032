"""The locals of a function while it is typed: what type each has, and which may be read.

A few bytes can declare tens of thousands of locals in every function of a module, so runs of them stay runs:
only the first are expanded, into a list that the usual look-up indexes.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from pywasmvm.errors import InvalidError
from pywasmvm.types import RefType, ValType

#: More locals than this in one function are refused, as other engines do (an implementation limit that the
#: specification allows). A call allocates all locals, so without it 32 bytes could ask for gigabytes.
MAX_LOCALS = 50_000

#: How many are looked up in a list; beyond it, in the runs.
_EXPANDED = 100


class Locals:
    """Parameters, and locals given as runs of (count, closed type).

    Raises InvalidError when there are more than `MAX_LOCALS`.
    """

    __slots__ = ("_assigned", "_ends", "_first", "_order", "_params", "_run_types", "count")

    def __init__(self, params: Sequence[ValType], runs: Sequence[tuple[int, ValType]]) -> None:
        self.count = len(params) + sum(count for count, _ in runs)
        if self.count > MAX_LOCALS:
            raise InvalidError(f"too many locals: more than {MAX_LOCALS} in one function")
        self._first: list[ValType] = list(params)
        self._ends: list[int] = []
        self._run_types: list[ValType] = []
        self._params = end = len(params)
        for count, type_ in runs:
            if len(self._first) < _EXPANDED:
                self._first += [type_] * min(count, _EXPANDED)
            end += count
            self._ends.append(end)
            self._run_types.append(type_)
        #: Those that were set; the same in the order in which they were.
        self._assigned: set[int] = set()
        self._order: list[int] = []

    def type(self, index: int) -> ValType:
        """The type of a local. Raises InvalidError (unknown local)."""
        if index < len(self._first):
            return self._first[index]
        if index >= self.count:
            raise InvalidError(f"unknown local {index}")
        return self._run_types[bisect.bisect_right(self._ends, index)]

    def read(self, index: int) -> ValType:
        """The type of a local that is read. Raises InvalidError when it cannot have a value yet."""
        type_ = self.type(index)
        if _without_default(type_) and index >= self._params and index not in self._assigned:
            raise InvalidError(f"uninitialized local {index}: nothing was set, and {type_} has no default")
        return type_

    def assign(self, index: int) -> None:
        """The local has a value from here to the end of the block."""
        if index not in self._assigned:
            self._assigned.add(index)
            self._order.append(index)

    @property
    def mark(self) -> int:
        """What `forget` needs to come back to this point."""
        return len(self._order)

    def forget(self, mark: int) -> None:
        """A block ends: what got its value inside has none after it."""
        self._assigned.difference_update(self._order[mark:])
        del self._order[mark:]


def _without_default(type_: ValType) -> bool:
    return isinstance(type_, RefType) and not type_.nullable
