"""What is known of the contents of memory, and which addresses are worth keeping.

Compilers that do not look at memory themselves (AssemblyScript's, Go's) read a field again right after they
wrote it, and compute its address again. What was stored or loaded is remembered here by the text of its
address while nothing can have changed it: until a store that may reach it, a call, or an assignment to a
variable in the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pywasmvm.syntax import Code
from pywasmvm.translate.expr import Expr, Place

#: Bytes of the kinds of accesses whose values are remembered: unsigned integers.
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class Known:
    """Values of places, and computed addresses: text of an expression to what has its value.

    `places` holds the value of a place and the locals that value and address depend on; `kept` a variable
    that nobody assigns again, and the locals it was computed from.
    """

    __slots__ = ("kept", "places")

    def __init__(self) -> None:
        self.places: dict[Place, tuple[Expr, frozenset[int]]] = {}
        self.kept: dict[str, tuple[Expr, frozenset[int]]] = {}

    def copy(self) -> Known:
        """The same, to go on from."""
        made = Known()
        made.places, made.kept = dict(self.places), dict(self.kept)
        return made

    def joined(self, others: Sequence[Known]) -> Known:
        """What is known on this way and on the others."""
        made = Known()
        for place, found in self.places.items():
            if all(place in o.places and o.places[place][0].text == found[0].text for o in others):
                made.places[place] = found
        for text, found in self.kept.items():
            if all(text in o.kept and o.kept[text][0].text == found[0].text for o in others):
                made.kept[text] = found
        return made

    def assigned(self, local: int) -> None:
        """A local has a new value."""
        if self.places:
            self.places = {k: v for k, v in self.places.items() if local not in v[1]}
        if self.kept:
            self.kept = {k: v for k, v in self.kept.items() if local not in v[1]}

    def stored(self, memory: int, base: str, offset: int, size: int) -> None:
        """Bytes have changed: only places at another distance from the same base have not, since two
        memories may be one.
        """
        if self.places:
            self.places = {
                place: found
                for place, found in self.places.items()
                if place[:2] == (memory, base)
                and (place[2] + SIZES[place[3]] <= offset or offset + size <= place[2])
            }

    def forget(self) -> None:
        """Anything in memory may have changed."""
        self.places = {}


def repeated_addresses(code: Code, heights: Sequence[int]) -> tuple[set[int], set[int]]:
    """The loads and stores whose address is computed by the same instructions as that of another one, and the
    locals with which many of the addresses begin.
    """
    if sum(opcode.access is not None for opcode in code.ops) < 2:
        return set(), set()
    seen: dict[object, int] = {}
    found: set[int] = set()
    bases: Counter[int] = Counter()
    ops, immediates = code.ops, code.immediates
    for index, opcode in enumerate(ops):
        if opcode.access is None or heights[index] < 0 or opcode.signature is None:
            continue
        height = heights[index] - len(opcode.signature.params)
        # The operands begin where the stack was so high last, and the address ends where the value begins.
        first = index - 1
        while first >= 0 and heights[first] > height:
            first -= 1
        if first < 0 or heights[first] != height:
            continue
        last = index
        if len(opcode.signature.params) > 1:
            last = index - 1
            while heights[last] > height + 1:
                last -= 1
        if ops[last - 1].name == "local.tee":  # computed for a local: the address is that
            first = last - 1
        if ops[first].name in ("local.get", "local.tee"):
            bases[immediates[first]] += 1  # type: ignore[index]  # the immediate of these two is a local
        if last - first > MOST_REPEATED:
            continue
        names = ["local.get" if op.name == "local.tee" else op.name for op in ops[first:last]]
        key = (*names, *map(repr, immediates[first:last]))
        other = seen.setdefault(key, index)
        if other != index:
            found |= {other, index}
    return found, {local for local, count in bases.items() if count >= MANY}


#: So many addresses with one local are worth a variable.
MANY = 3

#: Longer computations of an address are not compared.
MOST_REPEATED = 16
