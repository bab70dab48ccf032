"""Loops that are one bulk operation: many trips around a loop at once (`summary.py` says what a trip does).

In front of the fast copy of a loop generated code counts how many trips are sure to come: as far as the tests
of counters allow, as every access stays inside of the memory, and as what is loaded keeps the trip on its
way, which is a search. If the result is the same as running them one after the other, because nothing read
has been written by an earlier trip and no counter wraps, slices or numpy do what they would have done,
whether the source said memset, strlen, or something nobody has a name for. The loop itself does the rest: at
least the test that ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pywasmvm.translate.graph import FALL, IF, Edge, Graph, Node
from pywasmvm.translate.liveness import live_at_entry
from pywasmvm.translate.summary import (
    Affine,
    Comparison,
    Fixed,
    Load,
    Operation,
    Store,
    Trips,
    Unknown,
    locals_of,
    trips_of,
)

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import LocalTypes

#: So many trips are worth the asking, below, the loop is faster: for slices, for a search, for numpy.
FEWEST = 4
FEWEST_SEARCHED = 6
FEWEST_ARRAYS = 8

#: More are made in portions, between which the loop looks at the clock.
MOST = 1 << 24

#: What the fast copy of a loop calls small (`versions.py`).
_SMALL = 1 << 30
_WORD = 1 << 32


def insert_bulks(graph: Graph, types: LocalTypes) -> bool:
    """Put a bulk operation in front of each fast copy that allows one; whether there was one."""
    live: dict[Node, int] = {}
    made = False
    for asking in list(graph.guards):
        header = asking.edges[0].target
        loop = graph.loops.get(header)
        if loop is None or header not in graph.fast or any(edge.arity for edge in header.in_edges):
            continue
        live = live or live_at_entry(graph)
        found = trips_of(graph, header, loop, types, live[header])
        if found is None:
            continue
        try:
            conditions(found, "m0", set(), bounded=False)
        except Unknown:
            continue
        number = 1 + max(node.number for node in graph.nodes) + 3 * len(graph.bulks)
        height = header.in_edges[0].height
        trying, doing = Node(number, header.first), Node(number + 1, header.first)
        trying.end, doing.end = IF, FALL
        asking.edges[0].target = trying
        trying.edges = [Edge(trying, doing, 0, height), Edge(trying, header, 0, height)]
        doing.edges = [Edge(doing, header, 0, height)]
        doing.sets = set(found.steps)
        graph.bulks[trying] = (found, doing)
        made = True
    return made


# -- how many, and whether -----------------------------------------------------------------------------------


def conditions(trips: Trips, memory: str, small: set[int], *, bounded: bool) -> tuple[str, list[str]]:
    """The most trips there may be, as text, and what must hold for making `n` of them at once.

    `n` is that number at first, and gets smaller where a condition searches; conditions are asked in order
    and only while they hold. `small` are the locals that a guard has found to be small; `bounded` says that
    addresses below the end of memory are. Raises Unknown.
    """
    counts, asked = [], []
    for test in trips.tests:
        count, more = _count(trips, test)
        asked += more
        if count:
            counts.append(count)
    if trips.checks or not counts:
        for load in trips.loads:
            stride = trips.stride(load.address)
            if not stride.terms and stride.constant > 0:
                counts.append(f"({_room(load, memory)})//{stride.constant}+1")
    if not counts:
        raise Unknown
    count, *others = counts
    fewest = _fewest(trips, memory)
    # Few trips are the usual case, and the first number tells most often.
    less = [f"(n<=(k:={other}) or (n:=k)>={fewest})" for other in others]
    asked = [f"n>={fewest}", *less, f"(n<{MOST} or (n:={MOST}))", *asked]
    counting = set().union(
        *(locals_of(load.address) for load in trips.loads),
        *(locals_of(store.address) for store in trips.stores),
        *(locals_of(x) for test in trips.tests for x in (test.left, test.right)),
    )
    asked += [f"l{local}<={_SMALL - 1}" for local in sorted(counting - small)]
    accesses: list[Load | Store] = [*trips.loads, *trips.stores]
    for access in accesses:
        asked += _inside(trips, access, memory, strict=bounded)
    asked += [_searched(trips, check, memory, fewest) for check in trips.checks]
    for store in trips.stores:
        for other in accesses:
            if other is not store:
                asked += _apart(trips, store, other)
    for local, by in trips.steps.items():
        most = _SMALL if local in small else _WORD
        if _is_kept(trips, local, by, accesses if bounded else []):
            continue
        if by.terms:
            asked.append(f"0<=l{local}+n*({by.text})<{most}")
        elif by.constant > 0:
            asked.append(f"l{local}+{_times('n', by.constant)}<{most}")
        else:
            asked.append(f"l{local}>={_times('n', -by.constant)}")
    return count, list(dict.fromkeys(asked))


def _fewest(trips: Trips, memory: str) -> int:
    if trips.checks:
        return FEWEST_SEARCHED
    made = statements(trips, memory, "a0")
    return FEWEST_ARRAYS if any("a0" in line for line in made) else FEWEST


def _is_kept(trips: Trips, local: int, by: Affine, accesses: list[Load | Store]) -> bool:
    """Whether a stepping local stays in range because of what is asked elsewhere."""
    step = by.constant
    if by.terms:
        return False
    if step > 0:  # what it is part of stays below the end of memory
        return any(
            trips.stride(access.address) == by
            and access.address.constant + access.size >= step
            and all(times > 0 for _, times in access.address.terms)
            and any(term == local for term, _ in access.address.terms)
            for access in accesses
        )
    for test in trips.tests:  # it counts down to a number
        if test.left.terms == ((local, 1),) and not test.right.terms:
            last = test.right.constant - test.left.constant
            word = test.relation[:2]
            if word == "ne":
                return bool(last >= 0)
            if word in ("gt", "ge"):
                return bool(last + (word == "gt") + step >= 0)
    return False


def _times(count: str, factor: int) -> str:
    return count if factor == 1 else f"{count}*{factor}"


def _count(trips: Trips, test: Comparison) -> tuple[str, list[str]]:
    """How often a test holds in a row, as text (empty: always if what is asked holds), and what to ask.

    Raises Unknown for a test that ends by going around.
    """
    relation, left, right = test.relation, test.left, test.right
    stride = trips.stride(left)
    word, sign = relation[:2], relation[2:]
    asked = []
    if sign == "_u":  # as numbers without sign, what is negative would be big
        asked = [f"{side.text}>=0" for side in (left, right) if _may_be_negative(side)]
    if stride == Affine():
        operator = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}[word]
        return "", [*asked, f"{left.text}{operator}{right.text}"]
    if word in ("le", "ge"):
        right = right.plus(Affine((), 1 if word == "le" else -1))
        word = {"le": "lt", "ge": "gt"}[word]
    gap = right.plus(left, -1)
    if stride.terms:
        if word == "lt":
            return f"({gap.text}-1)//({stride.text} or 1)+1", [*asked, f"{stride.text}>0"]
        if word == "ne":
            return f"({gap.text})//({stride.text} or 1)", [
                f"{stride.text}>0",
                f"({gap.text})%({stride.text})==0",
            ]
        raise Unknown
    step = stride.constant
    if step < 0:
        gap, step = gap.times(-1), -step
        word = {"gt": "lt", "lt": "", "ne": "ne"}.get(word, "")
    elif word == "gt":
        word = ""
    if word == "ne":
        if step == 1:
            return gap.text, asked
        return f"({gap.text})//{step}", [*asked, f"not ({gap.text})%{step}"]
    if word != "lt":
        raise Unknown
    return (gap.text if step == 1 else f"({gap.plus(Affine((), step - 1)).text})//{step}"), asked


def _may_be_negative(side: Affine) -> bool:
    return side.constant < 0 or any(times < 0 for _, times in side.terms)


def _room(access: Load | Store, memory: str) -> str:
    """Bytes between the first element's end and the end of memory."""
    rest = access.address.times(-1).plus(Affine((), -access.size)).text
    return f"len({memory}){'' if rest[0] == '-' else '+'}{rest}"


