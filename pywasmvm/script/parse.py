"""Reads a script: `.wast` text to commands (the grammar of the official suite's scripts).

Modules in text form stay ranges of tokens and quoted ones stay text until their command runs, so a module
that is not well-formed costs one command and not the file.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pywasmvm.errors import MalformedError
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits
from pywasmvm.script.commands import (
    Action,
    AssertFailure,
    AssertReturn,
    BinaryModule,
    Command,
    Define,
    Get,
    Instantiate,
    Invoke,
    ModuleSource,
    QuotedModule,
    Register,
    TextModule,
    Unreadable,
)
from pywasmvm.script.match import (
    REFERENCES,
    Either,
    Exact,
    Host,
    HostRef,
    Lanes,
    NaN,
    Null,
    Pattern,
    Reference,
    from_bits,
)
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text import literals
from pywasmvm.text.cursor import Cursor
from pywasmvm.text.lexer import LEFT, RIGHT, WORD, Tokens, tokenize
from pywasmvm.text.parser import parse_module_fields
from pywasmvm.types import BY_NAME, V128, HeapType, NumType, ValType, ref

T = TypeVar("T")

#: Assertions that something fails, and whether their subject is an action, a module, or either.
_FAILURES = {
    "assert_trap": "either",
    "assert_exhaustion": "action",
    "assert_exception": "action",
    "assert_malformed": "module",
    "assert_malformed_custom": "module",
    "assert_invalid": "module",
    "assert_invalid_custom": "module",
    "assert_unlinkable": "module",
}

_WORDS = {"module", "register", "invoke", "get", "assert_return", *_FAILURES}

#: By shape: the type of a lane, its width in bits and how many there are.
_SHAPES = {
    "i8x16": ("i8", 8, 16),
    "i16x8": ("i16", 16, 8),
    "i32x4": ("i32", 32, 4),
    "i64x2": ("i64", 64, 2),
    "f32x4": ("f32", 32, 4),
    "f64x2": ("f64", 64, 2),
}

_NAN_CLASSES = ("nan:canonical", "nan:arithmetic")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's commands and the tokens that its modules in text form are ranges of."""

    tokens: Tokens
    commands: list[Command]

    def parse(self, source: TextModule, features: Iterable[str] | None = None) -> ModuleSyntax:
        """Parse a module in text form. Raises MalformedError."""
        return parse_module_fields(self.tokens, source.begin, source.end, name=source.name, features=features)


def parse_script(source: bytes) -> Script:
    """All commands of a script; one that breaks the grammar becomes `Unreadable`.

    A script may also be the fields of a single module. Raises MalformedError where the text is no sequence of
    tokens in balanced parentheses.
    """
    tokens = tokenize(source)
    return Script(tokens, _Reader(tokens).script())


@functools.lru_cache(maxsize=1 << 16)
def lane_bits(type_: str, text: bytes) -> int | str:
    """The bits of a number, or the class of NaNs it stands for in a pattern. Raises ValueError."""
    word = text.decode()
    if type_ == "f32":
        return word if word in _NAN_CLASSES else f32_to_bits(literals.float32(word))
    if type_ == "f64":
        return word if word in _NAN_CLASSES else f64_to_bits(literals.float64(word))
    return literals.integer(word, int(type_[1:]))


