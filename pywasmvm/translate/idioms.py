"""Loops that are one bulk operation: what an iteration does, summed up for all of them.

A loop is recognised by what it means. One iteration is run on symbols: addresses come out as sums of locals,
stored values as trees over loads, constants and counters. If all locals that change do so in equal steps, the
number of iterations follows from the test, and what the stores write can be computed for all iterations at
once, then numpy does that, whether the source said memset, memcpy, or something nobody has a name for. Before
it does, generated code asks what must hold for the result to be the same: that every access lies inside of
the memory, that nothing read has been written by an earlier iteration, that no counter wraps. Else the loop
runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pywasmvm.syntax import MemArg
from pywasmvm.translate.graph import FALL, IF, Edge, Graph, Loop, Node

#: numpy is asked for from so many iterations on; below, the loop is faster.
FEWEST = 8

#: Larger operations run as loops, which look at the clock.
MOST = 1 << 24


@dataclass(frozen=True, slots=True)
class Affine:
    """A sum: of locals as they are when the iteration begins, each times a number, and a constant."""

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
        parts = [f"l{local}" if times == 1 else f"l{local}*{times}" for local, times in self.terms]
        text = "+".join(parts)
        return f"{text}{self.constant:+d}" if parts and self.constant else text or str(self.constant)


@dataclass(frozen=True, slots=True)
class Load:
    """A value read from memory; `order` counts the accesses of an iteration."""

    kind: str
    size: int
    address: Affine
    order: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on every element."""

    operator: str
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
class Bulk:
    """All of a loop. `steps` are the changes of locals by one iteration; `exit` is where it leads."""

    steps: dict[int, Affine]
    stores: list[Store]
    loads: list[Load]
    #: The test at the end of an iteration goes on while `left relation right`.
    left: Affine
    relation: str
    right: Affine
    #: Instructions that one iteration pays for.
    nodes: list[Node] = field(default_factory=list)

    def stride(self, address: Affine) -> Affine:
        """By how much an address moves from one iteration to the next."""
        total = Affine()
        for local, times in address.terms:
            if local in self.steps:
                total = total.plus(self.steps[local], times)
        return total


def insert_bulks(graph: Graph) -> bool:
    """Put a bulk operation in front of each fast copy that allows one; whether there was one."""
    made = False
    for asking, guard in list(graph.guards.items()):
        header = asking.edges[0].target
        loop = graph.loops.get(header)
        if loop is None or header not in graph.fast:
            continue
        found = _summary(graph, header, loop, set(guard.small))
        if found is None:
            continue
        number = 1 + max(node.number for node in graph.nodes) + 3 * len(graph.bulks)
        leaving = next(edge for edge in header.edges if edge.target is not header)
        trying, doing = Node(number, header.first), Node(number + 1, header.first)
        trying.end, doing.end = IF, FALL
        asking.edges[0].target = trying
        trying.edges = [Edge(trying, doing, 0, leaving.height), Edge(trying, header, 0, leaving.height)]
        doing.edges = [Edge(doing, leaving.target, 0, leaving.height)]
        doing.sets = set(found.steps)
        graph.bulks[trying] = (found, doing)
        made = True
    return made


class _Unknown(Exception):
    """The loop does something that is not summed up here."""


def _summary(graph: Graph, header: Node, loop: Loop, small: set[int]) -> Bulk | None:
    """What the loop does, if it is one node that goes back to itself."""
    if loop.nodes != {header} or header.end != IF or any(edge.arity for edge in header.edges):
        return None
    try:
        run = _Run(graph, header)
        run.all()
        return run.finish(small)
    except _Unknown:
        return None


_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
_RELATIONS = {"ne": "!=", "lt_u": "<", "lt_s": "<"}


