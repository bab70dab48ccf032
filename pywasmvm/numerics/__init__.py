"""What the numeric instructions compute: pure functions on canonical values, shared by both engines.

A function is named after its instruction with dots as underscores (`i32.clz` is `integers.i32_clz`);
values are represented as docs/adr/0003-value-representation.md decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.numerics import convert, floats, integers, vectors, vectors_float, vectors_relaxed

_FAMILIES = (integers, floats, convert, vectors, vectors_float, vectors_relaxed)


def function(name: str) -> Callable[..., Any]:
    """The function behind the instruction `name` (text format, `i32.clz`).

    Raises LookupError where the instruction has none: it is unknown, or it is not a computation.
    """
    wanted = name.replace(".", "_")
    if "." in name:
        for family in _FAMILIES:
            found = getattr(family, wanted, None)
            if found is not None:
                return found  # type: ignore[no-any-return]
    raise LookupError(f"no numerics function for the instruction {name!r}")
