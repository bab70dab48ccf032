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

    __slots__ = ("_assigned", "_ends", "_first", "_params", "_run_types", "count", "order", "plain")

    def __init__(self, params: Sequence[ValType], runs: Sequence[tuple[int, ValType]]) -> None:
        self.count = len(params) + sum([count for count, _ in runs])
        if self.count > MAX_LOCALS:
            raise InvalidError(f"too many locals: more than {MAX_LOCALS} in one function")
        self._first: list[ValType] = list(params)
        self._ends: list[int] = []
        self._run_types: list[ValType] = []
        #: The types of the first ones; None for one that has no value before it is set.
        self.plain: list[ValType | None] = list(params)
        self._params = end = len(params)
        for count, type_ in runs:
            if end < _EXPANDED:
                expanded = count if count < _EXPANDED else _EXPANDED
                self._first += [type_] * expanded
                self.plain += [None if _without_default(type_) else type_] * expanded
            end += count
            self._ends.append(end)
            self._run_types.append(type_)
        #: Those of the others that were set, in the order in which they were; the same as a set.
        self.order: list[int] = []
        self._assigned: set[int] = set()

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
            self.order.append(index)

    def forget(self, mark: int) -> None:
        """A block ends: what got its value inside, when `mark` others had one, has none after it."""
        self._assigned.difference_update(self.order[mark:])
        del self.order[mark:]


def _without_default(type_: ValType) -> bool:
    return isinstance(type_, RefType) and not type_.nullable