def _inside(trips: Trips, access: Load | Store, memory: str, *, strict: bool) -> list[str]:
    """Every element lies inside of the memory; if it shall be strict, before its very end."""
    below = "<" if strict else "<="
    stride, first = trips.stride(access.address), access.address
    if stride.terms:
        return [
            f"{stride.text}>={access.size}",
            f"0<={first.text}",
            f"{first.text}+(n-1)*({stride.text})+{access.size}{below}len({memory})",
        ]
    step = stride.constant
    low = [f"0<={first.text}"] if _may_be_negative(first) else []
    if step < 0:
        last = first.plus(Affine((), -step)).text  # the first address is that much above the last but n
        end = first.plus(Affine((), access.size)).text
        return [f"{last}>={_times('n', -step)}", f"{end}<=len({memory})"]
    if step == 0:
        return [*low, f"{first.plus(Affine((), access.size)).text}<=len({memory})"]
    end = first.plus(Affine((), access.size - step)).text
    return [*low, f"{end}+{_times('n', step)}{below}len({memory})"]


_FORMATS = {"u8": "B", "s8": "b", "u16": "H", "s16": "h", "u32": "I", "u64": "Q"}


def _searched(trips: Trips, check: Comparison, memory: str, fewest: int) -> str:
    """Make `n` the number of elements that keep the trip on its way, and ask whether that is enough."""
    left, right = check.left, check.right
    loads = [side for side in (left, right) if isinstance(side, Load)]
    places = [f"{load.address.text},{trips.stride(load.address).text}" for load in loads]
    operator = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[check.relation[:2]]
    head = f"{memory},n,'{_FORMATS[left.kind]}','{operator}'"
    if isinstance(right, Load):
        return f"(n:=leading_pairs({head},{','.join(places)}))>={fewest}"
    value = str(_as_loaded(left, right.constant)) if not right.terms else f"{right.text}&{_WORD - 1}"
    return f"(n:=leading({head},{places[0]},{value}))>={fewest}"


