"""The small language our tables of Envoy messages are written in, and the reader that follows them.

A `Message` lists every field of a protobuf message: those we honour with the function that reads them (its
kind), and those we know but do not support, which give one warning each. Any other key is an error with a
suggestion. Rules are those of protobuf's JSON mapping (names in snake_case or lowerCamelCase, null = unset,
integers also as text, durations as text with `s`), enums without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pywasmproxy.config import document
from pywasmproxy.config.errors import ConfigError
from pywasmproxy.config.limits import suggest
from pywasmproxy.config.model import ConfigWarning

NOT_SUPPORTED = "not supported yet, ignored"


@dataclass(slots=True)
class Context:
    """What the readers of one configuration share."""

    file: str
    directory: Path
    environ: Mapping[str, str]
    wire_structs: bool = False
    """Whether a Struct configuration reaches the guest as protobuf bytes instead of JSON text."""
    warnings: list[ConfigWarning] = field(default_factory=list)
    cluster_references: list[tuple[str, Cursor]] = field(default_factory=list)
    tcp_cluster_references: list[tuple[str, Cursor]] = field(default_factory=list)
    """Of TCP proxies, which may name clusters that do not exist: Envoy only closes their connections."""
    named_host_references: list[tuple[str, Cursor]] = field(default_factory=list)
    """Clusters that shall give requests the name of their host."""
    secrets: dict[str, Cursor] = field(default_factory=dict)
    """The bootstrap's own, by name: certificates, and what is asked of others'."""
    files: dict[str, bytes] = field(default_factory=dict)
    discovered: list[tuple[str, str, object]] = field(default_factory=list)
    """Resources in files of their own: kind, the version that the file says, what is written."""
    honoured: dict[str, dict[str, None]] = field(default_factory=dict)
    """Messages with the fields of theirs that were set and have their effect, in order."""

    def read_file(self, name: str, cursor: Cursor) -> bytes:
        """Content of a file named in the configuration, relative to the working directory; read once."""
        if name not in self.files:
            try:
                self.files[name] = (self.directory / name).read_bytes()
            except (OSError, ValueError):
                cursor.fail(f"Invalid path: {name}")
        return self.files[name]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the document: the node, and the path that leads there."""

    node: document.Node
    path: str
    context: Context
    key_line: int = 0

    @property
    def line(self) -> int:
        """Line (from 1) of the key, or of the value where there is no key."""
        return self.key_line or self.node.line

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, document.Scalar) and self.node.value is None

    def fail(self, message: str, suggestion: str | None = None) -> NoReturn:
        raise ConfigError(self.context.file, self.line, self.path, message, suggestion)

    def warn(self, message: str) -> None:
        """Adds the one visible warning this place gives."""
        self.context.warnings.append(ConfigWarning(self.context.file, self.line, self.path, message))

    def expected(self, what: str) -> NoReturn:
        self.fail(f"expected {what}, found {describe(self.node)}")

    def entries(self) -> list[tuple[str, Cursor]]:
        """Keys and places of a mapping; an error for anything else."""
        if not isinstance(self.node, document.Mapping):
            self.expected("a mapping")
        prefix = f"{self.path}." if self.path else ""
        return [
            (
                key,
                Cursor(child, prefix + (key if _SIMPLE.fullmatch(key) else f"[{key!r}]"), self.context, line),
            )
            for key, (line, child) in self.node.entries.items()
        ]

    def items(self) -> list[Cursor]:
        """Places of a list. One thing stands for a list of one, as in Envoy's reader (and many a file)."""
        if not isinstance(self.node, document.Sequence):
            return [Cursor(self.node, f"{self.path}[0]", self.context, self.key_line)]
        return [
            Cursor(child, f"{self.path}[{index}]", self.context)
            for index, child in enumerate(self.node.items)
        ]

    def get(self, *names: str) -> Cursor | None:
        """The first of these keys that is there and not null; None also if this is no mapping."""
        if isinstance(self.node, document.Mapping):
            for key, child in self.entries():
                if key in names and not child.is_null:
                    return child
        return None


_SIMPLE = re.compile(r"[A-Za-z_@][A-Za-z0-9_@]*")

Kind = Callable[[Cursor], Any]


