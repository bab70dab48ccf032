"""Stores one after the other through one address: whether it is aligned is asked once for all of them.

The fields of a new object are stored like that. To ask costs about what an index of a typed view saves over
`struct`, so that a store by itself does not ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import Symbolic


@dataclass(slots=True)
class Row:
    """Some stores of numbers of one kind: `begin` and `end` are their lines in the node."""

    address: str
    view: str
    begin: int
    end: int
    apart: list[str]
    aligned: list[str]


def in_row(body: Symbolic, address: str, size: int, text: str, view: str, step: int, value: str) -> None:
    """Write the store `text` of `value`, at `view[address // size + step]` if the address is aligned."""
    lines, row = body.lines, body.row
    place = f"{view}[q{step:+d}]" if step else f"{view}[q]"
    aligned = f"{body.mark(place)}={value}"
    if row is None or row.end != len(lines) or (row.address, row.view) != (address, view):
        body.statement(text)
        body.row = Row(address, view, len(lines) - 1, len(lines), [text], [aligned])
        return
    row.apart.append(text)
    row.aligned.append(aligned)
    body.use(view)
    del lines[row.begin :]
    body.statement(f"if {address}&{size - 1}:")
    lines += [f" {line}" for line in row.apart]
    lines += ["else:", f" q={address}//{size}"]
    lines += [f" {line}" for line in row.aligned]
    row.end = len(lines)
