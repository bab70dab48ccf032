"""The graph of a function as nested Python: `if`, `while`, `break`, `continue` (structured back end).

Python has no labelled blocks, so the shape is chosen by what branches do and not by Wasm's nesting: code that
is reached in one way stands where the branch is; code that several ways reach comes after the smallest piece
that contains them all, and a jump there is falling through where that is possible, else `break` out of a loop
that runs once. The dominator tree says which is which (Ramsey, Beyond Relooper, ICFP 2022). Where many such
pieces follow each other, as the cases of Go's resumable functions do, a variable says which comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.translate.expr import COMPARE
from pywasmvm.translate.graph import (
    CHECK,
    FALL,
    IF,
    RETURN,
    STOP,
    SWITCH,
    Container,
    Edge,
    Graph,
    Loop,
    Node,
    Region,
)

#: CPython refuses more than 20 nested loops and `try`, and 100 levels of indentation.
MOST_LOOPS = 16
MOST_INDENTS = 80

#: From so many pieces in a row on, a variable says which is next.
GROUP = 4


class TooDeep(Exception):
    """The function cannot be written with Python's own nesting: the dispatcher takes it."""


class Seq(list[Any]):
    """Statements in a row: text, or one of the shapes below. `targets` are the nodes outside that are
    jumped to."""

    __slots__ = ("targets",)

    def __init__(self, items: list[Any] | tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.targets: set[Node] = set()
        self.add(items)

    def add(self, items: Any) -> Seq:
        """Append all of them."""
        for item in items:
            self.append(item)
            if not isinstance(item, str):
                self.targets |= item.targets
        if isinstance(items, Seq):
            self.targets |= items.targets
        return self

    @property
    def ends(self) -> bool:
        """Whether control never runs off the end."""
        return bool(self) and (isinstance(self[-1], Jump) or _returns(self[-1]) or _both_end(self[-1]))


def _returns(item: Any) -> bool:
    return isinstance(item, str) and item.startswith(("return", "raise"))


def _both_end(item: Any) -> bool:
    return isinstance(item, If) and item.then.ends and item.otherwise.ends


class Jump:
    """On to another node."""

    __slots__ = ("targets",)

    def __init__(self, target: Node) -> None:
        self.targets = {target}

    @property
    def target(self) -> Node:
        (found,) = self.targets
        return found


class If:
    """A test and what follows each way."""

    __slots__ = ("negation", "otherwise", "targets", "test", "then")

    def __init__(self, test: str, negation: str, then: Seq, otherwise: Seq) -> None:
        self.test, self.negation, self.then, self.otherwise = test, negation, then, otherwise
        self.targets = then.targets | otherwise.targets


class While:
    """A loop of Wasm; leaving it leads to `after`."""

    __slots__ = ("after", "body", "header", "targets")

    def __init__(self, header: Node, body: Seq, after: Node | None) -> None:
        self.header, self.body, self.after = header, body, after
        self.targets = body.targets - {header, after}


class Scope:
    """Code from which one may jump to what comes right after it."""

    __slots__ = ("after", "body", "targets")

    def __init__(self, body: Seq, after: Node) -> None:
        self.body, self.after = body, after
        self.targets = body.targets - {after}


class Group:
    """Pieces in a row; `pieces[0]` has no node. From each one may jump to any later one or behind them."""

    __slots__ = ("after", "pieces", "targets")

    def __init__(self, pieces: list[tuple[Node | None, Seq]], after: Node | None) -> None:
        self.pieces, self.after = pieces, after
        self.targets = (
            set().union(*(body.targets for _, body in pieces)) - {node for node, _ in pieces} - {after}
        )


class Try:
    """A try region: handlers are (statement that tests, code); `after` comes right behind."""

    __slots__ = ("body", "handlers", "targets")

    def __init__(self, body: Seq, handlers: list[tuple[str, Seq]]) -> None:
        self.body, self.handlers = body, handlers
        self.targets = set(body.targets).union(*(h.targets for _, h in handlers))


class Structure:
    """Builds the nested shape of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        #: Nodes that come after a container, or are reached in several ways: by the node they come behind.
        self.behind: dict[Node, list[Node]] = {}
        self.merging: dict[Node, list[Node]] = {}
        self.inline: set[Node] = set()
        #: Nodes that only return: the `return` stands wherever one would jump there.
        self.returning = {node for node in graph.nodes if _only_returns(node)}
        for node in graph.nodes[1:]:
            if node not in self.returning:
                self._place(node)

    def _place(self, node: Node) -> None:
        """Where a node goes: graph.nodes is in reverse postorder, so lists come out in order."""
        parent = node.idom
        if parent is None:
            raise LookupError(f"{node} has no dominator")
        forward = node.forward
        alone = len(forward) == 1 and not forward[0].caught and not _scattered(forward[0])
        left: Container | None = None
        container = parent.container
        loops_only = True
        while container is not None:
            if node not in container.nodes:
                left = container
                loops_only = loops_only and isinstance(container, Loop)
            container = container.outer
        if left is not None and not (alone and loops_only and node.end in (RETURN, STOP)):
            self.behind.setdefault(left.entry, []).append(node)
        elif alone:
            self.inline.add(node)
        else:
            self.merging.setdefault(parent, []).append(node)

    def build(self) -> Seq:
        """The whole function."""
        return self.tree(self.graph.nodes[0], None)

    def tree(self, node: Node, follow: Node | None) -> Seq:
        """A node and all it dominates that is placed with it; afterwards control is at `follow`."""
        after = self.behind.get(node, [])
        loop = self.graph.loops.get(node)
        if loop is not None:
            return self.row(lambda f: Seq([While(node, self.body(node, node), f)]), after, follow)
        if node.region is not None:
            return self.row(lambda f: self.region(node, f), after, follow)
        return self.body(node, follow)

    def body(self, node: Node, follow: Node | None) -> Seq:
        return self.row(lambda f: self.statements(node, f), self.merging.get(node, []), follow)

    def row(self, first: Callable[[Node | None], Seq], rest: list[Node], follow: Node | None) -> Seq:
        """A piece, and one after the other the nodes that come behind it."""
        if not rest:
            return first(follow)
        nexts: list[Node | None] = [*rest, follow]
        if len(rest) >= GROUP:
            pieces: list[tuple[Node | None, Seq]] = [(None, first(rest[0]))]
            pieces += [(node, self.tree(node, nexts[i + 1])) for i, node in enumerate(rest)]
            return Seq([Group(pieces, follow)])
        made = first(rest[0])
        for place, node in enumerate(rest):
            made = Seq([Scope(made, node)]) if node in made.targets else made
            made.add(self.tree(node, nexts[place + 1]))
        return made

    def statements(self, node: Node, follow: Node | None) -> Seq:
        """The node's own code and its way to end."""
        made = Seq(node.lines)
        end = node.end
        if end == FALL:
            made.add(self.branch(node.edges[0], follow))
        elif end in (IF, CHECK):
            self._if(made, node, follow)
        elif end == SWITCH:
            selector, table = node.test
            made.add(self._cases(selector.at(COMPARE + 1), _runs(table), node.edges, follow))
        elif end == RETURN:
            made.add([node.results])
        else:
            made.add(["return"])  # never reached: the statement before raises
        return made

    def _if(self, made: Seq, node: Node, follow: Node | None) -> None:
        test = node.test
        if test.value is not None and not test.effects:
            # Known: still both edges exist, but only one is taken.
            made.add(self.branch(node.edges[0 if test.value else 1], follow))
            return
        then, otherwise = self.branch(node.edges[0], follow), self.branch(node.edges[1], follow)
        text = test.text
        negation = test.negation if test.negation is not None else f"not {test.at(COMPARE)}"
        if then.ends:
            made.add([If(text, negation, then, Seq())])
            made.add(otherwise)
        elif otherwise.ends:
            made.add([If(negation, text, otherwise, Seq())])
            made.add(then)
        elif then or otherwise:
            made.add([If(text, negation, then, otherwise)])

    def _cases(
        self, selector: str, runs: list[tuple[int, int]], edges: list[Edge], follow: Node | None
    ) -> Seq:
        """A binary search over the runs of equal targets: (first selector, edge)."""
        if len(runs) == 1:
            return self.branch(edges[runs[0][1]], follow)
        middle = len(runs) // 2
        at = runs[middle][0]
        low = self._cases(selector, runs[:middle], edges, follow)
        high = self._cases(selector, runs[middle:], edges, follow)
        return Seq([If(f"{selector}<{at}", f"{selector}>={at}", low, high)])

    def branch(self, edge: Edge, follow: Node | None) -> Seq:
        """The way along an edge."""
        target = edge.target
        if target in self.returning:
            return Seq(_returned(edge))
        made = Seq(edge.moves)
        if target in self.inline and target.order > edge.source.order:
            made.add(self.tree(target, follow))
        elif target is not follow:
            made.add([Jump(target)])
        return made

    def region(self, node: Node, follow: Node | None) -> Seq:
        """A try region and its handlers."""
        region: Region = node.region  # type: ignore[assignment] # the caller asked
        body = self.branch(node.edges[0], follow)
        handlers = []
        for clause, edge in zip(region.clauses, region.edges, strict=True):
            names = [f"s{edge.height + place}" for place in range(edge.arity)]
            code = Seq()
            if clause.kind.endswith("_ref"):
                code.add([f"{names.pop()}=exn_of(e)"])
            if names:
                code.add([f"{','.join(names)},=e.values"])
            code.add(self.branch(edge, follow))
            handlers.append(("" if clause.tag is None else f"e.tag is I.tags[{clause.tag}]", code))
        return Seq([*node.lines, Try(body, handlers)])


def _only_returns(node: Node) -> bool:
    """Whether a node is nothing but a `return` of at most one value, so that it can stand in several
    places.
    """
    if node.end != RETURN or node.lines or "," in node.results:
        return False
    edges = node.in_edges
    if not node.is_merge and not (edges and _scattered(edges[0])):
        return False
    return all(not edge.caught and edge.arity <= 1 for edge in edges)


def _returned(edge: Edge) -> list[str]:
    """The `return` at the end of an edge to such a node."""
    result = edge.target.results
    if edge.moves:
        name, _, text = edge.moves[-1].partition("=")
        if result == f"return {name}":
            return [*edge.moves[:-1], f"return {text}"]
    return [*edge.moves, result]


def _scattered(edge: Edge) -> bool:
    """Whether a switch reaches the target from several runs of its table."""
    source = edge.source
    if source.end != SWITCH:
        return False
    place = source.edges.index(edge)
    return sum(1 for _, found in _runs(source.test[1]) if found == place) > 1


def _runs(table: list[int]) -> list[tuple[int, int]]:
    """Where the table changes: (index, edge). The last entry is for all selectors from there on."""
    runs: list[tuple[int, int]] = []
    for index, edge in enumerate(table):
        if not runs or runs[-1][1] != edge:
            runs.append((index, edge))
    return runs
