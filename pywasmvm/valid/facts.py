"""What validation learns about a function and the engines need.

One column is enough: the height of the operand stack before each instruction. Branch targets follow from the
nesting of the code; arities from block types; a height of -1 marks code that can never run, which no engine
needs to look at.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """`heights[i]` is the number of operands on the stack before instruction `i`; -1 where unreachable."""

    heights: array[int]
