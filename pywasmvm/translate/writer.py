"""The shapes of `structure.py` as Python source: jumps become `break`, `continue`, flags, or nothing at
all.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pywasmvm.translate.graph import Node
from pywasmvm.translate.structure import (
    MOST_INDENTS,
    MOST_LOOPS,
    Group,
    If,
    Jump,
    Scope,
    Seq,
    TooDeep,
    Try,
    While,
)

#: So many jumps out of a piece of code are turned into nested `if`.
_MOST_NESTED = 10


class _Frame:
    """A Python loop that is being written: which nodes one reaches with which statements from inside."""

    __slots__ = ("escapes", "flag", "left", "reaches")

    def __init__(self, flag: str, reaches: dict[Node, list[str]]) -> None:
        self.flag, self.reaches = flag, reaches
        #: Nodes further out that code inside jumps to, numbered.
        self.escapes: dict[Node, int] = {}
        #: Whether the loop is also left without an escape.
        self.left = False


class Writer:
    """Writes one function; `poll` is a statement for the start of every loop but the `short` ones, or
    nothing.
    """

    def __init__(self, poll: str = "", short: Collection[Node] = ()) -> None:
        self.poll, self.short = poll, short
        self.lines: list[str] = []
        self.frames: list[_Frame] = []
        self.tries = 0
        self.groups = 0

    def write(self, seq: Seq, indent: int) -> bool:
        """Write statements; whether control can run off their end."""
        if indent > MOST_INDENTS:
            raise TooDeep
        lines, space = self.lines, " " * indent
        for item in seq:
            if isinstance(item, str):
                lines.append(space + item)
                if item.startswith(("return", "raise")):
                    return False
            elif isinstance(item, Jump):
                self.jump(item.target, indent)
                return False
            elif isinstance(item, If):
                self.if_(item, indent)
                if item.then.ends and item.otherwise.ends:
                    return False
            elif isinstance(item, While):
                self.while_(item, indent)
            elif isinstance(item, Scope):
                self.scope(item, indent)
            elif isinstance(item, Group):
                self.group(item, indent)
            elif isinstance(item, Try):
                self.try_(item, indent)
            else:
                raise TypeError(f"{item!r} is no statement")
        return True

    def suite(self, seq: Seq, indent: int) -> bool:
        """The statements under a colon."""
        before = len(self.lines)
        falls = self.write(seq, indent)
        if len(self.lines) == before:
            self.lines.append(" " * indent + "pass")
        return falls

    def jump(self, target: Node, indent: int) -> None:
        space = " " * indent
        if not self.frames:
            raise LookupError(f"nothing leads to {target}")
        frame = self.frames[-1]
        found = frame.reaches.get(target)
        if found is not None:
            self.lines += [space + statement for statement in found]
            if found[-1] == "break":
                frame.left = True
            return
        number = frame.escapes.setdefault(target, len(frame.escapes) + 1)
        self.lines += [f"{space}{frame.flag}={number}", f"{space}break"]

    def if_(self, item: If, indent: int, chained: int = 0) -> None:
        if chained > MOST_INDENTS:  # Python's compiler recurses for every `elif`, too
            raise TooDeep
        space = " " * indent
        test, then, otherwise = item.test, item.then, item.otherwise
        if not then and otherwise:
            test, then, otherwise = item.negation, otherwise, then
        self.lines.append(f"{space}if {test}:")
        self.suite(then, indent + 1)
        if otherwise:
            if len(otherwise) == 1 and isinstance(otherwise[0], If):
                at = len(self.lines)
                self.if_(otherwise[0], indent, chained + 1)
                self.lines[at] = f"{space}el{self.lines[at][indent:]}"
            else:
                self.lines.append(f"{space}else:")
                self.suite(otherwise, indent + 1)

    # -- loops -------------------------------------------------------------------------------------------

    def enter(self, reaches: dict[Node, list[str]]) -> _Frame:
        if len(self.frames) + self.tries >= MOST_LOOPS:
            raise TooDeep
        frame = _Frame(f"x{len(self.frames)}", reaches)
        self.frames.append(frame)
        return frame

    def leave(self, frame: _Frame, at: int, indent: int) -> None:
        """Close a Python loop that began at line `at`: reset its flag before it, and escape after it."""
        self.frames.pop()
        if not frame.escapes:
            return
        space = " " * indent
        if frame.left:
            self.lines.insert(at, f"{space}{frame.flag}=0")
        rest = list(frame.escapes.items())
        for target, number in rest:
            if not frame.left and number == len(rest):
                self.jump(target, indent)
                return
            test = frame.flag if len(rest) == 1 else f"{frame.flag}=={number}"
            self.lines.append(f"{space}if {test}:")
            self.jump(target, indent + 1)

    def while_(self, item: While, indent: int) -> None:
        reaches = {item.header: ["continue"]}
        if item.after is not None:
            reaches[item.after] = ["break"]
        frame = self.enter(reaches)
        at = len(self.lines)
        space = " " * indent
        body, head = item.body, "while 1:"
        first = body[0] if body else None
        if isinstance(first, If) and not first.otherwise and len(first.then) == 1 and item.after is not None:
            only = first.then[0]
            if isinstance(only, Jump) and only.target is item.after:
                head = f"while {first.negation}:"
                frame.left = True
                rest = Seq(body[1:])
                body = rest
        self.lines.append(space + head)
        if self.poll and item.header not in self.short:
            self.lines.append(f"{space} {self.poll}")
        self.suite(body, indent + 1)
        self.leave(frame, at, indent)

    def scope(self, item: Scope, indent: int) -> None:
        absorbed = _absorbed(item.body, item.after, _MOST_NESTED)
        if absorbed is not None:
            self.write(absorbed, indent)
            return
        frame = self.enter({item.after: ["break"]})
        at = len(self.lines)
        self.lines.append(" " * indent + "while 1:")
        if self.write(item.body, indent + 1):
            frame.left = True
            self.lines.append(" " * (indent + 1) + "break")
        self.leave(frame, at, indent)

    def group(self, item: Group, indent: int) -> None:
        variable = f"p{self.groups}"
        self.groups += 1
        nodes: dict[Node, int] = {
            node: place for place, (node, _) in enumerate(item.pieces) if node is not None
        }
        if item.after is not None:
            nodes[item.after] = len(item.pieces)
        self.lines.append(f"{' ' * indent}{variable}=0")
        self.piece(item, 0, variable, nodes, indent)
        self.pieces(item, 1, len(item.pieces) - 1, variable, nodes, indent)

    def pieces(
        self, item: Group, lo: int, hi: int, variable: str, nodes: dict[Node, int], indent: int
    ) -> None:
        """The pieces from lo to hi, each behind a test whether it is still to come."""
        if lo == hi:
            self.lines.append(f"{' ' * indent}if {variable}<={lo}:")
            self.piece(item, lo, variable, nodes, indent + 1)
            return
        middle = (lo + hi) // 2
        self.lines.append(f"{' ' * indent}if {variable}<={middle}:")
        self.pieces(item, lo, middle, variable, nodes, indent + 1)
        self.pieces(item, middle + 1, hi, variable, nodes, indent)

    def piece(self, item: Group, place: int, variable: str, nodes: dict[Node, int], indent: int) -> None:
        body = item.pieces[place][1]
        if body.targets.isdisjoint(nodes):
            self.suite(body, indent)
            return
        reaches = {node: [f"{variable}={number}", "break"] for node, number in nodes.items()}
        frame = self.enter(reaches)
        at = len(self.lines)
        self.lines.append(" " * indent + "while 1:")
        if self.write(body, indent + 1):
            frame.left = True
            self.lines.append(" " * (indent + 1) + "break")
        self.leave(frame, at, indent)

    # -- exceptions --------------------------------------------------------------------------------------

    def try_(self, item: Try, indent: int) -> None:
        if not item.handlers:
            self.write(item.body, indent)
            return
        if len(self.frames) + self.tries >= MOST_LOOPS:
            raise TooDeep
        space = " " * indent
        self.tries += 1
        self.lines.append(f"{space}try:")
        self.suite(item.body, indent + 1)
        self.lines.append(f"{space}except WasmException as e:")
        self.handlers(item.handlers, indent + 1)
        self.tries -= 1

    def handlers(self, handlers: list[tuple[str, Seq]], indent: int) -> None:
        space = " " * indent
        word = "if"
        for test, code in handlers:
            if not test:
                if word == "if":
                    self.suite(code, indent)
                else:
                    self.lines.append(f"{space}else:")
                    self.suite(code, indent + 1)
                return
            self.lines.append(f"{space}{word} {test}:")
            self.suite(code, indent + 1)
            word = "elif"
        self.lines += [f"{space}else:", f"{space} raise"]


def _absorbed(seq: Seq, target: Node, depth: int) -> Seq | None:
    """The same without jumps to the target, which follows: what comes after a jump goes into an `else`."""
    if target not in seq.targets:
        return seq
    if depth == 0:
        return None
    made: list[Any] = []
    for place, item in enumerate(seq):
        if isinstance(item, str) or target not in item.targets:
            made.append(item)
            continue
        if isinstance(item, Jump):
            return Seq(made)
        if not isinstance(item, If):
            return None
        rest = list(seq[place + 1 :])
        then, otherwise = _without_last(item.then, target), _without_last(item.otherwise, target)
        if then is not None:
            other = _absorbed(Seq([*item.otherwise, *rest]), target, depth - 1)
            if other is None:
                return None
            made.append(If(item.test, item.negation, then, other))
        elif otherwise is not None:
            other = _absorbed(Seq([*item.then, *rest]), target, depth - 1)
            if other is None:
                return None
            made.append(If(item.test, item.negation, other, otherwise))
        else:
            return None
        return Seq(made)
    return Seq(made)


def _without_last(seq: Seq, target: Node) -> Seq | None:
    """The statements before a jump to the target, if that is how they end and there is no other."""
    if not seq or not isinstance(seq[-1], Jump) or seq[-1].target is not target:
        return None
    rest = Seq(seq[:-1])
    return None if target in rest.targets else rest
