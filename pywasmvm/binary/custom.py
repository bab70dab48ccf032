"""The name section (spec: Appendix, Custom Sections). A faulty one is never an error: names that can be
read are used, the rest is ignored.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from pywasmvm.binary.reader import Reader
from pywasmvm.binary.values import text, unsigned
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import ModuleSyntax


@dataclass(slots=True)
class Names:
    """Names for people: of the module, and of what is in its index spaces by index.

    Locals and labels are named within their function, fields within their type.
    """

    module: str | None = None
    functions: dict[int, str] = field(default_factory=dict)
    locals: dict[int, dict[int, str]] = field(default_factory=dict)
    labels: dict[int, dict[int, str]] = field(default_factory=dict)
    types: dict[int, str] = field(default_factory=dict)
    tables: dict[int, str] = field(default_factory=dict)
    memories: dict[int, str] = field(default_factory=dict)
    globals: dict[int, str] = field(default_factory=dict)
    elems: dict[int, str] = field(default_factory=dict)
    data: dict[int, str] = field(default_factory=dict)
    fields: dict[int, dict[int, str]] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)


#: The parts of the section in the order of their numbers, the module's name (0) left out, and whether their
#: names belong to an owner each.
_PARTS: dict[int, tuple[str, bool]] = {
    1: ("functions", False),
    2: ("locals", True),
    3: ("labels", True),
    4: ("types", False),
    5: ("tables", False),
    6: ("memories", False),
    7: ("globals", False),
    8: ("elems", False),
    9: ("data", False),
    10: ("fields", True),
    11: ("tags", False),
}


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
        elif number in _PARTS:
            attribute, owned = _PARTS[number]
            into = getattr(found, attribute)
            if owned:
                for _ in range(part.length()):
                    _name_map(part, into.setdefault(part.u32(), {}))
            else:
                _name_map(part, into)


def _name_map(reader: Reader, into: dict[int, str]) -> None:
    for _ in range(reader.length()):
        index = reader.u32()
        into[index] = reader.name()


def encode_names(names: Names) -> bytes:
    """The contents of a name section."""
    parts = [] if names.module is None else [_part(0, text(names.module))]
    for number, (attribute, owned) in _PARTS.items():
        found = getattr(names, attribute)
        if not owned:
            parts += [_part(number, _encoded_map(found))] if found else []
            continue
        owners = [unsigned(owner) + _encoded_map(inner) for owner, inner in sorted(found.items()) if inner]
        if owners:
            parts.append(_part(number, unsigned(len(owners)) + b"".join(owners)))
    return b"".join(parts)


def _part(number: int, contents: bytes) -> bytes:
    return bytes([number]) + unsigned(len(contents)) + contents


def _encoded_map(names: dict[int, str]) -> bytes:
    entries = [unsigned(index) + text(name) for index, name in sorted(names.items())]
    return unsigned(len(entries)) + b"".join(entries)
