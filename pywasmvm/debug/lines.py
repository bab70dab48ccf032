"""Where code comes from: file and line of an instruction, if the module was built with that knowledge.

Two kinds are known: DWARF line tables inside of the module (C, C++, Rust, Zig; `-g`), and source maps beside
it or in it (AssemblyScript, `--sourceMap`). Debug information never makes anything fail: what cannot be read
is as if it were not there.
"""

from __future__ import annotations

import base64
import functools
import weakref
from collections.abc import Callable
from typing import Protocol

from pywasmvm.binary.reader import Reader
from pywasmvm.debug.dwarf import DwarfError, LineTable, Place
from pywasmvm.debug.source_map import SourceMap, SourceMapError
from pywasmvm.errors import MalformedError
from pywasmvm.module import Module

__all__ = ["Lines", "Place", "attach", "lines_of"]

_CODE_SECTION = 10
_INLINE = "data:application/json;base64,"


class _Table(Protocol):
    def place(self, address: int, /) -> Place | None: ...


class Lines:
    """The places of a module's instructions; read when one is first asked for."""

    def __init__(self, module: Module, source_map: Callable[[], bytes | None] = lambda: None) -> None:
        """`source_map` gives the text of the map that stands beside the module, where there is one."""
        self._module = weakref.ref(module)
        self._beside = source_map

    def place(self, offset: int | None) -> Place | None:
        """Where the instruction at a byte offset of the module comes from; None when that is not known."""
        base, table = self._read
        return None if table is None or offset is None else table.place(offset - base)

    @functools.cached_property
    def _read(self) -> tuple[int, _Table | None]:
        """What its table counts from, and the table."""
        module = self._module()
        try:
            if module is None:
                return 0, None
            sections = module.custom_sections
            if ".debug_line" in sections and len(table := LineTable(sections)):
                return _code_start(module.syntax.source), table
            text = _inline(sections.get("sourceMappingURL")) or self._beside()
            return 0, None if text is None else SourceMap(text)
        except (DwarfError, SourceMapError, MalformedError, OSError, ValueError, RecursionError):
            return 0, None


_known: weakref.WeakKeyDictionary[Module, Lines] = weakref.WeakKeyDictionary()


def lines_of(module: Module) -> Lines:
    """The places of a module."""
    found = _known.get(module)
    if found is None:
        found = _known[module] = Lines(module)
    return found


def attach(module: Module, source_map: Callable[[], bytes | None]) -> None:
    """Say where the source map of a module is, in case it is asked for."""
    _known[module] = Lines(module, source_map)


def _inline(url: bytes | None) -> bytes | None:
    """The source map that a module carries in itself. A file that it names is not read: which one that is
    would be the module's choice."""
    if url is None:
        return None
    name = Reader(url, 0, len(url)).name()
    return base64.b64decode(name.removeprefix(_INLINE)) if name.startswith(_INLINE) else None


def _code_start(source: bytes) -> int:
    """Where the contents of the code section begin."""
    reader = Reader(source, 8, len(source))
    while reader.pos < reader.end:
        kind = reader.byte()
        size = reader.u32()
        if kind == _CODE_SECTION:
            return reader.pos
        reader.pos += size
    return 0
