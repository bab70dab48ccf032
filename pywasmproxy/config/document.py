"""YAML text to a tree that remembers lines: the only file that knows the YAML library.

Built from the library's event stream rather than its object constructor, because a configuration needs what
that loses: line numbers, duplicate keys as errors, how a scalar was written, limits on depth and on aliases.
Scalars are typed the way Envoy's reader types them (quoted is always text; yes, no, on, off are booleans).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pywasmproxy.config.errors import ConfigError

MAX_DEPTH = 100
"""Nesting allowed; the official protobuf JSON reader has the same bound."""

MAX_ALIAS_GROWTH = 100_000
"""Nodes a document may have once its aliases are written out, beyond ten times what it has as written."""

_BOOLEANS = {
    word: value
    for value, words in ((True, "true yes on y"), (False, "false no off n"))
    for lower in words.split()
    for word in (lower, lower.capitalize(), lower.upper())
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+]?[0-9]{1,3})?|(?:0|[1-9][0-9]*)[eE][-+]?[0-9]{1,3})"
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One scalar: its text, and its value None, bool, int, float or str."""

    line: int
    text: str
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list. `line` is where it begins (from 1)."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in written order, each with the line it stands on."""

    line: int
    entries: dict[str, tuple[int, Node]] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The tree as Python dicts, lists and scalars, in written order."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(child) for key, (_, child) in node.entries.items()}


def resolve(text: str, quoted: bool) -> bool | int | float | str | None:
    """The value of a scalar as written."""
    if quoted:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if number - number == 0:  # not an overflow to infinity
            return number
    return text


def parse(text: str, file: str) -> Node:
    """The tree of a document. ConfigError with the line if it is not one YAML document or breaks a bound."""
    return _Builder(file).build(text)[0]


def parse_all(text: str, file: str) -> list[Node]:
    """The trees of all documents of a text, at least one; empty documents do not count."""
    return _Builder(file, several=True).build(text)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: Sequence | Mapping
    anchor: str | None
    size: int = 1  # nodes below and with it, aliases written out
    key: str | None = None
    key_line: int = 0
    ignore: bool = False  # the coming value belongs to a key tagged !ignore


class _Builder:
    """Turns the event stream into nodes with an explicit stack: depth is bounded, Python's stack not used."""

    def __init__(self, file: str, *, several: bool = False) -> None:
        self.file = file
        self.several = several  # documents may follow each other
        self.anchors: dict[str, tuple[Node, int] | None] = {}  # None: still open
        self.stack: list[_Open] = []
        self.root: Node | None = None
        self.written = 0

    def fail(self, line: int, message: str) -> NoReturn:
        raise ConfigError(self.file, line, "", message)

    def build(self, text: str) -> list[Node]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents: list[Node] = []
        begun = 0
        try:
            events: Iterator[Any] = yaml.parse(text, Loader=loader)
            for event in events:
                line = event.start_mark.line + 1
                if isinstance(event, yaml.DocumentStartEvent):
                    begun += 1
                    if begun > 1 and not self.several:
                        self.fail(
                            line, "a second YAML document begins here; one file holds one configuration"
                        )
                elif isinstance(event, yaml.DocumentEndEvent):
                    root, self.root, self.anchors = self.root, None, {}
                    bare = isinstance(root, Scalar) and root.value is None and self.several
                    if root is not None and not bare:
                        documents.append(root)
                elif isinstance(event, yaml.AliasEvent):
                    self.alias(event.anchor, line)
                elif isinstance(event, yaml.ScalarEvent):
                    self.scalar(event, line)
                elif isinstance(event, yaml.SequenceStartEvent):
                    self.open(Sequence(line), event.anchor, line)
                elif isinstance(event, yaml.MappingStartEvent):
                    self.open(Mapping(line), event.anchor, line)
                elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                    done = self.stack.pop()
                    self.anchor(done.anchor, done.node, done.size)
                    self.add(done.node, done.size)
        except yaml.YAMLError as error:
            line, problem = _explain(error)
            # Some versions of the parser have a bound of their own, and meet it before our events come.
            deep = "nesting depth" in problem
            self.fail(line, f"nested more than {MAX_DEPTH} levels deep" if deep else problem)
        if not documents:
            self.fail(0, "the configuration is empty")
        return documents

    def open(self, node: Sequence | Mapping, anchor: str | None, line: int) -> None:
        if self.stack and isinstance(self.stack[-1].node, Mapping) and self.stack[-1].key is None:
            self.fail(line, "a key must be text, not a list or a mapping")
        if len(self.stack) >= MAX_DEPTH:
            self.fail(line, f"nested more than {MAX_DEPTH} levels deep")
        if anchor is not None:
            self.anchors[anchor] = None
        self.written += 1
        self.stack.append(_Open(node, anchor))

    def anchor(self, name: str | None, node: Node, size: int) -> None:
        if name is not None:
            self.anchors[name] = (node, size)

    def alias(self, name: Any, line: int) -> None:
        if name not in self.anchors:
            self.fail(line, f"alias *{name} names no anchor above it")
        target = self.anchors[name]
        if target is None:
            self.fail(line, f"alias *{name} stands inside the value it names")
        node, size = target
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.node, Mapping) and top.key is None:
            if not isinstance(node, Scalar):
                self.fail(line, "a key must be text, not a list or a mapping")
            self.key(top, node.text, line, False)
            return
        self.add(node, size)
        total = sum(level.size for level in self.stack)
        if total > MAX_ALIAS_GROWTH + 10 * self.written:
            self.fail(line, f"aliases multiply this document beyond {MAX_ALIAS_GROWTH} values")

    def scalar(self, event: Any, line: int) -> None:
        self.written += 1
        tag = event.tag
        quoted = bool(event.style) or tag in ("!", "tag:yaml.org,2002:str")
        node = Scalar(line, event.value, resolve(event.value, quoted))
        self.anchor(event.anchor, node, 1)
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.node, Mapping) and top.key is None:
            self.key(top, event.value, line, tag == "!ignore")
        else:
            self.add(node, 1)

    def key(self, top: _Open, text: str, line: int, ignore: bool) -> None:
        if isinstance(top.node, Mapping) and text in top.node.entries:
            first = top.node.entries[text][0]
            self.fail(line, f"key {text!r} stands twice in one mapping (first in line {first})")
        top.key, top.key_line, top.ignore = text, line, ignore

    def add(self, node: Node, size: int) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
        elif top.ignore:  # Envoy's own convention for blocks that only hold anchors
            top.key = None
            return
        elif top.key is not None:
            top.node.entries[top.key] = (top.key_line, node)
            top.key = None
        top.size += size


def _explain(error: Any) -> tuple[int, str]:
    """Line (from 1) and one-line text of the YAML library's complaint."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    text = ", ".join(part for part in parts if isinstance(part, str)) or "not readable as YAML"
    return (mark.line + 1 if mark is not None else 0), f"not valid YAML: {text}"
