"""The commands of a script, as the grammar of the official suite's scripts has them.

Each has the `line` it begins on (from 1) and a `kind`, the word that the suite's own counts use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pywasmvm.script.match import Pattern
from pywasmvm.types import ValType


@dataclass(frozen=True, slots=True)
class TextModule:
    """A module in text form: the range of the script's tokens that holds its fields, not parsed yet."""

    line: int
    name: str | None
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class BinaryModule:
    """A module whose binary the script spells out."""

    line: int
    name: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class QuotedModule:
    """A module whose text is quoted, so that it need not be well-formed."""

    line: int
    name: str | None
    text: bytes


ModuleSource = TextModule | BinaryModule | QuotedModule


@dataclass(frozen=True, slots=True)
class Define:
    """`(module ...)`: define a module and, unless it is a `(module definition ...)`, instantiate it."""

    line: int
    source: ModuleSource
    instantiated: bool

    @property
    def kind(self) -> str:
        """`module` or `module definition`."""
        return "module" if self.instantiated else "module definition"


@dataclass(frozen=True, slots=True)
class Instantiate:
    """`(module instance $name $definition)`: a new instance of a module defined before."""

    kind: ClassVar[str] = "module instance"
    line: int
    name: str | None
    definition: str | None


@dataclass(frozen=True, slots=True)
class Register:
    """`(register "as" $instance)`: make the exports of an instance importable."""

    kind: ClassVar[str] = "register"
    line: int
    name: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class Invoke:
    """`(invoke $instance "name" argument*)`; arguments are canonical values, `types` what they are."""

    kind: ClassVar[str] = "invoke"
    line: int
    instance: str | None
    name: str
    arguments: tuple[Any, ...]
    types: tuple[ValType, ...]


@dataclass(frozen=True, slots=True)
class Get:
    """`(get $instance "name")`: the value of an exported global."""

    kind: ClassVar[str] = "get"
    line: int
    instance: str | None
    name: str


Action = Invoke | Get


@dataclass(frozen=True, slots=True)
class AssertReturn:
    """The action gives these results."""

    kind: ClassVar[str] = "assert_return"
    line: int
    action: Action
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class AssertFailure:
    """The action, or the module, fails in the way that `kind` names (`assert_trap`, `assert_invalid`, ...).

    `message` is what the suite says about it; None for `assert_exception`, which has no message.
    """

    line: int
    kind: str
    subject: Action | ModuleSource
    message: str | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A command that breaks the grammar of scripts; running it is a failure."""

    line: int
    kind: str
    reason: str


Command = Define | Instantiate | Register | Invoke | Get | AssertReturn | AssertFailure | Unreadable
