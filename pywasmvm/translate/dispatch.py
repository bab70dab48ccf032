"""The graph of a function as one loop around a search for the next node (flat back end).

Slower than Python's own nesting and never too deep for it: whatever the shape of the function, the source
nests as deep as the logarithm of its number of nodes. Functions that `structure.py` cannot write come here.
"""

from __future__ import annotations

from pywasmvm.translate.expr import COMPARE
from pywasmvm.translate.graph import CHECK, FALL, IF, RETURN, SWITCH, Edge, Graph, Node, Region
from pywasmvm.translate.structure import MOST_LOOPS, TooDeep, _runs


def dispatched(graph: Graph, poll: str = "") -> list[str]:
    """The lines of the function's body."""
    writer = _Dispatcher(graph)
    writer.lines = ["  pc=0", "  while 1:"]
    if poll:
        writer.lines.append(f"   {poll}")
    writer.search(writer.leaders, 3)
    return writer.lines


class _Dispatcher:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines: list[str] = []
        #: Nodes that are jumped to; the others stand where the one way to them is.
        self.leaders = [n for n in graph.nodes if n.order == 0 or n.is_merge or not self.follows(n)]
        self.places = {node: place for place, node in enumerate(self.leaders)}

    @staticmethod
    def follows(node: Node) -> bool:
        """Whether a node is nothing but the continuation of the one before it."""
        edge = node.in_edges[0]
        source = edge.source
        return source.end == FALL and source.region is None and _regions(source) == _regions(node)

    def search(self, nodes: list[Node], indent: int) -> None:
        if len(nodes) == 1:
            self.leaf(nodes[0], indent)
            return
        middle = len(nodes) // 2
        space = " " * indent
        self.lines.append(f"{space}if pc<{self.places[nodes[middle]]}:")
        self.search(nodes[:middle], indent + 1)
        self.lines.append(f"{space}else:")
        self.search(nodes[middle:], indent + 1)

    def leaf(self, node: Node, indent: int) -> None:
        """A node and those that only continue it, inside of the try regions that cover it."""
        regions = _regions(node)
        if len(regions) > MOST_LOOPS:
            raise TooDeep
        for region in regions:
            if region.clauses:
                self.lines.append(f"{' ' * indent}try:")
                indent += 1
        self.node(node, indent)
        for region in reversed(regions):
            if region.clauses:
                indent -= 1
                self.handlers(region, indent)

    def node(self, node: Node, indent: int) -> None:
        space = " " * indent
        while True:
            self.lines += [space + line for line in node.lines]
            if node.end != FALL:
                break
            edge = node.edges[0]
            if edge.target in self.places:
                self.go(edge, indent)
                return
            self.lines += [space + move for move in edge.moves]
            node = edge.target
        if node.end in (IF, CHECK):
            self.lines.append(f"{space}if {node.test.text}:")
            self.go(node.edges[0], indent + 1)
            self.lines.append(f"{space}else:")
            self.go(node.edges[1], indent + 1)
        elif node.end == SWITCH:
            selector, table = node.test
            self.cases(selector.at(COMPARE + 1), _runs(table), node.edges, indent)
        elif node.end == RETURN:
            self.lines.append(space + node.results)
        else:
            self.lines.append(space + "return")

    def go(self, edge: Edge, indent: int) -> None:
        space = " " * indent
        self.lines += [space + move for move in edge.moves]
        self.lines.append(f"{space}pc={self.places[edge.target]}")

    def cases(self, selector: str, runs: list[tuple[int, int]], edges: list[Edge], indent: int) -> None:
        if len(runs) == 1:
            self.go(edges[runs[0][1]], indent)
            return
        middle = len(runs) // 2
        space = " " * indent
        self.lines.append(f"{space}if {selector}<{runs[middle][0]}:")
        self.cases(selector, runs[:middle], edges, indent + 1)
        self.lines.append(f"{space}else:")
        self.cases(selector, runs[middle:], edges, indent + 1)

    def handlers(self, region: Region, indent: int) -> None:
        space = " " * indent
        self.lines.append(f"{space}except WasmException as e:")
        for clause, edge in zip(region.clauses, region.edges, strict=True):
            test = "1" if clause.tag is None else f"e.tag is I.tags[{clause.tag}]"
            self.lines.append(f"{space} if {test}:")
            names = [f"s{edge.height + place}" for place in range(edge.arity)]
            if clause.kind.endswith("_ref"):
                self.lines.append(f"{space}  {names.pop()}=exn_of(e)")
            if names:
                self.lines.append(f"{space}  {','.join(names)},=e.values")
            self.go(edge, indent + 2)
            self.lines.append(f"{space}  continue")
        self.lines.append(f"{space} raise")


def _regions(node: Node) -> list[Region]:
    """The try regions that cover a node, outermost first."""
    found: list[Region] = []
    container = node.container
    while container is not None:
        if isinstance(container, Region) and container.entry is not node:
            found.append(container)
        container = container.outer
    return found[::-1]
