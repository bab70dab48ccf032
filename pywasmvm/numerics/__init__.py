"""What the numeric instructions compute: pure functions on canonical values, shared by both engines.

A function is named after its instruction with dots as underscores (`i32.clz` is `integers.i32_clz`);
values are represented as docs/adr/0003-value-representation.md decides. Vector instructions that exist once
for each shape are made in the `vectors` files and found by name only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.numerics import (
    convert,
    floats,
    integers,
    vectors,
    vectors_convert,
    vectors_float,
    vectors_integer,
    vectors_relaxed,
)
from pywasmvm.numerics.lanes import LANEWISE

_FAMILIES = (
    integers,
    floats,
    convert,
    vectors,
    vectors_integer,
    vectors_float,
    vectors_convert,
    vectors_relaxed,
)


def function(name: str) -> Callable[..., Any]:
    """The function behind the instruction `name` (text format, `i32.clz`).

    Raises LookupError where the instruction has none: it is unknown, or it is not a computation.
    """
    name = vectors_relaxed.STRICT.get(name, name)
    wanted = name.replace(".", "_")
    if "." in name:
        for functions in (LANEWISE, *map(vars, _FAMILIES)):
            if wanted in functions:
                return functions[wanted]  # type: ignore[no-any-return]
    raise LookupError(f"no numerics function for the instruction {name!r}")