def describe(node: document.Node) -> str:
    """What a node is, for messages."""
    if isinstance(node, document.Mapping):
        return "a mapping"
    if isinstance(node, document.Sequence):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"the boolean {node.text}"
    if isinstance(node.value, int | float):
        return f"the number {node.text}"
    return repr(node.text if len(node.text) <= 60 else node.text[:57] + "...")


def camel(name: str) -> str:
    """The lowerCamelCase spelling protobuf's JSON mapping gives a field name."""
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


class Message:
    """The field table of one message.

    `fields`: name -> kind of what is honoured. `ignored`: names that are accepted with a warning; `notes`:
    other texts for some of those warnings. `harmless`: values of ignored fields that mean what happens
    anyway, and do not warn. `one_of`: groups of which at most one may be set. `required`: must be there, and
    not empty. `legacy`: names among the above that the current protobufs do not have (older API versions).
    """

    def __init__(
        self,
        name: str,
        fields: Mapping[str, Kind],
        *,
        ignored: str = "",
        notes: Mapping[str, str] | None = None,
        harmless: Mapping[str, Sequence[object]] | None = None,
        one_of: Iterable[str] = (),
        required: str = "",
        legacy: str = "",
    ) -> None:
        self.name = name
        self.title = name.rpartition(".")[2]
        self.fields = dict(fields)
        self.notes = dict(notes or {})
        self.ignored = frozenset(ignored.split()) | self.notes.keys()
        self.harmless = dict(harmless or {})
        self.one_of = [group.split() for group in one_of]
        self.required = required.split()
        self.legacy = frozenset(legacy.split())
        everything = [*self.fields, *sorted(self.ignored)]
        self.spellings = {camel(known): known for known in everything} | {
            known: known for known in everything
        }

    def read(self, cursor: Cursor) -> dict[str, Any]:
        """Values of the honoured fields that are set, under their snake_case names."""
        values: dict[str, Any] = {}
        seen: dict[str, str] = {}
        for key, child in cursor.entries():
            if key == "@type":
                continue  # read by whoever chose this table
            name = self.spellings.get(key)
            if name is None:
                child.fail(f"unknown field {key!r} in {self.title}", self._suggestion(key))
            if name in seen:
                child.fail(f"{key!r} and {seen[name]!r} are the same field")
            seen[name] = key
            if child.is_null:
                continue
            if name in self.fields:
                cursor.context.honoured.setdefault(self.title, {})[name] = None
                values[name] = self.fields[name](child)
            elif document.plain(child.node) not in self.harmless.get(name, ()):
                child.warn(self.notes.get(name, NOT_SUPPORTED))
        for group in self.one_of:
            chosen = [seen[name] for name in group if name in seen]
            if len(chosen) > 1:
                cursor.fail(f"only one of {' and '.join(chosen)} can be set")
        for name in self.required:
            if not values.get(name):
                cursor.fail(f"{self.title} needs {name!r}")
        return values

    def _suggestion(self, key: str) -> str | None:
        """The closest known name, in the spelling the key seems to be written in."""
        names = set(self.spellings.values())
        return suggest(key, sorted(names if key == key.lower() else map(camel, names)))


# --- kinds ----------------------------------------------------------------------------------------------


_INT32 = 1 << 31


def later(cursor: Cursor) -> Cursor:
    """The place itself, for readers that need context to go on."""
    return cursor


def text(cursor: Cursor) -> str:
    """A string. Like Envoy, plain booleans and integers of 32 bits are refused: they need quotes."""
    node = cursor.node
    if isinstance(node, document.Scalar) and node.value is not None:
        value = node.value
        if isinstance(value, str | float) or (not isinstance(value, bool) and not -_INT32 <= value < _INT32):
            return node.text
        cursor.fail(f"expected text, found {describe(node)}; put it in quotes")
    cursor.expected("text")


def boolean(cursor: Cursor) -> bool:
    """true or false, also as text."""
    node = cursor.node
    if isinstance(node, document.Scalar):
        if isinstance(node.value, bool):
            return node.value
        if node.value in ("true", "false"):
            return node.value == "true"
    cursor.expected("true or false")