def _as_loaded(load: Load, value: int) -> int:
    """A constant as a number that the load can give, or one that it never gives."""
    return value if load.kind[0] == "s" else value & _WORD - 1


# -- whether trips disturb each other ------------------------------------------------------------------------


def _apart(trips: Trips, store: Store, other: Load | Store) -> list[str]:
    """What keeps a store from changing what another access of a later trip sees."""
    stride = trips.stride(store.address)
    if stride == trips.stride(other.address) and not stride.terms and stride.constant:
        step, upwards = abs(stride.constant), stride.constant > 0
        before = isinstance(other, Load) and other.order < store.order
        ahead = store.address.plus(other.address, -1)
        # Upwards a store may follow what is read, or lie beyond all of it; downwards it is the other way.
        width, beyond = store.size, other.size
        if not upwards:
            ahead, width, beyond = ahead.times(-1), other.size, store.size
        reach = _times("n", step) if beyond == step else f"{_times('n', step)}{beyond - step:+d}"
        if not ahead.terms:
            sizes = (store.size, other.size)
            if upwards and _never_meet(ahead.constant, step, sizes, store.order, other.order, other):
                return []
            if before and ahead.constant <= 0 and width <= step:
                return []
            return [f"{ahead.constant}>={reach}"]
        if before and width <= step:
            return [f"({ahead.text}<=0 or {ahead.text}>={reach})"]
    return _disjoint(trips, store, other)


def _disjoint(trips: Trips, store: Store, other: Load | Store) -> list[str]:
    """They are in different parts of the memory altogether."""
    its, theirs = _span(trips, store), _span(trips, other)
    return [f"({its[1]}<={theirs[0]} or {theirs[1]}<={its[0]})"]


def _span(trips: Trips, access: Load | Store) -> tuple[str, str]:
    """Where the elements of an access begin and end."""
    stride, first = trips.stride(access.address), access.address
    if stride.terms:
        return first.text, f"{first.text}+(n-1)*({stride.text})+{access.size}"
    step = stride.constant
    end = first.plus(Affine((), access.size)).text
    if step < 0:
        return f"{first.plus(Affine((), -step)).text}-{_times('n', -step)}", end
    return first.text, f"{first.plus(Affine((), access.size - step)).text}+{_times('n', step)}"