class _Reader(Cursor):
    """A cursor over the tokens of a script."""

    __slots__ = ("newlines",)

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens, 0, len(tokens))
        self.newlines = [found.start() for found in re.finditer(b"\n", self.source)]

    # -- the script ------------------------------------------------------------------------------------

    def script(self) -> list[Command]:
        """All commands."""
        kinds, count = self.kinds, len(self.kinds)
        if count > 1 and kinds[0] == LEFT and self.word_at(1) not in _WORDS:
            return [Define(self.line(0), TextModule(self.line(0), None, 0, count), True)]
        commands: list[Command] = []
        while self.pos < count:
            begin = self.pos
            if kinds[begin] != LEFT:
                raise self.tokens.error("unexpected token: a command opens with a parenthesis", begin)
            end = self.tokens.close(begin)
            self.pos = begin + 1
            try:
                command = self.command(self.line(begin))
                if self.pos != end + 1:
                    raise self.fail("the command goes on")
                commands.append(command)
            except (MalformedError, ValueError) as error:
                commands.append(Unreadable(self.line(begin), self.word_at(begin + 1), str(error)))
            self.pos = end + 1
        return commands

    def command(self, line: int) -> Command:
        """One command, after its opening parenthesis."""
        kind = self.any_word()
        if kind == "assert_return":
            action = self.action()
            return AssertReturn(line, action, tuple(self.many(self.pattern)))
        if kind in ("invoke", "get"):
            return self.action_of(kind)
        if kind == "module":
            return self.module_command(line)
        if kind == "register":
            name = self.name()
            made = Register(line, name, self.identifier())
            self.right()
            return made
        if kind in _FAILURES:
            subject = self.subject(_FAILURES[kind])
            message = None if kind == "assert_exception" else self.name()
            self.right()
            return AssertFailure(line, kind, subject, message)
        raise self.fail(f"there is no command {kind!r}")

    def subject(self, allowed: str) -> Action | ModuleSource:
        """What an assertion is about."""
        if self.word_at(self.pos + 1) != "module":
            if allowed == "module":
                raise self.fail("this assertion is about a module")
            return self.action()
        if allowed == "action":
            raise self.fail("this assertion is about an action")
        line = self.line(self.pos)
        self.pos += 2
        return self.module(line)

    # -- modules ---------------------------------------------------------------------------------------

    def module_command(self, line: int) -> Define | Instantiate:
        """A module, a definition or an instance, after the word `module`."""
        word = self.word_at(self.pos)
        if word == "instance":
            self.pos += 1
            made = Instantiate(line, self.identifier(), self.identifier())
            self.right()
            return made
        if word == "definition":
            self.pos += 1
        return Define(line, self.module(line), word != "definition")

    def module(self, line: int) -> ModuleSource:
        """A module in any form, up to its closing parenthesis."""
        name = self.identifier()
        word = self.word_at(self.pos)
        if word in ("binary", "quote"):
            self.pos += 1
            data = self.strings()
            self.right()
            return BinaryModule(line, name, data) if word == "binary" else QuotedModule(line, name, data)
        begin, depth, kinds = self.pos, 1, self.kinds
        place = begin
        while True:
            kind = kinds[place]
            place += 1
            if kind == RIGHT:
                depth -= 1
                if not depth:
                    break
            elif kind == LEFT:
                depth += 1
        self.pos = place
        return TextModule(line, name, begin, place - 1)

    # -- actions, arguments, patterns ------------------------------------------------------------------

    def action(self) -> Action:
        """`(invoke ...)` or `(get ...)`."""
        self.left()
        return self.action_of(self.any_word())

    def action_of(self, kind: str) -> Action:
        """An action, after its word."""
        line = self.line(self.pos - 2)
        instance = self.identifier()
        name = self.name()
        if kind == "get":
            self.right()
            return Get(line, instance, name)
        if kind != "invoke":
            raise self.fail(f"there is no action {kind!r}")
        arguments = self.many(self.argument)
        return Invoke(line, instance, name, tuple(v for _, v in arguments), tuple(t for t, _ in arguments))

    def argument(self) -> tuple[ValType, Any]:
        """The type and the canonical value of a constant."""
        word = self.any_word()
        if word == "v128.const":
            lanes, width, _ = self.lanes()
            found: tuple[ValType, Any] = V128, _joined(lanes, width)
        elif word.endswith(".const"):
            type_ = self.number_type(word)
            bits = self.bits(type_)
            if isinstance(bits, str):
                raise self.fail(f"{bits} is no argument")
            found = type_, from_bits(type_, bits)
        elif word == "ref.null":
            found = ref(True, HeapType(self.any_word())), None
        elif word == "ref.extern":
            found = ref(False, HeapType.EXTERN), HostRef(self.unsigned())
        elif word == "ref.host":
            found = ref(False, HeapType.ANY), HostRef(self.unsigned())
        else:
            raise self.fail(f"{word!r} is no constant")
        self.right()
        return found

    def pattern(self) -> Pattern:
        """What a result has to be."""
        word = self.any_word()
        found: Pattern
        if word == "v128.const":
            lanes, width, plain = self.lanes()
            found = Exact(V128, _joined(lanes, width)) if plain else Lanes(width, tuple(lanes))
        elif word.endswith(".const"):
            type_ = self.number_type(word)
            bits = self.bits(type_)
            found = NaN(type_, bits) if isinstance(bits, str) else Exact(type_, bits)
        elif word == "either":
            return Either(tuple(self.many(self.pattern)))
        elif word == "ref.null":
            found = Null(None if self.kind == RIGHT else HeapType(self.any_word()))
        elif word == "ref.host" or (word == "ref.extern" and self.kind != RIGHT):
            found = Host(self.unsigned(), word == "ref.extern")
        elif word.startswith("ref.") and word[4:] in REFERENCES:
            found = Reference(word[4:])
        else:
            raise self.fail(f"{word!r} is no result")
        self.right()
        return found

    def number_type(self, word: str) -> NumType:
        """The type before `.const`."""
        type_ = BY_NAME.get(word.removesuffix(".const"))
        if not isinstance(type_, NumType):
            raise self.fail(f"{word!r} is no constant")
        return type_

    def lanes(self) -> tuple[list[Any], int, bool]:
        """The lanes of a vector, their width, and whether all of them are plain bits."""
        shape = self.any_word()
        if shape not in _SHAPES:
            raise self.fail(f"there is no shape {shape!r}")
        type_, width, count = _SHAPES[shape]
        source, begin = self.source, self.pos
        self.pos += count
        lanes = [
            lane_bits(type_, source[start:end])
            for start, end in zip(self.starts[begin : self.pos], self.ends[begin : self.pos], strict=True)
        ]
        return lanes, width, type_[0] == "i" or not any(isinstance(lane, str) for lane in lanes)

    # -- tokens ----------------------------------------------------------------------------------------

    def line(self, index: int) -> int:
        """The line that a token stands on."""
        return bisect_right(self.newlines, self.starts[index]) + 1

    def word_at(self, index: int) -> str:
        """The word at an index; empty when something else stands there."""
        if index < self.end and self.kinds[index] == WORD:
            return self.tokens.text(index).decode()
        return ""

    def any_word(self) -> str:
        """The next token, which must be a word."""
        if self.kinds[self.pos] != WORD:
            raise self.unexpected("a word")
        self.pos += 1
        return self.source[self.starts[self.pos - 1] : self.ends[self.pos - 1]].decode()

    def bits(self, type_: NumType) -> int | str:
        """A number of a type, or a class of NaNs; see `lane_bits`."""
        self.pos += 1
        return lane_bits(type_.name, self.source[self.starts[self.pos - 1] : self.ends[self.pos - 1]])

    def identifier(self) -> str | None:
        """The next token if it is an identifier."""
        found = self.take_id()
        return None if found is None else found.decode()

    def many(self, read: Callable[[], T]) -> list[T]:
        """Everything in parentheses that follows, each read after the opening one; then a closing one."""
        found: list[T] = []
        kinds = self.kinds
        while kinds[self.pos] == LEFT:
            self.pos += 1
            found.append(read())
        self.right()
        return found


def _joined(lanes: list[Any], width: int) -> int:
    """A vector from its lanes, the first one lowest. Raises ValueError for a class of NaNs."""
    value = 0
    for place, lane in enumerate(lanes):
        if isinstance(lane, str):
            raise ValueError(f"{lane} is no argument")
        value |= lane << (place * width)
    return value
