"""The name section (spec: Appendix, Custom Sections). A faulty one is never an error: names that can be
read are used, the rest is ignored.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from pywasmvm.binary.reader import Reader
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import ModuleSyntax


@dataclass(slots=True)
class Names:
    """Names for people: of the module, and of functions and their locals by index."""

    module: str | None = None
    functions: dict[int, str] = field(default_factory=dict)
    locals: dict[int, dict[int, str]] = field(default_factory=dict)


def names(module: ModuleSyntax) -> Names:
    """Read the name section, if there is one."""
    found = Names()
    for section in module.customs:
        if section.name == "name":
            with contextlib.suppress(MalformedError):
                _read(Reader(module.source, section.start, section.end), found)
    return found


def _read(reader: Reader, found: Names) -> None:
    while not reader.exhausted:
        number = reader.byte()
        size = reader.u32()
        start = reader.take(size)
        part = Reader(reader.data, start, start + size)
        if number == 0:
            found.module = part.name()
        elif number == 1:
            _name_map(part, found.functions)
        elif number == 2:
            for _ in range(part.length()):
                _name_map(part, found.locals.setdefault(part.u32(), {}))


def _name_map(reader: Reader, into: dict[int, str]) -> None:
    for _ in range(reader.length()):
        index = reader.u32()
        into[index] = reader.name()