def _never_meet(
    difference: int, step: int, sizes: tuple[int, int], at: int, other_at: int, other: Load | Store
) -> bool:
    """Whether the accesses of different trips are at different places, or in an order that does not matter.

    `difference` is the store's address less the other's, in one trip.
    """
    size, its = sizes
    if isinstance(other, Store):
        # Never the same bytes at all: any order will do.
        apart = difference % step
        return apart >= its and step - apart >= size
    # A load sees what a store of an earlier trip wrote if the store runs ahead of it.
    for later in range(1, 1 + (difference + its + size) // step if difference + its + size > 0 else 1):
        if -size < difference - later * step < its:
            return False
    same = -size < difference < its
    return not same or other_at < at


# -- as Python -----------------------------------------------------------------------------------------------


def statements(trips: Trips, memory: str, array: str) -> list[str]:
    """The bulk operation and the steps of the locals; `n` is the number of trips."""
    lines = []
    if len(trips.stores) == 1:
        lines.append(_one(trips, trips.stores[0], memory, array))
    elif trips.stores:  # everything is read before anything is written
        for place, store in enumerate(trips.stores):
            text = _value(trips, store, store.value, array)
            lines.append(f"v{place}={text}" + ".copy()" * isinstance(store.value, Load))
        for place, store in enumerate(trips.stores):
            lines.append(f"{_view(trips, store, f'<u{store.size}', array)}[:]=v{place}")
    for local, by in trips.steps.items():
        lines.append(
            f"l{local}=l{local}+n*({by.text})"
            if by.terms
            else f"l{local}=l{local}{'+' if by.constant > 0 else '-'}{_times('n', abs(by.constant))}"
        )
    return lines


def _one(trips: Trips, store: Store, memory: str, array: str) -> str:
    """The only store: by slices where that can be, which costs a third of numpy."""
    stride = trips.stride(store.address)
    if not stride.terms:
        if stride.constant in (store.size, -store.size):
            begin, end = _span(trips, store)
            target = f"{memory}[{begin}:{end}]"
            value = store.value
            if isinstance(value, Fixed | Affine) and trips.stride(_as_sum(value)) == Affine():
                mask = (1 << 8 * store.size) - 1
                if not locals_of(value):
                    number = (int(value.text) if isinstance(value, Fixed) else value.constant) & mask
                    return f"{target}={number.to_bytes(store.size, 'little')!r}*n"
                return f"{target}=repeated({value.text}&{mask},{store.size},n)"
            if isinstance(value, Load) and value.size == store.size and trips.stride(value.address) == stride:
                begin, end = _span(trips, value)
                return f"{target}={memory}[{begin}:{end}]"
        if store.size == 1 and isinstance(store.value, Load) and not trips.stride(store.value.address).terms:
            step, its = stride.constant, trips.stride(store.value.address).constant
            if step > 0 and its > 0:
                return f"{_every(trips, store, step, memory)}={_every(trips, store.value, its, memory)}"
    return f"{_view(trips, store, f'<u{store.size}', array)}[:]={_value(trips, store, store.value, array)}"


def _as_sum(value: Fixed | Affine) -> Affine:
    return value if isinstance(value, Affine) else Affine()


def _every(trips: Trips, access: Load | Store, step: int, memory: str) -> str:
    """The lowest byte of every element."""
    begin = access.address.text
    end = f"{access.address.plus(Affine((), 1 - step)).text}+{_times('n', step)}"
    return f"{memory}[{begin}:{end}:{step}]" if step != 1 else f"{memory}[{begin}:{end}]"


def _view(trips: Trips, access: Load | Store, dtype: str, array: str) -> str:
    stride = trips.stride(access.address)
    return f"elements({array},n,'{dtype}',{access.address.text},{stride.text})"


def _value(trips: Trips, store: Store, value: object, array: str) -> str:
    if isinstance(value, Load):
        if value is store.value and value.size >= store.size:
            return _view(trips, value, f"<u{value.size}", array)
        letter = "i" if value.kind[0] == "s" else "u"
        text = _view(trips, value, f"<{letter}{value.size}", array)
        return text if value.size >= 4 else f"{text}.astype('u4')"
    if isinstance(value, Operation):
        left, right = (_value(trips, store, side, array) for side in (value.left, value.right))
        return f"({left}{value.operator}{right})"
    if isinstance(value, Affine):
        stride = trips.stride(value)
        if stride == Affine():
            return f"word({value.text})"
        return f"words(n,{value.text},{stride.text})"
    if isinstance(value, Fixed):
        return f"long({value.text})"
    raise TypeError(f"{value!r} is no value")
