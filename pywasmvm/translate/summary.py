"""What a loop does, summed up: one trip around it on symbols.

A way from the head of a loop back to it is run with symbols for the locals: addresses come out as sums of
locals, stored values as trees over loads, constants and counters, and every branch on the way as a condition
under which the trip goes on. If all locals that the next trip needs change by equal steps, many trips in a
row can be told without running them. `idioms.py` makes Python of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pywasmvm.syntax import MemArg
from pywasmvm.translate.graph import FALL, IF, Edge, Graph, Loop, Node
from pywasmvm.types import I32

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import LocalTypes

#: Ways around a loop that are looked at, and the nodes one may have.
MOST_PATHS, LONGEST_PATH = 8, 12


@dataclass(frozen=True, slots=True)
class Affine:
    """A sum: of i32 locals as they are when the trip begins, each times a number, and a constant."""

    terms: tuple[tuple[int, int], ...] = ()
    constant: int = 0

    def plus(self, other: Affine, factor: int = 1) -> Affine:
        """The sum with a multiple of another one."""
        terms = dict(self.terms)
        for local, times in other.terms:
            terms[local] = terms.get(local, 0) + times * factor
        kept = tuple(sorted((local, times) for local, times in terms.items() if times))
        return Affine(kept, self.constant + other.constant * factor)

    def times(self, factor: int) -> Affine:
        """The multiple."""
        return Affine().plus(self, factor)

    @property
    def text(self) -> str:
        """As Python."""
        text = ""
        for local, times in self.terms:
            part = f"l{local}" if abs(times) == 1 else f"l{local}*{abs(times)}"
            text += f"-{part}" if times < 0 else f"+{part}" if text else part
        return f"{text}{self.constant:+d}" if text and self.constant else text or str(self.constant)


@dataclass(frozen=True, slots=True)
class Load:
    """A value read from memory; `order` counts the accesses of a trip."""

    kind: str
    size: int
    address: Affine
    order: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An i32 operation on every element."""

    operator: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Fixed:
    """A constant of 64 bits, or a local of another type than i32, which the loop does not change."""

    text: str
    local: int = -1
    is_integer: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left relation right`; the relation is the last part of an instruction's name."""

    relation: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Store:
    """A value written to memory."""

    size: int
    address: Affine
    value: Any
    order: int


@dataclass(slots=True)
class Trips:
    """Trips around a loop. `steps` are the changes of locals by one of them.

    A trip goes on while all `tests` hold, which compare sums of locals, and all `checks`, which compare what
    is loaded; `nodes` is the way it takes.
    """

    steps: dict[int, Affine]
    stores: list[Store]
    loads: list[Load]
    tests: list[Comparison]
    checks: list[Comparison]
    nodes: list[Node] = field(default_factory=list)

    def stride(self, address: Affine) -> Affine:
        """By how much a sum moves from one trip to the next."""
        total = Affine()
        for local, times in address.terms:
            if local in self.steps:
                total = total.plus(self.steps[local], times)
        return total

    def locals(self) -> set[int]:
        """The locals that are read."""
        found = set(self.steps)
        for step in self.steps.values():
            found |= locals_of(step)
        for load in self.loads:
            found |= locals_of(load.address)
        for store in self.stores:
            found |= locals_of(store.address) | locals_of(store.value)
        for test in (*self.tests, *self.checks):
            found |= locals_of(test.left) | locals_of(test.right)
        return found


def locals_of(value: Any) -> set[int]:
    """The locals that a symbolic value reads."""
    if isinstance(value, Operation | Comparison):
        return locals_of(value.left) | locals_of(value.right)
    if isinstance(value, Fixed):
        return {value.local} if value.local >= 0 else set()
    affine = value.address if isinstance(value, Load) else value
    return {local for local, _ in affine.terms}


class Unknown(Exception):
    """The loop does something that is not summed up here."""


def trips_of(graph: Graph, header: Node, loop: Loop, types: LocalTypes, live: int) -> Trips | None:
    """Trips around a loop along the shortest way that can be summed up.

    `live` are the locals, as bits, whose values a trip may take from the one before.
    """
    if graph.context_memory_bits not in (0, 32):
        return None
    for path in _paths(header, loop):
        try:
            return _Trip(graph, types, path).finish(live)
        except Unknown:
            continue
    return None


def _paths(header: Node, loop: Loop) -> list[list[Edge]]:
    """Ways from the header back to it, those with the fewest instructions first."""
    found: list[list[Edge]] = []
    work: list[list[Edge]] = [[edge] for edge in header.edges]
    while work and len(found) < MOST_PATHS:
        path = work.pop()
        target = path[-1].target
        if target is header:
            found.append(path)
        elif (
            target in loop.nodes
            and len(path) < LONGEST_PATH
            and target.end in (FALL, IF)
            and all(edge.source is not target for edge in path)
        ):
            work += [[*path, edge] for edge in target.edges]
    return sorted(found, key=lambda path: sum(edge.source.last - edge.source.first for edge in path))


_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
_RELATIONS = frozenset(("eq", "ne", "lt_u", "lt_s", "gt_u", "gt_s", "le_u", "le_s", "ge_u", "ge_s"))
_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
_TURNED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}

#: Sums of locals below this in a comparison, so that they are what they look like as numbers of 32 bits.
_HALF = 1 << 31
_SMALL = 1 << 30

#: Kinds of accesses that can be summed up.
KINDS = frozenset(("u8", "s8", "u16", "s16", "u32", "u64", "f32", "f64"))


def opposite(relation: str) -> str:
    """What holds when the relation does not."""
    return _OPPOSITE[relation[:2]] + relation[2:]


def turned(relation: str) -> str:
    """The same with the operands exchanged."""
    return _TURNED.get(relation[:2], relation[:2]) + relation[2:]


class _Trip:
    """One trip on symbols."""

    def __init__(self, graph: Graph, types: LocalTypes, path: list[Edge]) -> None:
        self.graph, self.types, self.path = graph, types, path
        self.stack: list[Any] = []
        self.locals: dict[int, Any] = {}
        self.loads: list[Load] = []
        self.stores: list[Store] = []
        self.conditions: list[Comparison] = []
        self.order = 0
        base = path[-1].height
        for edge in path:
            self.node(edge.source, edge)
            kept = edge.height - base
            if kept < 0 or (edge.arity and edge.target is path[0].source):
                raise Unknown
            del self.stack[kept : len(self.stack) - edge.arity]

    def node(self, node: Node, edge: Edge) -> None:
        """Run a node that is left by an edge."""
        if node.end not in (FALL, IF) or node.region is not None:
            raise Unknown
        ops, immediates = self.graph.code.ops, self.graph.code.immediates
        for index in range(node.first, node.last):
            self.one(ops[index], immediates[index])
        if node.end == IF:
            self.decide(self.stack.pop(), edge is node.edges[0])

    def one(self, opcode: Any, immediate: Any) -> None:
        name, stack = opcode.name, self.stack
        if name == "local.get":
            stack.append(self.local(immediate))
        elif name in ("local.set", "local.tee"):
            self.locals[immediate] = stack[-1] if name.endswith("tee") else stack.pop()
        elif name == "i32.const":
            stack.append(Affine((), immediate - (1 << 32) if immediate >> 31 else immediate))
        elif name == "i64.const":
            stack.append(Fixed(str(immediate)))
        elif opcode.access is not None:
            self.access(opcode, immediate)
        elif name in ("block", "end", "loop", "nop", "br", "br_if", "if", "else"):
            pass
        elif name == "drop":
            stack.pop()
        elif name.startswith("i32.") and opcode.signature is not None and len(opcode.signature.params) == 2:
            right, left = stack.pop(), stack.pop()
            stack.append(_operation(opcode, left, right))
        elif name in ("i64.eq", "i64.ne"):
            right, left = stack.pop(), stack.pop()
            stack.append(Comparison(name[4:], left, right))
        elif name in ("i32.eqz", "i64.eqz"):
            value = stack.pop()
            if isinstance(value, Comparison):
                stack.append(Comparison(opposite(value.relation), value.left, value.right))
            else:
                stack.append(Comparison("eq", value, Affine()))
        else:
            raise Unknown

    def local(self, index: int) -> Any:
        if index in self.locals:
            return self.locals[index]
        if self.types[index] is I32:
            return Affine(((index, 1),))
        return Fixed(f"l{index}", index, str(self.types[index]) == "i64")

    def access(self, opcode: Any, immediate: Any) -> None:
        if not isinstance(immediate, MemArg) or immediate.memory or opcode.access.kind not in KINDS:
            raise Unknown
        size, kind = opcode.access.size, opcode.access.kind
        value = self.stack.pop() if ".store" in opcode.name else None
        address = self.stack.pop()
        if not isinstance(address, Affine):
            raise Unknown
        address = address.plus(Affine((), immediate.offset))
        self.order += 1
        if opcode.name.startswith("i64") and size < 8:
            raise Unknown
        if ".store" not in opcode.name:
            load = Load(kind, size, address, self.order)
            self.loads.append(load)
            self.stack.append(load)
            return
        if kind in ("f32", "f64") and not (isinstance(value, Load) and value.kind == kind):
            raise Unknown
        if isinstance(value, Comparison) or (isinstance(value, Fixed) and not value.is_integer):
            raise Unknown
        self.stores.append(Store(size, address, value, self.order))

    def decide(self, condition: Any, taken: bool) -> None:
        """The trip goes on only if a branch is taken, or not taken."""
        if isinstance(condition, Affine | Load):
            condition = Comparison("ne", condition, Affine())
        if not isinstance(condition, Comparison):
            raise Unknown
        if not taken:
            condition = Comparison(opposite(condition.relation), condition.left, condition.right)
        self.conditions.append(condition)

    def finish(self, live: int) -> Trips:
        steps: dict[int, Affine] = {}
        for local, value in self.locals.items():
            step = value.plus(Affine(((local, 1),)), -1) if isinstance(value, Affine) else None
            if self.types[local] is not I32 or step is None or any(x in self.locals for x, _ in step.terms):
                if live >> local & 1:
                    raise Unknown
            elif step != Affine():
                steps[local] = step
        trips = Trips(steps, self.stores, self.loads, [], [], [edge.source for edge in self.path])
        for condition in self.conditions:
            self.sort(condition, trips)
        passing = set(self.locals) - set(steps)
        if passing & trips.locals():
            raise Unknown
        for store in self.stores:
            _check_value(store.value)
            if trips.stride(store.address) == Affine():
                raise Unknown
        if not steps or not (trips.tests or trips.checks):
            raise Unknown
        return trips

    def sort(self, condition: Comparison, trips: Trips) -> None:
        """Which kind of condition it is; what moves comes first."""
        relation, left, right = condition.relation, condition.left, condition.right
        if isinstance(left, Affine) and isinstance(right, Affine):
            if trips.stride(left) == Affine():
                left, right, relation = right, left, turned(relation)
            _check_sum(left)
            _check_sum(right)
            if trips.stride(right) != Affine() or len(trips.stride(left).terms) > 1:
                raise Unknown
            trips.tests.append(Comparison(relation, left, right))
            return
        if isinstance(left, Affine):
            left, right, relation = right, left, turned(relation)
        if not isinstance(left, Load) or not isinstance(right, Load | Affine):
            raise Unknown
        for load in (left, right):
            if isinstance(load, Load) and (load.kind[0] == "f" or trips.stride(load.address).terms):
                raise Unknown
        if isinstance(right, Load):
            if relation not in ("eq", "ne") or left.kind != right.kind:
                raise Unknown
        elif (
            trips.stride(right) != Affine()
            or (right.terms and left.kind[0] == "s")
            or (relation[:2] in _TURNED and not _unsigned(left, right))
        ):
            raise Unknown
        trips.checks.append(Comparison(relation, left, right))


def _unsigned(load: Load, other: Affine) -> bool:
    """Whether both orders, with sign and without, are one: of a byte or two without sign and a number."""
    return load.kind in ("u8", "u16") and not other.terms and other.constant >= 0


def _check_sum(affine: Affine) -> None:
    """Compared sums stay in the range where they are the numbers they look like."""
    if sum(abs(times) for _, times in affine.terms) * (_SMALL - 1) + abs(affine.constant) >= _HALF:
        raise Unknown


def _operation(opcode: Any, left: Any, right: Any) -> Any:
    name = opcode.name[4:]
    if name in _RELATIONS:
        return Comparison(name, left, right)
    if any(isinstance(side, Comparison | Fixed) for side in (left, right)):
        raise Unknown
    if isinstance(left, Affine) and isinstance(right, Affine):
        if name == "add":
            return left.plus(right)
        if name == "sub":
            return left.plus(right, -1)
        if name == "mul" and not (left.terms and right.terms):
            return left.times(right.constant) if not right.terms else right.times(left.constant)
        if name == "shl" and not right.terms:
            return left.times(1 << right.constant % 32)
    if name in _OPERATORS:
        return Operation(_OPERATORS[name], left, right)
    if name in ("shl", "shr_u") and isinstance(right, Affine) and not right.terms:
        return Operation("<<" if name == "shl" else ">>", left, Affine((), right.constant % 32))
    raise Unknown


def _check_value(value: Any) -> None:
    """Whether a stored value can be computed for all trips."""
    if isinstance(value, Operation):
        _check_value(value.left)
        _check_value(value.right)
        if any(isinstance(side, Load) and side.size == 8 for side in (value.left, value.right)):
            raise Unknown
    elif not isinstance(value, Affine | Load | Fixed):
        raise Unknown