class _Run:
    """One iteration on symbols."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node
        self.stack: list[Any] = []
        self.locals: dict[int, Any] = {}
        self.loads: list[Load] = []
        self.stores: list[Store] = []
        self.order = 0

    def all(self) -> None:
        ops, immediates = self.graph.code.ops, self.graph.code.immediates
        for index in range(self.node.first, self.node.last - 1):
            self.one(ops[index], immediates[index])
        if ops[self.node.last - 1].name != "br_if":
            raise _Unknown

    def one(self, opcode: Any, immediate: Any) -> None:
        name, stack = opcode.name, self.stack
        if name == "local.get":
            stack.append(self.locals.get(immediate, Affine(((immediate, 1),))))
        elif name in ("local.set", "local.tee"):
            self.locals[immediate] = stack[-1] if name.endswith("tee") else stack.pop()
        elif name == "i32.const":
            stack.append(Affine((), immediate - (1 << 32) if immediate >> 31 else immediate))
        elif name == "i64.const":
            stack.append(("i64", immediate))
        elif opcode.access is not None:
            self.access(opcode, immediate)
        elif name in ("block", "end", "loop", "nop"):
            pass
        elif name.startswith("i32.") and opcode.signature is not None and len(opcode.signature.params) == 2:
            right, left = stack.pop(), stack.pop()
            stack.append(_operation(name[4:], left, right))
        elif name == "i32.eqz":
            stack.append(("eqz", stack.pop(), None))
        else:
            raise _Unknown

    def access(self, opcode: Any, immediate: Any) -> None:
        if not isinstance(immediate, MemArg) or immediate.memory or opcode.access.kind not in _DTYPES:
            raise _Unknown
        if self.graph.context_memory_bits != 32:
            raise _Unknown
        size, kind = opcode.access.size, opcode.access.kind
        value = self.stack.pop() if ".store" in opcode.name else None
        address = self.stack.pop()
        if not isinstance(address, Affine):
            raise _Unknown
        address = address.plus(Affine((), immediate.offset))
        self.order += 1
        if ".store" in opcode.name:
            if kind in ("f32", "f64") and not (isinstance(value, Load) and value.kind == kind):
                raise _Unknown
            if opcode.name.startswith("i64") and size < 8 and not isinstance(value, tuple):
                raise _Unknown
            self.stores.append(Store(size, address, value, self.order))
        else:
            if opcode.name.startswith("i64") and size < 8:
                raise _Unknown
            load = Load(kind, size, address, self.order)
            self.loads.append(load)
            self.stack.append(load)

    def finish(self, small: set[int]) -> Bulk:
        steps: dict[int, Affine] = {}
        for local, value in self.locals.items():
            mine = Affine(((local, 1),))
            step = value.plus(mine, -1) if isinstance(value, Affine) else None
            if step is None or any(other in self.locals for other, _ in step.terms):
                if not _is_dead(self.graph, self.node, local):
                    raise _Unknown
                continue
            if step != Affine():
                steps[local] = step
            if local not in small:
                raise _Unknown
        left, relation, right = self.test()
        bulk = Bulk(steps, self.stores, self.loads, left, relation, right, [self.node])
        temporary = set(self.locals) - set(steps)
        accesses: list[Load | Store] = [*self.loads, *self.stores]
        for affine in [left, right, *(access.address for access in accesses)]:
            if any(local in temporary or local not in small for local, _ in affine.terms):
                raise _Unknown
        for store in self.stores:
            _check_value(store.value, small, temporary)
        if not self.stores or not steps:
            raise _Unknown
        if any(bulk.stride(s.address) == Affine() for s in self.stores):
            raise _Unknown
        if bulk.stride(right) != Affine() or len(bulk.stride(left).terms) > 1:
            raise _Unknown
        return bulk

    def test(self) -> tuple[Affine, str, Affine]:
        """The condition under which the loop goes on."""
        condition = self.stack.pop()
        if self.stack:
            raise _Unknown
        back = self.node.edges[0].target is self.node
        if isinstance(condition, Affine):
            condition = ("ne", condition, Affine())
        if not isinstance(condition, tuple) or condition[0] == "i64":
            raise _Unknown
        name, left, right = condition
        if name == "eqz":
            name, right = "eq", Affine()
        if not back:
            name = {"eq": "ne", "ge_u": "lt_u", "ge_s": "lt_s", "le_u": "gt_u", "le_s": "gt_s"}.get(name, "")
        if name in ("gt_u", "gt_s"):
            name, left, right = name.replace("gt", "lt"), right, left
        if name not in _RELATIONS or not isinstance(left, Affine) or not isinstance(right, Affine):
            raise _Unknown
        if name == "ne" and any(local in self.locals for local, _ in right.terms):
            left, right = right, left
        return left, _RELATIONS[name], right


def _operation(name: str, left: Any, right: Any) -> Any:
    if isinstance(left, Affine) and isinstance(right, Affine):
        if name == "add":
            return left.plus(right)
        if name == "sub":
            return left.plus(right, -1)
        if name == "mul" and not (left.terms and right.terms):
            return left.times(right.constant) if not right.terms else right.times(left.constant)
        if name == "shl" and not right.terms:
            return left.times(1 << right.constant % 32)
    if name in ("eq", "ne", "lt_u", "lt_s", "gt_u", "gt_s", "le_u", "le_s", "ge_u", "ge_s"):
        return (name, left, right)
    if name in _OPERATORS:
        return Operation(_OPERATORS[name], left, right)
    if name in ("shl", "shr_u") and isinstance(right, Affine) and not right.terms:
        return Operation("<<" if name == "shl" else ">>", left, Affine((), right.constant % 32))
    raise _Unknown


#: How numpy sees what the kinds of accesses read and write.
_DTYPES = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "f32": "<f4", "f64": "<f8"}


def _check_value(value: Any, small: set[int], temporary: set[int]) -> None:
    """Whether a stored value can be computed for all iterations."""
    if isinstance(value, Operation):
        _check_value(value.left, small, temporary)
        _check_value(value.right, small, temporary)
        if any(isinstance(side, Load) and side.size == 8 for side in (value.left, value.right)):
            raise _Unknown
    elif isinstance(value, Affine):
        if any(local in temporary for local, _ in value.terms):
            raise _Unknown
    elif not isinstance(value, Load) and not (isinstance(value, tuple) and value[0] == "i64"):
        raise _Unknown


def _is_dead(graph: Graph, node: Node, local: int) -> bool:
    """Whether nothing outside of this loop reads the local, and the loop writes it before it reads it."""
    ops, immediates = graph.code.ops, graph.code.immediates
    for index in range(node.first, node.last):
        if immediates[index] == local and ops[index].name.startswith("local."):
            if ops[index].name == "local.get":
                return False
            break
    return not any(
        immediates[index] == local and ops[index].name == "local.get" and not node.first <= index < node.last
        for index in range(len(ops))
    )


# -- as Python -----------------------------------------------------------------------------------------------


def conditions(bulk: Bulk, memory: str) -> tuple[str, list[str]]:
    """The number of iterations as text, and what must hold for the bulk operation to be the same.

    `n` in the conditions is that number; they are asked in order and only while they hold.
    """
    step = bulk.stride(bulk.left)
    gap = bulk.right.plus(bulk.left, -1)
    asked = [f"{FEWEST}<=n<{MOST}"]
    if bulk.relation == "!=":
        count = f"({gap.text})//({step.text})+1"
        asked.insert(0, f"({gap.text})%({step.text})==0" if step.terms or abs(step.constant) != 1 else "1")
    else:
        count = f"({gap.text}-1)//({step.text})+2"
        asked.append(f"{bulk.left.text}<{bulk.right.text}")
    if step.terms:
        asked.insert(0, f"{step.text}>0")
    elif bulk.relation == "<" and step.constant < 0:
        return "0", ["0"]
    for local, by in bulk.steps.items():
        asked.append(f"0<=l{local}+n*({by.text})<4294967296")
    accesses: list[Load | Store] = [*bulk.loads, *bulk.stores]
    for access in accesses:
        stride, first = bulk.stride(access.address), access.address.text
        if stride.terms:
            asked += [
                f"{stride.text}>={access.size}",
                f"0<={first}",
                f"{first}+(n-1)*({stride.text})+{access.size}<=len({memory})",
            ]
        elif stride.constant >= 0:
            asked += [f"0<={first}", f"{first}+(n-1)*{stride.constant}+{access.size}<=len({memory})"]
        else:
            asked += [f"0<={first}+(n-1)*{stride.constant}", f"{first}+{access.size}<=len({memory})"]
    for store in bulk.stores:
        for other in accesses:
            if other is not store:
                asked += _apart(bulk, store, other)
    return count, list(dict.fromkeys(asked))


def _apart(bulk: Bulk, store: Store, other: Load | Store) -> list[str]:
    """What keeps a store from changing what another access of a later iteration sees."""
    stride, its = bulk.stride(store.address), bulk.stride(other.address)
    difference = store.address.plus(other.address, -1)
    if stride == its and not stride.terms and stride.constant > 0:
        step, sizes = stride.constant, (store.size, other.size)
        reach = f"(n-1)*{step}+{other.size}"
        if not difference.terms:
            if _never_meet(difference.constant, step, sizes, store.order, other.order, other):
                return []
            return [f"{difference.constant}>={reach}"]
        if isinstance(other, Load) and other.order < store.order:
            return [f"({difference.text}<=0 or {difference.text}>={reach})"]
    # Apart altogether.
    return [f"({_end(store, stride)}<={_begin(other, its)} or {_end(other, its)}<={_begin(store, stride)})"]


def _never_meet(
    difference: int, step: int, sizes: tuple[int, int], at: int, other_at: int, other: Load | Store
) -> bool:
    """Whether the accesses of different iterations are at different places, or in an order that does not
    matter.

    `difference` is the store's address less the other's, in one iteration.
    """
    size, its = sizes
    if isinstance(other, Store):
        # Never the same bytes at all: any order will do.
        apart = difference % step
        return apart >= its and step - apart >= size
    # A load sees what a store of an earlier iteration wrote if the store runs ahead of it.
    for later in range(1, 1 + (difference + its + size) // step if difference + its + size > 0 else 1):
        if -size < difference - later * step < its:
            return False
    same = -size < difference < its
    return not same or other_at < at


def _begin(access: Load | Store, stride: Affine) -> str:
    if stride.terms or stride.constant >= 0:
        return f"{access.address.text}"
    return f"{access.address.text}+(n-1)*{stride.constant}"


def _end(access: Load | Store, stride: Affine) -> str:
    if stride.terms or stride.constant >= 0:
        return f"{access.address.text}+(n-1)*({stride.text})+{access.size}"
    return f"{access.address.text}+{access.size}"


def statements(bulk: Bulk, array: str) -> list[str]:
    """The bulk operation and the steps of the locals; `n` is the number of iterations."""
    lines = []
    values = [
        str(store.value[1] & (1 << 8 * store.size) - 1)
        if isinstance(store.value, tuple)
        else _value(bulk, store.value, array)
        for store in bulk.stores
    ]
    if len(values) > 1:  # everything is read before anything is written
        for place, text in enumerate(values):
            if isinstance(bulk.stores[place].value, Load):
                text += ".copy()"
            lines.append(f"v{place}={text}")
            values[place] = f"v{place}"
    for store, text in zip(bulk.stores, values, strict=True):
        lines.append(f"{_view(bulk, store, f'<u{store.size}', array)}[:]={text}")
    for local, by in bulk.steps.items():
        lines.append(f"l{local}=l{local}+n*({by.text})")
    return lines


def _view(bulk: Bulk, access: Load | Store, dtype: str, array: str) -> str:
    stride = bulk.stride(access.address)
    return f"elements({array},n,'{dtype}',{access.address.text},{stride.text})"


def _value(bulk: Bulk, value: Any, array: str) -> str:
    if isinstance(value, Load):
        text = _view(bulk, value, f"<u{value.size}", array)
        return text if value.size >= 4 else f"{text}.astype('u4')"
    if isinstance(value, Operation):
        return f"({_value(bulk, value.left, array)}{value.operator}{_value(bulk, value.right, array)})"
    if isinstance(value, Affine):
        stride = bulk.stride(value)
        if stride == Affine():
            return f"word({value.text})"
        return f"words(n,{value.text},{stride.text})"
    raise TypeError(f"{value!r} is no value")


def locals_of(value: Any) -> set[int]:
    """The locals that a stored value reads."""
    if isinstance(value, Operation):
        return locals_of(value.left) | locals_of(value.right)
    affine = value.address if isinstance(value, Load) else value
    return {local for local, _ in affine.terms} if isinstance(affine, Affine) else set()
