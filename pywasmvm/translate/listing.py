"""The Python a function becomes, for people: offsets of the Wasm instructions beside it.

  000024  l2=l0+l1

The variant is the one without limits, so that nothing but the function itself is to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywasmvm.module import Module
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options


def listing(module: Module, index: int) -> Iterator[str]:
    """The rows of a defined function (index with imports counted). Raises InvalidError, MalformedError."""
    text = source_of(module, index, Options(small=True), listing=True)
    offsets = module.body(index)[0].offsets
    for line in (text or "").splitlines()[1:-1]:  # without the function around it that declares its variables
        statement, _, number = line.partition("\t#")
        if statement.strip().endswith("=None"):
            continue
        place = f"{offsets[int(number)]:06x}" if number else ""
        yield f"  {place:6}  {statement[1:]}"
