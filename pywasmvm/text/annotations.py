"""Annotations that mean something: names, custom sections, hints (spec: Appendix, Custom Annotations)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pywasmvm.binary.custom import Names
from pywasmvm.text.lexer import Tokens

if TYPE_CHECKING:
    from pywasmvm.text.fields import FieldReader


def read_annotations(tokens: Tokens, begin: int, end: int, reader: FieldReader) -> Names:
    """The names of a module: those of its identifiers."""
    names = reader.names
    return Names(
        module=None if names.module is None else names.module.decode(),
        functions=names.funcs.by_index(),
        locals={index: space.by_index() for index, space in names.locals.items()},
        labels=names.labels,
        types=names.types.by_index(),
        tables=names.tables.by_index(),
        memories=names.memories.by_index(),
        globals=names.globals.by_index(),
        elems=names.elems.by_index(),
        data=names.data.by_index(),
        fields={index: space.by_index() for index, space in names.fields.items() if space.names},
        tags=names.tags.by_index(),
    )
