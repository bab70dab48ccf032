"""The symbolic machine of the translator: operands that wait as expressions, what is known of each local, and
the statements written so far.

An operand is computed when it is used; whatever might change it meanwhile makes it a variable first (see
`spill`). How control flows between the statements is not known here (`body.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pywasmvm.syntax import Code
from pywasmvm.translate import comparisons
from pywasmvm.translate.expr import ATOM, DEEPEST, TERNARY, TRAPS, Expr, call, merged
from pywasmvm.translate.floats import CARRIED, COMPUTED, clean
from pywasmvm.translate.integers import canonical
from pywasmvm.translate.places import Known
from pywasmvm.translate.rows import Row
from pywasmvm.types import F64, I32, I64, RefType, ValType

#: What is known of a local: bounds of its value, and how many low bits are zero.
Fact = tuple[int, int, int]

BITS: dict[ValType, int] = {I32: 32, I64: 64}
MASKS = {32: 0xFFFF_FFFF, 64: 0xFFFF_FFFF_FFFF_FFFF}


class LocalTypes:
    """The types of a function's locals, parameters first: a module may declare very many in a few bytes."""

    __slots__ = ("_starts", "_types")

    def __init__(self, params: Sequence[ValType], code: Code) -> None:
        self._starts = [0]
        self._types: list[ValType] = []
        for count, local_type in [*((1, p) for p in params), *code.locals]:
            if count:
                self._types.append(local_type)
                self._starts.append(self._starts[-1] + count)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, local: int) -> ValType:
        return self._types[bisect_right(self._starts, local) - 1]


