"""Annotations that mean something: names, custom sections, branch hints (spec: Appendix, Custom Sections and
Annotations; proposal Branch Hinting). All others are comments.

A name or a hint belongs to the token it stands before. The readers of definitions and of instructions take
theirs while they pass; what is left at the end stood in a wrong place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from operator import attrgetter

from pywasmvm.binary import code as binary_code
from pywasmvm.binary import custom
from pywasmvm.binary.decode import SECTION_NAMES
from pywasmvm.binary.encode import instruction_offsets
from pywasmvm.binary.reader import Reader
from pywasmvm.binary.values import unsigned, vector
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import Code, ModuleSyntax
from pywasmvm.text.lexer import LEFT, STRING, WORD, Annotation, Tokens, fail
from pywasmvm.text.names import Names

#: The custom section of branch hints, and the annotation that stands for one of them.
BRANCH_HINT = "metadata.code.branch_hint"

#: What hints can be, unlikely or likely, and instructions that may have one.
HINTS = (b"\0", b"\1")
HINTED = ("if", "br_if")

#: Sections by the words of placements.
SECTION_WORDS: dict[str, int] = {
    {"function": "func", "element": "elem", "data count": "datacount"}.get(name, name): number
    for number, name in SECTION_NAMES.items()
}

_ORDER = (0, *SECTION_NAMES)


class Annotations:
    """The annotations of a module: of the tokens from `begin` up to `end` of a source."""

    def __init__(self, tokens: Tokens, begin: int, end: int) -> None:
        self.source = tokens.source
        key: Callable[[Annotation], int] = attrgetter("before")
        found = tokens.annotations
        if found:
            found = found[bisect_left(found, begin, key=key) : bisect_right(found, end, key=key)]
        #: Names and hints by the token they stand before; to be taken out by what they belong to.
        self.names: dict[int, str] = {}
        self.hints: dict[int, bytes] = {}
        self._customs: list[Annotation] = []
        self._offsets: dict[tuple[int, bytes], int] = {}
        for annotation in found:
            if annotation.id == b"name":
                if annotation.before in self.names:
                    what = "module" if annotation.before == begin else "names"
                    raise self._fail(annotation, f"@name annotation: multiple {what}")
                self.names[annotation.before] = self._only(annotation, "@name").decode("utf-8")
            elif annotation.id == BRANCH_HINT.encode():
                if annotation.before in self.hints:
                    raise self._fail(annotation, f"@{BRANCH_HINT} annotation: duplicate annotation")
                self.hints[annotation.before] = self._hint(annotation)
            elif annotation.id == b"custom":
                self._customs.append(annotation)
                continue
            self._offsets[annotation.before, annotation.id] = annotation.offset

    def _fail(self, annotation: Annotation, message: str) -> MalformedError:
        return fail(message, self.source, annotation.offset)

    def _only(self, annotation: Annotation, called: str) -> bytes:
        """The one string that an annotation holds; it must be UTF-8."""
        contents = annotation.contents
        if contents.kinds != [STRING]:
            raise self._fail(annotation, f"{called} annotation: unexpected token")
        return self._utf8(annotation, called, contents.string(0))

    def _utf8(self, annotation: Annotation, called: str, data: bytes) -> bytes:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            raise self._fail(annotation, f"{called} annotation: malformed UTF-8 encoding") from None
        return data

    def _hint(self, annotation: Annotation) -> bytes:
        hint = self._only(annotation, f"@{BRANCH_HINT}")
        if hint not in HINTS:
            raise self._fail(annotation, f"@{BRANCH_HINT} annotation: a hint is one byte, 0 or 1")
        return hint

    def check_taken(self) -> None:
        """Refuse what nobody has taken. Raises MalformedError."""
        for before in self.names:
            raise fail("misplaced @name annotation", self.source, self._offsets[before, b"name"])
        for before in self.hints:
            message = f"@{BRANCH_HINT} annotation: not in a function, before an instruction"
            raise fail(message, self.source, self._offsets[before, BRANCH_HINT.encode()])

    # -- custom sections -------------------------------------------------------------------------------

    def customs(self, places: Iterable[int]) -> list[tuple[str, int | None, bytes]]:
        """Name, place and contents of the custom sections, in their order in the binary.

        The place is the number of the section that one stands behind: 0 for none, None at the end. `places`
        are the tokens that a field begins with. Raises MalformedError.
        """
        allowed = set(places) if self._customs else set()
        found = []
        for annotation in self._customs:
            if annotation.before not in allowed:
                raise self._fail(annotation, "misplaced @custom annotation")
            found.append(self._custom(annotation))
        found.sort(key=lambda entry: entry[:2])
        return [
            (name, _ORDER[position] if position < len(_ORDER) else None, data)
            for position, _, name, data in found
        ]

    def _custom(self, annotation: Annotation) -> tuple[int, int, str, bytes]:
        """Its place as two numbers to sort by, the name, the contents."""
        contents, called = annotation.contents, "@custom"
        kinds = contents.kinds
        if not kinds or kinds[0] != STRING:
            raise self._fail(annotation, "@custom annotation: missing section name")
        name = self._utf8(annotation, called, contents.string(0)).decode("utf-8")
        at, position, second = 1, len(_ORDER), 0
        if len(kinds) > 1 and kinds[1] == LEFT:
            close = contents.close(1)
            words = [contents.text(i).decode() if kinds[i] == WORD else "" for i in range(2, close)]
            position, second = self._placement(annotation, words)
            at = close + 1
        for index in range(at, len(kinds)):
            if kinds[index] != STRING:
                raise self._fail(annotation, "@custom annotation: unexpected token")
        data = b"".join(contents.string(index) for index in range(at, len(kinds)))
        return position, second, name, data

    def _placement(self, annotation: Annotation, words: list[str]) -> tuple[int, int]:
        """Behind which section of `_ORDER`, and whether it comes after others there."""
        if not words or words[0] not in ("before", "after"):
            raise self._fail(annotation, "@custom annotation: malformed placement")
        word, *rest = words
        if rest == ["first"] and word == "before":
            return 0, 0
        if rest == ["last"] and word == "after":
            return len(_ORDER), 0
        if len(rest) != 1 or rest[0] not in SECTION_WORDS:
            raise self._fail(annotation, "@custom annotation: malformed section kind")
        position = _ORDER.index(SECTION_WORDS[rest[0]])
        return (position, 0) if word == "after" else (position - 1, 1)


# -- what goes into custom sections --------------------------------------------------------------------------


def name_section(names: Names) -> bytes:
    """The contents of the name section: identifiers, and names that annotations give."""
    return custom.encode_names(
        custom.Names(
            module=names.module,
            functions=names.funcs.by_index(),
            locals={owner: space.by_index() for owner, space in names.locals.items()},
            labels=names.labels,
            types=names.types.by_index(),
            tables=names.tables.by_index(),
            memories=names.memories.by_index(),
            globals=names.globals.by_index(),
            elems=names.elems.by_index(),
            data=names.data.by_index(),
            fields={owner: space.by_index() for owner, space in names.fields.items()},
            tags=names.tags.by_index(),
        )
    )


def hint_section(hints: dict[int, tuple[Code, list[tuple[int, bytes]]]]) -> bytes:
    """The section of branch hints: by function its code, and instructions by number with their hints."""
    functions = []
    for index, (code, hinted) in sorted(hints.items()):
        offsets = instruction_offsets(code)
        entries = vector(unsigned(offsets[place]) + unsigned(len(hint)) + hint for place, hint in hinted)
        functions.append(unsigned(index) + entries)
    return vector(functions)


#: Branch hints by function and by the number of the instruction.
Hints = dict[int, dict[int, bytes]]


def read_hints(module: ModuleSyntax) -> Hints | None:
    """The branch hints of a module; None when it has no section of them, or one that makes no sense."""
    sections = [section for section in module.customs if section.name == BRANCH_HINT]
    if len(sections) != 1:
        return None
    reader = Reader(module.source, sections[0].start, sections[0].end)
    imported = len(module.imported("func"))
    found: Hints = {}
    try:
        for _ in range(reader.length()):
            function = reader.u32()
            if not imported <= function < imported + len(module.functions):
                return None
            body = binary_code.body(module, function - imported)
            if module.bodies is not None:
                offsets = instruction_offsets(body)
            else:
                offsets = [offset - module.body_start[function - imported] for offset in body.offsets]
            places = {offset: place for place, offset in enumerate(offsets)}
            hints = found.setdefault(function, {})
            for _ in range(reader.length()):
                place = places.get(reader.u32())
                start = reader.take(reader.u32())
                hint = reader.data[start : reader.pos]
                if place is None or body.ops[place].name not in HINTED or hint not in HINTS or place in hints:
                    return None
                hints[place] = hint
    except MalformedError:
        return None
    return found if reader.exhausted else None
