"""Expressions: what stands on the symbolic operand stack while a function is translated.

An expression is Python source text and what is known about it. An integer's text may compute any number that
is congruent to the Wasm value ("wide"): `lo` and `hi` bound what the text itself gives, and whoever needs the
canonical unsigned value asks for it (`canonical` in `integers.py`). Comparisons keep the text of a condition,
which is cheaper to branch on than a number.
"""

from __future__ import annotations

from typing import Final

# Precedence of Python's operators, as far as generated code uses them; higher binds tighter.
TERNARY: Final = 1
NOT: Final = 3
COMPARE: Final = 4
OR: Final = 5
XOR: Final = 6
AND: Final = 7
SHIFT: Final = 8
ADD: Final = 9
MUL: Final = 10
UNARY: Final = 11
ATOM: Final = 12

# What evaluating an expression may notice of the world besides locals, or do to it.
READS_MEMORY: Final = 1
READS_GLOBALS: Final = 2
READS_TABLES: Final = 4
TRAPS: Final = 8
READS: Final = READS_MEMORY | READS_GLOBALS | READS_TABLES

#: No local is read.
NO_LOCALS: Final[frozenset[int]] = frozenset()

#: Python's parser and compiler recurse: deeper expressions are cut with a temporary variable.
DEEPEST: Final = 24

Fact = tuple[int, int, int]

#: A number in memory: memory, address without its constant (as text), constant, kind of access.
Place = tuple[int, str, int, str]


class Expr:
    """A value: Python text, precedence, bounds of an integer, the locals it reads, its effects.

    `base` and `offset` take a sum with a constant apart; `scaled` is (expression, shift) for a left shift
    by a constant; `align` is the number of low bits known to be zero. `yes`/`no` of a condition are the
    facts about locals that hold when it is true or false, and `negation` its opposite as text.
    """

    # Most expressions have few of these: what is not set is looked up in the class.

    value: int | None = None  # of a constant
    local: int | None = None  # of a plain local: its index
    negation: str | None = None
    #: A condition's text (or its negation) may give any value that is true or false, not just 1 or 0.
    loose = False
    loose_negation = False
    #: Width of an integer, 0 of everything else; known once it is on the stack.
    bits = 0
    base: Expr | None = None
    offset = 0
    scaled: tuple[Expr, int] | None = None
    align = 0
    #: Of a sum: what is added.
    parts: tuple[Expr, Expr] | None = None
    #: (number, expression) where this is the number less the expression.
    rest: tuple[int, Expr] | None = None
    #: What this is all bits but the lowest of, and how many those are.
    high: tuple[Expr, int] | None = None
    #: What this is the complement of, bit by bit.
    complement: Expr | None = None
    #: Of what was read from memory: the place it was read from (`places.py`).
    loaded: Place | None = None
    #: Of an f64: what its NaNs may be, see `floats.py`.
    nan = 0
    #: Of a comparison of integers: the operator and the operands as they were compared.
    compared: tuple[str, Expr, Expr] | None = None
    yes: tuple[Fact, ...] = ()
    no: tuple[Fact, ...] = ()

    def __init__(
        self,
        text: str,
        prec: int = ATOM,
        lo: int = 0,
        hi: int = 0,
        locals_: frozenset[int] = NO_LOCALS,
        effects: int = 0,
        depth: int = 0,
    ) -> None:
        self.text, self.prec, self.lo, self.hi = text, prec, lo, hi
        self.locals, self.effects, self.depth = locals_, effects, depth

    @property
    def is_condition(self) -> bool:
        """Whether the text is a Python condition that may give a bool."""
        return self.negation is not None

    @property
    def is_name(self) -> bool:
        """Whether the text is a name or a literal: evaluating it twice costs nothing."""
        return self.prec == ATOM and self.depth == 0

    @property
    def number(self) -> str:
        """The text of a condition as 1 or 0."""
        return f"1 if {self.at(TERNARY + 1)} else 0"

    def at(self, prec: int) -> str:
        """The text, in parentheses where it binds looser than `prec`."""
        return self.text if self.prec >= prec else f"({self.text})"

    def __repr__(self) -> str:
        return f"<{self.text} in {self.lo}..{self.hi}>"


def constant(value: int) -> Expr:
    """An integer."""
    made = Expr(str(value) if value >= 0 else f"({value})", ATOM, value, value)
    made.value = value
    made.align = (value & -value).bit_length() - 1 if value else 64
    return made


def merged(*parts: Expr) -> tuple[frozenset[int], int, int]:
    """Locals, effects and depth of an expression made of these."""
    if len(parts) == 1:
        part = parts[0]
        return part.locals, part.effects, part.depth + 1
    locals_, effects, depth = NO_LOCALS, 0, 0
    for part in parts:
        if part.locals:
            locals_ = locals_ | part.locals if locals_ else part.locals
        effects |= part.effects
        if part.depth > depth:
            depth = part.depth
    return locals_, effects, depth + 1


def binary(operator: str, prec: int, left: Expr, right: Expr, lo: int, hi: int) -> Expr:
    """`left operator right`, an operator that groups to the left."""
    return Expr(f"{left.at(prec)}{operator}{right.at(prec + 1)}", prec, lo, hi, *merged(left, right))


def call(name: str, *arguments: Expr, lo: int = 0, hi: int = 0, effects: int = 0) -> Expr:
    """A call of a pure helper function."""
    locals_, inner, depth = merged(*arguments) if arguments else (NO_LOCALS, 0, 1)
    return Expr(
        f"{name}({','.join([a.text for a in arguments])})", ATOM, lo, hi, locals_, inner | effects, depth
    )


def condition(text: str, prec: int, negation: str, *parts: Expr) -> Expr:
    """A condition. The negation is written so that it needs no parentheses after `if`."""
    made = Expr(text, prec, 0, 1, *merged(*parts))
    made.negation = negation
    return made
