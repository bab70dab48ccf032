"""The control-flow graph of a function body: basic blocks, dominators, loops (spec: Execution, Control).

Wasm's nesting is taken apart here and put together again in `structure.py` the way Python wants it: what a
branch leads to counts, and how deep it stood in the source does not. Code that can never run has no node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pywasmvm.syntax import Catch, Code
from pywasmvm.valid.context import Context

if TYPE_CHECKING:
    from pywasmvm.translate.summary import Trips
    from pywasmvm.translate.versions import Guard

#: How a node ends. FALL goes on to its only target; IF takes the first target when its operand is true; CHECK
#: does so too, but its test is made by the instruction (br_on_null and the like); STOP never goes on.
FALL, IF, CHECK, SWITCH, RETURN, STOP = range(6)


class Edge:
    """A way from one node to another.

    The branch carries the `arity` topmost operands and cuts the stack to `height` under them. `caught` marks
    the way an exception takes from the entry of a try region to the target of a clause.
    """

    __slots__ = ("arity", "caught", "height", "moves", "source", "state", "target")

    def __init__(self, source: Node, target: Node, arity: int, height: int, *, caught: bool = False) -> None:
        self.source, self.target, self.arity, self.height = source, target, arity, height
        self.caught = caught
        #: Statements that put the carried operands where the target expects them.
        self.moves: list[str] = []
        #: Symbolic stack, facts and assigned locals at its end (`body.State`).
        self.state: Any = None


class Node:
    """A basic block: the instructions `[first, last)`, the last of them its jump if it has one."""

    __slots__ = (
        "container", "edges", "end", "first", "idom", "in_edges", "last", "lines", "number", "order",
        "region", "results", "sets", "test",
    )  # fmt: skip

    def __init__(self, number: int, first: int) -> None:
        self.number, self.first, self.last = number, first, first
        self.end = STOP
        self.edges: list[Edge] = []
        self.in_edges: list[Edge] = []
        self.order = -1  # place in reverse postorder; -1 while unreached
        self.idom: Node | None = None
        #: The innermost loop or try region around it.
        self.container: Container | None = None
        #: Set for the first node of a try region.
        self.region: Region | None = None
        self.lines: list[str] = []
        self.test: Any = None  # of IF and CHECK: the condition; of SWITCH: the selector
        self.results: str = ""  # of RETURN: the statement that returns
        self.sets: set[int] = set()  # locals that are assigned here

    @property
    def forward(self) -> list[Edge]:
        """The ways in, except for those back to a loop."""
        return [edge for edge in self.in_edges if edge.source.order < self.order]

    @property
    def is_merge(self) -> bool:
        """Whether several ways meet here, so that operands must come in agreed variables."""
        edges = self.in_edges
        return len(edges) > 1 or (len(edges) == 1 and edges[0].caught)

    def __repr__(self) -> str:
        return f"<node {self.number}: {self.first}-{self.last} to {[e.target.number for e in self.edges]}>"


@dataclass(eq=False)
class Container:
    """What a node lies in: a natural loop with its header, or a try region with its entry."""

    entry: Node
    nodes: set[Node]
    outer: Container | None = None

    def around(self, node: Node) -> bool:
        """Whether the node lies inside."""
        return node in self.nodes


@dataclass(eq=False)
class Loop(Container):
    """A natural loop."""


@dataclass(eq=False)
class Region(Container):
    """The nodes a `try_table` covers; `clauses[i]` belongs to the caught edge `edges[i]` of the entry."""

    clauses: tuple[Catch, ...] = ()
    edges: Sequence[Edge] = ()
    first: int = 0
    last: int = 0


@dataclass(eq=False, slots=True)
class _Label:
    kind: str
    node: Node | None  # what a branch to it leads to; made when first needed
    arity: int
    height: int
    results: int  # operands on the stack after its end
    alternative: Node | None = None
    live: bool = True
    region: Region | None = None


#: Loops so deep in each other that they have more members together are not looked into: the work would grow
#: with the square of the code.
MOST_MEMBERS = 200_000


class Graph:
    """All nodes of a function that can be reached, in reverse postorder (`nodes[0]` is the entry)."""

    def __init__(
        self, code: Code, heights: Sequence[int], results: int, context: Context, costs: Sequence[int]
    ) -> None:
        self.code, self.heights = code, heights
        self._paid = [0, *accumulate(costs)]
        self.nodes: list[Node] = []
        self.loops: dict[Node, Loop] = {}
        self.regions: list[Region] = []
        builder = _Builder(self, code, heights, results, context)
        #: Too deep a nest of loops to know what lies in which.
        self.tangled = False
        #: Guards in front of loops that have a fast copy, and the headers of the copies (`versions.py`).
        self.guards: dict[Node, Guard] = {}
        self.fast: dict[Node, Guard] = {}
        #: Nodes that try a bulk operation, with what it is and the node that does it (`idioms.py`).
        self.bulks: dict[Node, tuple[Trips, Node]] = {}
        memories = context.memories
        self.context_memory_bits = memories[0].address.bits if memories else 0
        #: The nodes of a function that have a fast copy.
        self.slow: set[Node] = set()
        self._entry = builder.run()
        self.analyse()

    def cost(self, first: int, last: int) -> int:
        """Units of fuel of the instructions `[first, last)`."""
        return self._paid[last] - self._paid[first]

    def begin_at(self, entry: Node) -> None:
        """Another entry; everything is looked at again."""
        self._entry = entry
        self.analyse()

    def analyse(self) -> None:
        """Order, dominators and containers; once more after nodes were added."""
        for node in self.nodes:
            node.order, node.idom, node.container = -1, None, None
            node.in_edges = []
        self.loops.clear()
        self.nodes = []
        self._number(self._entry)
        self._dominators()
        self._containers()

    def enter_at(self, loop: int) -> bool:
        """Let the function begin at the head of a loop (the index of the `loop`); whether that is possible.

        It is not where that makes a loop with two ways in, or in a try region.
        """
        for header in self.loops:
            if header.first == loop + 1 and self.code.ops[loop].name == "loop":
                if header.container is None or any(edge.arity for edge in header.in_edges):
                    return False
                container: Container | None = header.container
                while container is not None:
                    if isinstance(container, Region):
                        return False
                    container = container.outer
                entry = Node(len(self.nodes) + 1_000_000, header.first)
                entry.end = FALL
                entry.edges = [Edge(entry, header, 0, 0)]
                self._entry = entry
                self.analyse()
                return self._reducible()
        return False

    def _reducible(self) -> bool:
        """Whether every way back leads to a node that dominates where it comes from."""
        for node in self.nodes:
            for edge in node.edges:
                if edge.target.order <= node.order:
                    above: Node | None = node
                    while above is not None and above.order > edge.target.order:
                        above = above.idom
                    if above is not edge.target:
                        return False
        return True

    # -- analysis ----------------------------------------------------------------------------------------

    def _number(self, entry: Node) -> None:
        """Reverse postorder; in it a way back is an edge to a node that is not later."""
        finished: list[Node] = []
        entry.order = 0
        stack = [(entry, iter(entry.edges))]
        while stack:
            node, edges = stack[-1]
            for edge in edges:
                target = edge.target
                target.in_edges.append(edge)
                if target.order < 0:
                    target.order = 0
                    stack.append((target, iter(target.edges)))
                    break
            else:
                stack.pop()
                finished.append(node)
        finished.reverse()
        for order, node in enumerate(finished):
            node.order = order
        self.nodes = finished

    def _dominators(self) -> None:
        """Immediate dominators. The graph is reducible, so one pass in reverse postorder finds them."""
        nodes = self.nodes
        nodes[0].idom = nodes[0]
        for node in nodes[1:]:
            best: Node | None = None
            for edge in node.in_edges:
                other = edge.source
                if other.order >= node.order or other.idom is None:
                    continue
                if best is None:
                    best = other
                    continue
                # What was numbered before has a dominator: the suppressions rest on that.
                while best is not other:
                    while best.order > other.order:  # type: ignore[union-attr]  # they meet at the entry at the latest
                        best = best.idom  # type: ignore[union-attr]  # they meet at the entry at the latest
                    while other.order > best.order:  # type: ignore[union-attr]  # they meet at the entry at the latest
                        other = other.idom  # type: ignore[assignment]  # likewise
            node.idom = best

    def _containers(self) -> None:
        left = MOST_MEMBERS
        for node in self.nodes:
            for edge in node.in_edges:
                if edge.source.order >= node.order:
                    loop = self.loops.get(node)
                    if loop is None:
                        loop = self.loops[node] = Loop(node, {node})
                    if left > 0:
                        before = len(loop.nodes)
                        self._reach_back(loop, edge.source)
                        left -= len(loop.nodes) - before
        self.tangled = left <= 0
        if self.tangled:
            # Nothing is known of what lies in which loop: only regions are containers.
            for loop in self.loops.values():
                loop.nodes = set()
        if not self.loops and not self.regions:
            return
        for region in self.regions:
            region.nodes = {
                n for n in self.nodes if region.first <= n.first < region.last or n is region.entry
            }
        self.regions = [region for region in self.regions if region.entry.order >= 0]
        for loop in self.loops.values():
            for region in self.regions:
                if region.entry in loop.nodes and loop.entry not in region.nodes:
                    loop.nodes |= region.nodes
        every: list[Container] = [*(() if self.tangled else self.loops.values()), *self.regions]
        every.sort(key=lambda c: -len(c.nodes))
        for container in every:
            container.outer = container.entry.container
            for node in container.nodes:
                node.container = container

    @staticmethod
    def _reach_back(loop: Loop, source: Node) -> None:
        work = [source]
        nodes = loop.nodes
        while work:
            node = work.pop()
            if node not in nodes:
                nodes.add(node)
                work.extend(edge.source for edge in node.in_edges)


_FINAL = frozenset(
    {"return_call", "return_call_indirect", "return_call_ref", "throw", "throw_ref", "unreachable"}
)


class _Builder:
    """One walk over the instructions."""

    def __init__(
        self, graph: Graph, code: Code, heights: Sequence[int], results: int, context: Context
    ) -> None:
        self.graph, self.code, self.heights, self.context = graph, code, heights, context
        self.made = 0
        self.labels = [_Label("function", None, results, 0, results)]
        self.node: Node | None = None
        self.index = 0

    def new(self, first: int) -> Node:
        node = Node(self.made, first)
        self.made += 1
        return node

    def run(self) -> Node:
        entry = self.node = self.new(0)
        rules = _RULES
        for index, opcode in enumerate(self.code.ops):
            name = opcode.name
            rule = rules.get(name)
            if rule is not None:
                self.index = index
                rule(self, self.code.immediates[index])
            elif name in _FINAL and self.node is not None:
                self.close(STOP, index + 1)
        return entry

    def close(self, end: int, last: int) -> None:
        """The node being filled ends before instruction `last`."""
        node = self.node
        if node is not None:
            node.end, node.last = end, last
        self.node = None

    def edge(self, target: Node, arity: int, height: int) -> None:
        if self.node is not None:
            self.node.edges.append(Edge(self.node, target, arity, height))

    def enter(self, node: Node) -> None:
        node.first = self.index + 1
        self.node = node

    def jump(self, depth: int) -> None:
        """An edge to the label that many blocks out; the function's own label is a node that returns."""
        label = self.labels[-1 - depth]
        if label.node is None:
            label.node = self.new(len(self.code) - 1)
            if label.kind == "function":
                label.node.end, label.node.last = RETURN, len(self.code)
        self.edge(label.node, label.arity, label.height)

    # -- structure ---------------------------------------------------------------------------------------

    def open(self, kind: str, immediate: Any, taken: int) -> _Label:
        type_ = self.context.block_type(immediate)
        params, results = len(type_.params), len(type_.results)
        live = self.node is not None
        height = self.heights[self.index] - taken - params if live else 0
        label = _Label(kind, None, params if kind == "loop" else results, height, results, live=live)
        self.labels.append(label)
        return label

    def block(self, immediate: Any) -> None:
        self.open("block", immediate, 0)

    def loop(self, immediate: Any) -> None:
        label = self.open("loop", immediate, 0)
        if label.live:
            label.node = self.new(self.index + 1)
            self.edge(label.node, label.arity, label.height)
            self.close(FALL, self.index)
            self.enter(label.node)

    def if_(self, immediate: Any) -> None:
        label = self.open("if", immediate, 1)
        if label.live:
            params = self.heights[self.index] - 1 - label.height
            then = self.new(self.index + 1)
            label.alternative = self.new(self.index + 1)
            self.edge(then, params, label.height)
            self.edge(label.alternative, params, label.height)
            self.close(IF, self.index + 1)
            self.enter(then)

    def else_(self, immediate: None) -> None:
        label = self.labels[-1]
        if not label.live or label.alternative is None:
            return
        self.leave(label)
        self.enter(label.alternative)
        label.alternative = None

    def leave(self, label: _Label) -> None:
        """The code runs into the end of the block."""
        if self.node is not None:
            if label.node is None or label.kind == "loop":
                if label.kind == "loop":
                    return
                label.node = self.new(self.index)
            self.edge(label.node, label.results, label.height)
            self.close(FALL, self.index)

    def end(self, immediate: None) -> None:
        label = self.labels[-1]
        if len(self.labels) == 1:
            if self.node is not None:
                self.close(RETURN, self.index + 1)
            return
        if label.region is not None:
            label.region.last = self.index
        if label.alternative is not None:  # an if without else: its parameters pass through
            self.leave(label)
            self.node = label.alternative
            self.node.first = self.index
            if label.node is None:
                label.node = self.new(self.index)
            self.edge(label.node, label.results, label.height)
            self.close(FALL, self.index)
        if label.kind != "loop" and (label.node is not None or label.region is not None):
            # Also without a branch to it a try region ends a node: what follows it is not covered.
            self.leave(label)
            if label.node is not None:
                self.enter(label.node)
        self.labels.pop()

    def set_local(self, index: int) -> None:
        if self.node is not None:
            self.node.sets.add(index)

    def try_table(self, immediate: Any) -> None:
        block, catches = immediate
        if self.node is None:
            self.open("try_table", block, 0)
            return
        entry = self.new(self.index + 1)
        height = self.heights[self.index]
        self.edge(entry, 0, height)
        self.close(FALL, self.index)
        self.node = entry
        region = Region(entry, {entry}, clauses=catches, first=self.index + 1)
        edges = []
        for catch in catches:
            self.jump(catch.label)
            entry.edges[-1].caught = True
            edges.append(entry.edges[-1])
        region.edges = edges
        entry.region = region
        self.graph.regions.append(region)
        label = self.open("try_table", block, 0)
        label.region = region
        # The body is a node of its own, so that the entry has nothing but the ways out of it.
        body = self.new(self.index + 1)
        entry.edges.insert(0, Edge(entry, body, 0, height))
        self.close(FALL, self.index + 1)
        self.enter(body)

    # -- branches ----------------------------------------------------------------------------------------

    def br(self, depth: int) -> None:
        if self.node is not None:
            self.jump(depth)
            self.close(FALL, self.index + 1)

    def br_if(self, depth: int) -> None:
        if self.node is not None:
            self.branch(IF, depth, self.heights[self.index] - 1)

    def branch(self, end: int, depth: int, height: int) -> None:
        """To the label, or on with the next instruction, where the stack has `height` operands."""
        self.jump(depth)
        following = self.new(self.index + 1)
        self.edge(following, 0, height)
        self.close(end, self.index + 1)
        self.enter(following)

    def br_table(self, depths: tuple[int, ...]) -> None:
        if self.node is not None:
            # One edge for each target; `node.results` is not used by switches, the table is looked up again.
            for depth in dict.fromkeys(depths):
                self.jump(depth)
            self.close(SWITCH, self.index + 1)

    def return_(self, immediate: None) -> None:
        self.close(RETURN, self.index + 1)

    def br_on_null(self, depth: int) -> None:
        if self.node is not None:
            self.branch(CHECK, depth, self.heights[self.index])

    def br_on_non_null(self, depth: int) -> None:
        if self.node is not None:
            self.branch(CHECK, depth, self.heights[self.index] - 1)

    def br_on_cast(self, immediate: tuple[int, Any, Any]) -> None:
        if self.node is not None:
            self.branch(CHECK, immediate[0], self.heights[self.index])


#: What only shapes the graph, and has no statement of its own.
STRUCTURE = frozenset(
    {
        "block", "loop", "if", "else", "end", "try_table", "br", "br_if", "br_table", "return",
        "br_on_null", "br_on_non_null", "br_on_cast", "br_on_cast_fail",
    }
)  # fmt: skip

_RULES: dict[str, Callable[[_Builder, Any], None]] = {
    "block": _Builder.block,
    "loop": _Builder.loop,
    "if": _Builder.if_,
    "else": _Builder.else_,
    "end": _Builder.end,
    "try_table": _Builder.try_table,
    "br": _Builder.br,
    "br_if": _Builder.br_if,
    "br_table": _Builder.br_table,
    "return": _Builder.return_,
    "br_on_null": _Builder.br_on_null,
    "br_on_non_null": _Builder.br_on_non_null,
    "br_on_cast": _Builder.br_on_cast,
    "br_on_cast_fail": _Builder.br_on_cast,
    "local.set": _Builder.set_local,
    "local.tee": _Builder.set_local,
}
