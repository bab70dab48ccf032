"""What printed text calls things: identifiers where a name is unique in its index space, annotations else."""

from __future__ import annotations

import re
from collections import Counter

from pywasmvm.binary.custom import Names

_SIMPLE = re.compile(r"[0-9A-Za-z!#$%&'*+\-./:<=>?@\\^_`|~]+")

#: Characters of a string by their byte: printable ASCII as it is, the rest escaped.
_ESCAPES = {byte: f"\\{byte:02x}" for byte in range(256) if not 0x20 <= byte < 0x7F or byte in b'"\\'}


def bytes_text(data: bytes) -> str:
    """Bytes as a string token."""
    return f'"{data.decode("latin-1").translate(_ESCAPES)}"'


def identifier(name: str) -> str:
    """A name as an identifier, quoted where its characters ask for it."""
    return f"${name}" if _SIMPLE.fullmatch(name) else f"${bytes_text(name.encode())}"


def annotation(name: str) -> str:
    """A name as an annotation: for people only."""
    return f"(@name {bytes_text(name.encode())})"


class Space:
    """The names of one index space: how its members are referred to, and how they are introduced."""

    __slots__ = ("definitions", "references")

    def __init__(self, names: dict[int, str], shadowing: bool = False) -> None:
        # The innermost label is meant where several have one name.
        count = Counter() if shadowing else Counter(names.values())
        #: Identifiers by index.
        self.references = {i: identifier(name) for i, name in names.items() if name and count[name] < 2}
        self.definitions = {i: self.references.get(i) or annotation(name) for i, name in names.items()}

    def reference(self, index: int) -> str:
        """The identifier, or the number."""
        return self.references.get(index) or str(index)

    def definition(self, index: int) -> str:
        """What stands behind the keyword, with a blank behind it; empty when there is no name."""
        found = self.definitions.get(index)
        return f"{found} " if found else ""


#: A space without any names.
NAMELESS = Space({})


class Identifiers:
    """The names of all index spaces of a module."""

    def __init__(self, names: Names) -> None:
        self.module = Space({} if names.module is None else {0: names.module})
        self.types, self.functions = Space(names.types), Space(names.functions)
        self.tables, self.memories = Space(names.tables), Space(names.memories)
        self.globals, self.tags = Space(names.globals), Space(names.tags)
        self.elems, self.data = Space(names.elems), Space(names.data)
        self.fields = {owner: Space(fields) for owner, fields in names.fields.items()}
        self.locals = {owner: Space(locals_) for owner, locals_ in names.locals.items()}
        self.labels = {owner: Space(labels, shadowing=True) for owner, labels in names.labels.items()}
        self.of_kind = {
            "func": self.functions,
            "table": self.tables,
            "memory": self.memories,
            "global": self.globals,
            "tag": self.tags,
        }
