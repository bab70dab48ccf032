"""A module in text form to `ModuleSyntax` (spec: Text Format, Modules).

Identifiers may be used before they are bound, so the fields are walked over twice: first to number and name
what they define, then to read them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pywasmvm import features as feature_names
from pywasmvm.syntax import CustomSection, ModuleSyntax
from pywasmvm.text.annotations import BRANCH_HINT, Annotations, hint_section, name_section
from pywasmvm.text.cursor import Cursor
from pywasmvm.text.fields import FieldReader
from pywasmvm.text.lexer import LEFT, RIGHT, Tokens, fail, tokenize
from pywasmvm.text.names import Names, Space


def parse_module(source: bytes | str, *, features: Iterable[str] | None = None) -> ModuleSyntax:
    """Parse a module, with or without the outer `(module ...)`.

    `features` names the proposals that may be used (None: all that there are). Raises MalformedError with
    line and column; InvalidError for a branch hint at an instruction that has none.
    """
    data = source.encode("utf-8") if isinstance(source, str) else bytes(source)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fail("malformed UTF-8 encoding", data, error.start) from None
    tokens = tokenize(data)
    cursor = Cursor(tokens, 0, len(tokens))
    begin, end = 0, len(tokens)
    name: str | None = None
    if cursor.take_form(b"module"):
        own = cursor.take_id()
        name = None if own is None else own.decode()
        begin, end = cursor.pos, tokens.close(0)
        if end + 1 < len(tokens):
            raise Cursor(tokens, end + 1, len(tokens)).unexpected("the end of the file")
    return parse_module_fields(tokens, begin, end, features=features, name=name)


def parse_module_fields(
    tokens: Tokens,
    begin: int,
    end: int,
    *,
    features: Iterable[str] | None = None,
    name: str | None = None,
) -> ModuleSyntax:
    """Parse the fields of a module: the tokens from `begin` up to `end` of a source that may hold more.

    `name` is the module's own identifier. Raises MalformedError with line and column.
    """
    module = ModuleSyntax(b"", feature_names.resolve(features), bodies=[], text=tokens.source)
    annotations = Annotations(tokens, begin, end)
    names = Names(annotations.names, annotations.hints)
    names.module = annotations.names.pop(begin, name)
    fields = _fields(tokens, begin, end)
    for first, last in fields:
        _number(Cursor(tokens, first, last), names)
    reader = FieldReader(module, names)
    # Types stand first in the binary, and signatures without a type use may add to them.
    for first, last in fields:
        reader.type_field(Cursor(tokens, first, last))
    for first, last in fields:
        reader.field(Cursor(tokens, first, last))
    annotations.check_taken()
    if names.uses_data:
        module.data_count = len(module.data)
    if reader.hints:
        _custom(reader, BRANCH_HINT, None, hint_section(reader.hints))
    for called, after, contents in annotations.customs([first for first, _ in fields] + [end]):
        _custom(reader, called, after, contents)
    # Whoever writes a name section out knows better than the identifiers.
    if not any(section.name == "name" for section in module.customs):
        contents = name_section(names)
        if contents:
            _custom(reader, "name", None, contents)
    module.source = bytes(reader.blob)
    return module


def _custom(reader: FieldReader, name: str, after: int | None, contents: bytes) -> None:
    start = reader.keep(contents)
    reader.module.customs.append(CustomSection(name, start, start + len(contents), after))


def _fields(tokens: Tokens, begin: int, end: int) -> list[tuple[int, int]]:
    """Where each field begins and which token closes it."""
    found, depth, first = [], 0, begin
    kinds = tokens.kinds
    for place in range(begin, end):
        kind = kinds[place]
        if kind == LEFT:
            if depth == 0:
                first = place
            depth += 1
        elif kind == RIGHT:
            depth -= 1
            if depth < 0:
                raise tokens.error("unexpected token )", place)
            if depth == 0:
                found.append((first, place))
        elif depth == 0:
            raise Cursor(tokens, place, end).unexpected("a module field")
    if depth:
        raise tokens.error("unexpected token: a parenthesis is never closed", first)
    return found


#: Words of fields that define something, and the index space it is in.
_SPACES = {
    b"func": "funcs",
    b"table": "tables",
    b"memory": "memories",
    b"global": "globals",
    b"tag": "tags",
    b"elem": "elems",
    b"data": "data",
}

#: How messages call what an import must not follow.
_CALLED = {b"func": "function", b"table": "table", b"memory": "memory", b"global": "global", b"tag": "tag"}


def _number(cursor: Cursor, names: Names) -> None:
    """Give what a field defines its index and its name."""
    cursor.left()
    word = cursor.text if cursor.kind >= 0 else b""
    cursor.pos += 1
    if word == b"type":
        names.types.add(cursor, cursor.take_id())
    elif word == b"rec":
        while cursor.kind == LEFT:
            close = cursor.tokens.close(cursor.pos)
            if not cursor.take_form(b"type"):
                raise cursor.unexpected("(type")
            names.types.add(cursor, cursor.take_id())
            cursor.pos = close + 1
    elif word == b"import":
        _number_import(cursor, names)
    elif word in _SPACES:
        space: Space = getattr(names, _SPACES[word])
        space.add(cursor, cursor.take_id())
        _number_inline(cursor, word, names)


def _number_import(cursor: Cursor, names: Names) -> None:
    if names.defined is not None:
        raise cursor.fail(f"import after {names.defined}", cursor.pos - 1)
    cursor.string()
    cursor.string()
    word = cursor.take_form(*_CALLED)
    if word is None:
        raise cursor.unexpected("(func, (table, (memory, (global or (tag")
    space: Space = getattr(names, _SPACES[word])
    space.add(cursor, cursor.take_id())


def _number_inline(cursor: Cursor, word: bytes, names: Names) -> None:
    """Imports and segments that are written inside of what they belong to."""
    while cursor.at_form(b"export"):
        cursor.pos = cursor.tokens.close(cursor.pos) + 1
    if cursor.at_form(b"import"):
        if names.defined is not None:
            raise cursor.fail(f"import after {names.defined}")
        return
    names.defined = names.defined or _CALLED.get(word)
    if word in (b"table", b"memory"):
        inner = Cursor(cursor.tokens, cursor.pos, cursor.end)
        while inner.kind >= 0 and not inner.at_form(b"elem", b"data"):
            # Only a table's initial value may stand in parentheses before, and then no segment does.
            inner.pos += 1
            if word == b"table" and inner.kind == LEFT and not inner.at_form(b"elem", b"ref"):
                return
        if inner.at_form(b"elem"):
            names.elems.add(inner, None)
        elif inner.at_form(b"data"):
            names.data.add(inner, None)
