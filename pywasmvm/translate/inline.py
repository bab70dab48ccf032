"""Small functions in place of their calls, before anything else is done with a body.

A call costs as much in Python as five or ten instructions, and what the caller knows of its arguments ends at
it. So the body of a small function is put where it was called, as a block whose label stands for the
function's: parameters become locals, or are left out where the argument is a local or a constant that nobody
assigns meanwhile. Each instruction remembers where it comes from, so that a trap has the frames it would have
had, and what it costs, so that fuel is the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pywasmvm.errors import InvalidError, MalformedError
from pywasmvm.isa import BY_NAME
from pywasmvm.runtime.limits import FREE
from pywasmvm.syntax import Code
from pywasmvm.translate.graph import Graph
from pywasmvm.translate.liveness import live_at_entry
from pywasmvm.types import F32, F64, I32, I64, ValType

if TYPE_CHECKING:
    from pywasmvm.module import Module

#: Instructions that cost anything, of a function that is put in place of its calls, and of all together.
MOST_IN_CALLEE, MOST_ADDED = 20, 100

#: Functions of so many are no more than their calls are: of them there may be so many more.
TINY, MOST_TINY = 8, 300

#: Functions that are put into each other.
DEEPEST = 3

#: Callers that are bigger stay as they are: their translation costs enough.
MOST_IN_CALLER = 2_000

_MOST_LOCALS = 16

#: More bytes than that for each instruction: not worth decoding.
_MOST_BYTES = 4

#: Where an instruction comes from: function, number there, and the call in whose place it stands.
Origin = tuple[int, int, "Origin | None"]

_NEVER = frozenset(
    {
        "loop", "try_table", "throw", "throw_ref", "return_call", "return_call_indirect", "return_call_ref",
        "br_on_null", "br_on_non_null", "br_on_cast", "br_on_cast_fail",
    }
)  # fmt: skip

_ZEROS: dict[ValType, tuple[str, Any]] = {
    I32: ("i32.const", 0),
    I64: ("i64.const", 0),
    F32: ("f32.const", 0.0),
    F64: ("f64.const", 0.0),
}

_SET, _BLOCK, _BRANCH = BY_NAME["local.set"], BY_NAME["block"], BY_NAME["br"]


@dataclass(frozen=True, slots=True)
class Expansion:
    """A body to translate: `code` with columns of operand stack heights, costs and origins beside it.

    `given` is how many locals are the function's own, parameters included.
    """

    code: Code
    heights: Sequence[int]
    costs: Sequence[int]
    given: int
    origins: Sequence[Origin] | None = None

    def origin(self, index: int, number: int) -> Origin:
        """Where an instruction of the expansion of a function comes from."""
        return (index, number, None) if self.origins is None else self.origins[number]

    def place(self, number: int) -> int:
        """The place of an instruction of the function itself."""
        if self.origins is None:
            return number
        return next(at for at, origin in enumerate(self.origins) if origin[1] == number and origin[2] is None)


def costs_of(code: Code) -> list[int]:
    """Units of fuel of each instruction."""
    return [opcode.name not in FREE for opcode in code.ops]


def expansion_of(module: Module, index: int, *, inline: bool) -> Expansion:
    """The body of a defined function (index with imports counted), with small functions in place of calls if
    so wanted. Raises MalformedError or InvalidError for a body that was not looked at before.
    """
    code, facts = module.body(index)
    own = len(module.context.functions[index].func.params) + code.local_count
    if inline and len(code) <= MOST_IN_CALLER and not module.context.tags:
        called: set[Any] = {i for op, i in zip(code.ops, code.immediates, strict=True) if op.name == "call"}
        if any(_small(module, callee) for callee in called if callee != index):
            return _Inliner(module, own).expand(index)
    return Expansion(code, facts.heights, costs_of(code), own)


@dataclass(frozen=True, slots=True)
class _Callee:
    """A function that may stand in place of its calls: `assigned` are the locals it assigns, `zeroed` those
    that must be zero when it begins.
    """

    code: Code
    heights: Sequence[int]
    costs: list[int]
    assigned: frozenset[int]
    zeroed: tuple[int, ...]


def _small(module: Module, index: int) -> _Callee | None:
    """The function, if it is small and simple enough; kept with the module."""
    key = ("inline", index)
    if key not in module.prepared:
        module.prepared[key] = _looked_at(module, index)
    found = module.prepared[key]
    return found if isinstance(found, _Callee) else None


def _looked_at(module: Module, index: int) -> _Callee | None:
    first = module.context.imported_functions
    type_ = module.context.functions[index].func
    if index < first or len(type_.results) > 1 or len(type_.params) > _MOST_LOCALS:
        return None
    syntax = module.syntax
    if syntax.bodies is None:
        size = syntax.body_end[index - first] - syntax.body_start[index - first]
        if size > _MOST_BYTES * MOST_IN_CALLEE:
            return None
    try:
        code, facts = module.body(index)
    except (MalformedError, InvalidError):  # to be told when the function is called
        return None
    types = [*type_.params, *(t for count, t in code.locals for _ in range(min(count, _MOST_LOCALS + 1)))]
    if len(types) > _MOST_LOCALS or any(t not in _ZEROS for t in types):
        return None
    costs = costs_of(code)
    if sum(costs) > MOST_IN_CALLEE or any(opcode.name in _NEVER for opcode in code.ops):
        return None
    assigned = {
        immediate
        for opcode, immediate in zip(code.ops, code.immediates, strict=True)
        if opcode.name in ("local.set", "local.tee")
    }
    zeroed: tuple[int, ...] = ()
    if len(types) > len(type_.params):
        graph = Graph(code, facts.heights, len(type_.results), module.context, costs)
        live = live_at_entry(graph)[graph.nodes[0]]
        zeroed = tuple(local for local in range(len(type_.params), len(types)) if live >> local & 1)
    return _Callee(code, facts.heights, costs, frozenset(assigned), zeroed)  # type: ignore[arg-type] # locals


class _Inliner:
    """Writes one expansion."""

    def __init__(self, module: Module, own: int) -> None:
        self.module, self.own = module, own
        self.ops: list[Any] = []
        self.immediates: list[Any] = []
        self.offsets = array("Q")
        self.heights = array("i")
        self.costs: list[int] = []
        self.origins: list[Origin] = []
        self.locals: list[tuple[int, ValType]] = []
        #: Where the locals of a function begin that was put in place; all its calls share them.
        self.first: dict[int, int] = {}
        self.added = self.tiny = 0
        self.next = own
        #: Operations from here on may be left out again: no label is between.
        self.straight = 0

    def expand(self, index: int) -> Expansion:
        code, facts = self.module.body(index)
        same = range(self.own)
        self.body(index, code, facts.heights, costs_of(code), same, {}, 0, None, (index,))
        made = Code((*code.locals, *self.locals), self.ops, self.immediates, self.offsets)
        return Expansion(made, self.heights, self.costs, self.own, self.origins)

    def emit(self, opcode: Any, immediate: Any, offset: int, height: int, cost: int, origin: Origin) -> None:
        self.ops.append(opcode)
        self.immediates.append(immediate)
        self.offsets.append(offset)
        self.heights.append(height)
        self.costs.append(cost)
        self.origins.append(origin)

    def body(
        self,
        index: int,
        code: Code,
        heights: Sequence[int],
        costs: list[int],
        locals_: Sequence[int],
        standing: dict[int, tuple[Any, Any]],
        base: int,
        parent: Origin | None,
        chain: tuple[int, ...],
    ) -> None:
        """Write the instructions of a function: `locals_` are the new numbers of its locals, `standing` what
        stands for a parameter, `base` the operands below.
        """
        depth = 0
        last = len(code) - 1
        immediate: Any
        for number, (opcode, immediate) in enumerate(zip(code.ops, code.immediates, strict=True)):
            name, height, offset = opcode.name, heights[number], code.offsets[number]
            origin: Origin = (index, number, parent)
            at = height + base if height >= 0 else -1
            if name in ("block", "loop", "if", "try_table"):
                depth += 1
            elif name == "end" and number < last:
                depth -= 1
            if name == "call" and height >= 0:
                callee = self.wanted(immediate, chain, code, number)
                if callee is not None:
                    self.call(immediate, callee, offset, at, costs[number], origin, chain)
                    continue
            if name == "local.get" and immediate in standing:
                opcode, immediate = standing[immediate]
            elif name.startswith("local."):
                immediate = locals_[immediate]
            elif name == "return" and parent is not None:
                opcode, immediate = _BRANCH, depth
            self.emit(opcode, immediate, offset, at, costs[number], origin)
            if name not in ("local.get", "i32.const", "i64.const"):
                self.straight = len(self.ops)

    def wanted(self, index: int, chain: tuple[int, ...], code: Code, number: int) -> _Callee | None:
        if index in chain or len(chain) > DEEPEST or code.ops[number + 1].name == "unreachable":
            return None
        callee = _small(self.module, index)
        if callee is None:
            return None
        cost = sum(callee.costs)
        if cost <= TINY and self.tiny + cost <= MOST_TINY:
            self.tiny += cost
        elif self.added + cost <= MOST_ADDED:
            self.added += cost
        else:
            return None
        return callee

    def call(
        self,
        index: int,
        callee: _Callee,
        offset: int,
        at: int,
        cost: int,
        origin: Origin,
        chain: tuple[int, ...],
    ) -> None:
        type_ = self.module.context.functions[index].func
        params = len(type_.params)
        if index not in self.first:
            self.first[index] = self.next
            self.locals += [(1, t) for t in type_.params] + list(callee.code.locals)
            self.next += params + callee.code.local_count
        first = self.first[index]
        # One unit for entering the function, as everywhere (`limits.py`).
        cost += 1
        standing: dict[int, tuple[Any, Any]] = {}
        param = params - 1
        while param >= 0 and param not in callee.assigned and len(self.ops) > self.straight:
            standing[param] = (self.ops.pop(), self.immediates.pop())
            cost += self.costs.pop()
            self.offsets.pop()
            self.heights.pop()
            self.origins.pop()
            at -= 1
            param -= 1
        while param >= 0:
            self.emit(_SET, first + param, offset, at, 0, origin)
            at -= 1
            param -= 1
        for local in callee.zeroed:
            name, zero = _ZEROS[self._type(index, local)]
            self.emit(BY_NAME[name], zero, offset, at, 0, origin)
            self.emit(_SET, first + local, offset, at + 1, 0, origin)
        block = type_.results[0] if type_.results else None
        self.emit(_BLOCK, block, offset, at, cost, origin)
        self.straight = len(self.ops)
        locals_ = range(first, first + params + callee.code.local_count)
        self.body(
            index, callee.code, callee.heights, callee.costs, locals_, standing, at, origin, (*chain, index)
        )

    def _type(self, index: int, local: int) -> ValType:
        type_ = self.module.context.functions[index].func
        types = [*type_.params, *(t for count, t in self.module.body(index)[0].locals for _ in range(count))]
        return types[local]