class Symbolic:
    """Operands, locals and text of the node that is being translated.

    `uses` collects the free variables of the code: memories, globals, functions and so on, by the names that
    `link.py` knows how to bind. `marking` puts the number of each instruction that can fail into the text.
    """

    def __init__(self, types: LocalTypes, given: int, *, marking: bool) -> None:
        self.types, self.marking = types, marking
        self.uses: set[str] = set()
        #: Whether the text is for people, with instructions beside it.
        self.listing = False
        #: How many locals are given from outside.
        self.given = given
        #: f64 locals that may hold NaNs from outside; found out while translating (see `floats.py`).
        self.carrying: set[int] = set(range(given))
        self.missed: set[int] = set()
        self._restart()

    def _restart(self) -> None:
        self.at_instruction = 0
        self.lines: list[str] = []
        self.stack: list[Expr] = []
        self.facts: dict[int, Fact] = {}
        self.assigned: set[int] = set(range(self.given))
        #: Locals that need their zero at the entry.
        self.zeroed: set[int] = set()
        self.temps = 0
        self.known = Known()
        self._unread: tuple[str, int] | None = None
        #: The stores that were written last, if more may join them.
        self.row: Row | None = None

    # -- the symbolic stack --------------------------------------------------------------------------------

    def pop(self) -> Expr:
        """The topmost operand."""
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Expr]:
        """Several operands, the last one was on top."""
        if not count:
            return []
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def push(self, e: Expr, bits: int = 0) -> None:
        """Put an operand on the stack."""
        e.bits = bits
        if e.depth > DEEPEST:
            e = self.temp(e)
        self.stack.append(e)

    def push_variable(self, text: str, type_: ValType) -> None:
        """Put a variable of our own on the stack: it is assigned once."""
        made = Expr(text)
        made.bits = BITS.get(type_, 0)
        made.hi = MASKS.get(made.bits, 0)
        made.nan = CARRIED
        self.stack.append(made)

    def spill(self, effects: int, *, keep: int = 0, local: int = -1) -> None:
        """Compute now what must not be computed after what comes next.

        Those operands that have one of the effects, or read the local; and, as traps happen in order, those
        that may trap below another that is computed. The topmost `keep` operands are left alone.
        """
        stack = self.stack
        last = len(stack) - keep
        trapping = -1
        wanted = []
        for place in range(last):
            e = stack[place]
            if e.effects & effects or local in e.locals:
                wanted.append(place)
                if e.effects & TRAPS:
                    trapping = place
        if not wanted:
            return
        for place in range(last):
            e = stack[place]
            if e.effects & effects or local in e.locals or (place < trapping and e.effects & TRAPS):
                stack[place] = self._assigned(e)

    def settle(self, *, keep: int = 0) -> None:
        """Before a jump: every operand becomes a constant or a variable that nobody assigns again.

        The topmost `keep` are left alone.
        """
        stack = self.stack
        for place in range(len(stack) - keep):
            e = stack[place]
            if e.value is None and (e.depth or e.locals or e.effects or e.negation is not None):
                stack[place] = self._assigned(e)

    def _assigned(self, e: Expr) -> Expr:
        """The value in a new variable."""
        name = f"t{self.temps}"
        self.temps += 1
        text = e.text if e.negation is None else e.number
        self._unread = (name, len(self.lines))
        self.lines.append(f"{name}={text}")
        made = Expr(name, ATOM, e.lo, e.hi)
        made.bits, made.align, made.nan = e.bits, e.align, e.nan
        if e.loaded is not None:
            self.known.places[e.loaded] = (made, e.locals)
        return made

    def temp(self, e: Expr) -> Expr:
        """The value in a variable, computed now: before that, what could trap earlier."""
        if e.effects & TRAPS:
            self.spill(TRAPS)
        return self._assigned(e)

    def names(self, *parts: Expr) -> list[Expr]:
        """The operands as names or constants, which may be written twice; computed in order."""
        made = list(parts)
        last = max((i for i, e in enumerate(parts) if not e.is_name), default=-1)
        for place, e in enumerate(parts):
            if not e.is_name or (place < last and e.effects & TRAPS):
                made[place] = self.temp(e)
        return made

    def shared(self, text: str, e: Expr) -> Expr:
        """A value that is worth keeping: computed once while the operand is the same."""
        if not e.is_name or e.effects:
            made = Expr(text, ATOM, 0, 0, *merged(e))
            made.prec = 10  # a product
            return made
        return self.keep(text, e.locals)

    def keep(self, text: str, locals_: frozenset[int]) -> Expr:
        """What an expression without effects gives, in a variable that is used again while the locals it
        reads stay as they are.
        """
        found = self.known.kept.get(text)
        if found is None:
            name = f"t{self.temps}"
            self.temps += 1
            self.lines.append(f"{name}={text}")
            found = self.known.kept[text] = (Expr(name), locals_)
        return found[0]

    # -- variables -----------------------------------------------------------------------------------------

    def local_type(self, local: int) -> ValType:
        """The type of a local."""
        return self.types[local]

    def fact(self, local: int) -> Fact:
        """Bounds and alignment of an integer local."""
        found = self.facts.get(local)
        if found is None:
            bits = BITS.get(self.local_type(local), 0)
            found = (0, MASKS.get(bits, 0), 0)
        return found

    def local(self, index: int) -> Expr:
        """A read of a local."""
        type_ = self.local_type(index)
        made = Expr(f"l{index}", ATOM, 0, 0, frozenset((index,)))
        made.bits = BITS.get(type_, 0)
        if made.bits:
            made.lo, made.hi, made.align = self.fact(index)
            made.local = index
            if made.lo == made.hi:
                value = Expr(str(made.lo), ATOM, made.lo, made.lo)
                value.value, value.bits, value.align = made.lo, made.bits, made.align
                if index in self.assigned:
                    return value
        elif type_ is F64:
            made.nan = CARRIED if index in self.carrying else COMPUTED
        if index not in self.assigned:
            self.zeroed.add(index)
        return made

    def set_local(self, index: int, e: Expr) -> None:
        """Assign a local."""
        type_ = self.local_type(index)
        bits = BITS.get(type_, 0)
        name = f"l{index}"
        if bits:
            e = canonical(e, bits, self)
            text = e.text if e.negation is None else e.number
        elif type_ is F64:
            if e.nan == CARRIED:
                self.missed.add(index)
            text = clean(e, self).text if index in self.carrying else e.text
        else:
            text = e.text
        if text != name:
            if e.effects & TRAPS:
                self.spill(TRAPS, local=index)
            else:
                self.spill(0, local=index)
            unread = self._unread
            if (
                unread is not None
                and unread[0] == text
                and unread[1] == len(self.lines) - 1
                and not self._on_stack(text)
            ):
                self.lines[-1] = f"{name}={self.lines[-1][len(text) + 1 :]}"
            else:
                self.lines.append(f"{name}={text}")
            self._unread = None
            self.known.assigned(index)
            if e.loaded is not None and index not in e.locals:
                value = Expr(name)
                value.local = index
                self.known.places[e.loaded] = (value, e.locals | {index})
        if bits:
            self.facts[index] = (e.lo, e.hi, e.align)
        self.assigned.add(index)

    def _on_stack(self, text: str) -> bool:
        return any(e.text == text or (e.depth and text in e.text) for e in self.stack)

    # -- values that leave -----------------------------------------------------------------------------------

    def escaping(self, e: Expr) -> str:
        """The text of a value that others will see: canonical, and a number, not a bool."""
        if e.bits:
            e = canonical(e, e.bits, self)
            return e.text if e.negation is None else e.number
        return clean(e, self).text

    def condition(self, e: Expr) -> Expr:
        """An i32 as a condition."""
        return comparisons.nonzero(e, 32, self)

    # -- text ------------------------------------------------------------------------------------------------

    def fresh(self) -> str:
        """The variable that holds a value between its test and its use, which follow each other at once."""
        return "w"

    def _note_lines(self) -> None:
        """In a listing each statement ends with the number of its instruction, as a comment."""
        lines = self.lines
        for place in range(len(lines) - 1, -1, -1):
            if "\t#" in lines[place]:
                break
            lines[place] += f"\t#{self.at_instruction}"

    def statement(self, text: str) -> None:
        """A statement, now."""
        self._unread = None
        self.lines.append(text)

    def variable(self, text: str) -> str:
        """Assign a new variable, and give its name."""
        name = f"t{self.temps}"
        self.temps += 1
        self._unread = (name, len(self.lines))
        self.lines.append(f"{name}={text}")
        return name

    def use(self, name: str) -> str:
        """A free variable of the code."""
        self.uses.add(name)
        return name

    @staticmethod
    def reference_type(type_: RefType) -> str:
        """The name under which `link.py` makes a reference type."""
        heap = type_.heap
        name = heap if isinstance(heap, int) else heap.name  # type: ignore[union-attr] # as written: no DefType
        return f"r{int(type_.nullable)}_{name}"

    def mark(self, text: str) -> str:
        """Text whose evaluation may fail, marked with its instruction when marks are wanted."""
        return f"\x01{self.at_instruction}\x02{text}" if self.marking else text

    def trapping_call(self, name: str, *arguments: Expr, lo: int = 0, hi: int = 0) -> Expr:
        """A call of a helper function that may trap."""
        made = call(name, *arguments, lo=lo, hi=hi, effects=TRAPS)
        made.text = self.mark(made.text)
        return made

    def rounded(self, e: Expr) -> Expr:
        """An f32: the value rounded through the scratch view."""
        return self.scratch("as_f32", e, "as_f32")

    def scratch(self, into: str, e: Expr, out: str, *, hi: int = 0) -> Expr:
        """The bytes of a value seen through another view of the same scratch."""
        if e.effects & TRAPS:
            self.spill(TRAPS)
        self.statement(f"{into}[0]={e.text}")
        return Expr(self.variable(f"{out}[0]"), ATOM, 0, hi)


def number(e: Expr) -> Expr:
    """A condition as 1 or 0; other values as they are."""
    if e.negation is None:
        return e
    made = Expr(e.number, TERNARY, 0, 1, *merged(e))
    made.bits = e.bits
    return made