def integer(low: int, high: int) -> Kind:
    """A whole number in a range, also as text or as `80.0`."""

    def read(cursor: Cursor) -> int:
        node = cursor.node
        number: int | None = None
        if isinstance(node, document.Scalar):
            value = node.value
            if isinstance(value, str):
                value = document.resolve(value, quoted=False)
            if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
                number = int(value)
        if number is None:
            cursor.expected("a whole number")
        if not low <= number <= high:
            cursor.fail(f"{number} is not between {low} and {high}")
        return number

    return read


UINT32 = integer(0, (1 << 32) - 1)


def number(low: float, high: float) -> Kind:
    """A number in a range, also as text."""

    def read(cursor: Cursor) -> float:
        node = cursor.node
        value = node.value if isinstance(node, document.Scalar) else None
        if isinstance(value, str):
            value = document.resolve(value, quoted=False)
        if isinstance(value, bool) or not isinstance(value, int | float):
            cursor.expected("a number")
        if not low <= value <= high:
            cursor.fail(f"{value} is not between {low} and {high}")
        return float(value)

    return read


_DURATION = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]{1,9}))?s")
_MAX_SECONDS = 315_576_000_000  # google/protobuf/duration.proto: about 10,000 years
_OTHER_UNITS = {"ns": -9, "us": -6, "ms": -3, "m": 60, "min": 60, "h": 3600}


def duration_parts(cursor: Cursor) -> tuple[int, int]:
    """Seconds and nanoseconds of a protobuf JSON duration such as `1.5s`; both carry the sign."""
    node = cursor.node
    written = node.text if isinstance(node, document.Scalar) else ""
    found = _DURATION.fullmatch(written)
    if found is None or not isinstance(node, document.Scalar) or node.value != written:
        hint = _seconds_suggestion(written)
        message = f"expected a duration in seconds such as 1.5s, found {describe(node)}"
        cursor.fail(message, hint)
    seconds, nanos = int(found[2]), int((found[3] or "").ljust(9, "0"))
    if seconds > _MAX_SECONDS:
        cursor.fail(f"{written} is too long for a duration")
    return (-seconds, -nanos) if found[1] else (seconds, nanos)


def _seconds_suggestion(written: str) -> str | None:
    """`250ms` -> `0.25s`, `5` -> `5s`, `2m` -> `120s`."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([a-z]*)", written)
    if found is None or found[2] not in {"", "s", *_OTHER_UNITS}:
        return None
    factor = _OTHER_UNITS.get(found[2], 1)
    seconds = float(found[1]) * (10.0**factor if factor < 0 else factor)
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def duration(cursor: Cursor) -> float:
    """Seconds, zero or more."""
    seconds, nanos = duration_parts(cursor)
    if seconds < 0 or nanos < 0:
        cursor.fail("a duration cannot be negative here")
    return seconds + nanos / 1e9


def positive_duration(cursor: Cursor) -> float:
    """Seconds, more than zero."""
    seconds = duration(cursor)
    if seconds == 0:
        cursor.fail("a duration above zero is needed here")
    return seconds


def timeout(cursor: Cursor) -> float | None:
    """Seconds; `0s` means no limit: None."""
    return duration(cursor) or None


def enum(title: str, names: str) -> Kind:
    """One of the names (any case), or its number in the protobuf enum; the canonical name is returned."""
    known = names.split()

    def read(cursor: Cursor) -> str:
        node = cursor.node
        if isinstance(node, document.Scalar):
            if (
                isinstance(node.value, int)
                and not isinstance(node.value, bool)
                and 0 <= node.value < len(known)
            ):
                return known[node.value]
            if node.text.upper() in known:
                return node.text.upper()
            cursor.fail(f"{node.text!r} is no {title}; known: {', '.join(known)}", suggest(node.text, known))
        cursor.expected(f"one of {', '.join(known)}")

    return read


def repeated(kind: Kind) -> Kind:
    """A list of things of one kind, as a tuple."""
    return lambda cursor: tuple(kind(item) for item in cursor.items())


def mapping(kind: Kind) -> Kind:
    """A map from text to things of one kind."""
    return lambda cursor: {key: kind(child) for key, child in cursor.entries()}


def struct(cursor: Cursor) -> dict[str, object]:
    """A `google.protobuf.Struct`: a free mapping."""
    cursor.entries()
    value: dict[str, object] = document.plain(cursor.node)
    return value


def anything(cursor: Cursor) -> object:
    """Accepted without a look and without a warning: whatever it says, nothing differs from Envoy."""
    return None
