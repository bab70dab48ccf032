"""Ways around tests whose outcome is known: compilers write `a && b` as a test of a choice between b and 0.

A node that does nothing but test the value it is given, and that is given a constant on some way, is not
visited on that way: the way leads on to where the test would have led. What is left has fewer ways in, mostly
one, and tests what it was given without a variable.
"""

from __future__ import annotations

from pywasmvm.translate.graph import FALL, IF, Edge, Graph, Node

#: Choices in choices: `a && b && c`.
MOST_ROUNDS = 4

#: Instructions that only shape the graph, and may stand between a constant and its test.
_SHAPE = frozenset({"block", "else", "end", "nop"})


def thread(graph: Graph) -> None:
    """Lead ways around tests. Not for code that pays for its instructions: it would pay less."""
    if graph.regions or graph.tangled:
        return
    for _ in range(MOST_ROUNDS):
        if not any([_around(graph, node) for node in graph.nodes]):
            break
        graph.analyse()


def _around(graph: Graph, node: Node) -> bool:
    """Whether a way into the node now leads around it."""
    if node.end != IF or len(node.in_edges) < 2 or node in graph.loops or any(e.arity for e in node.edges):
        return False
    turns = _turns(graph, node)
    if turns is None:
        return False
    found = False
    for edge in node.in_edges:
        source = edge.source
        if edge.arity != 1 or source.end != FALL or source.edges != [edge]:
            continue
        place = _constant(graph, source)
        if place < 0:
            continue
        yes = (graph.code.immediates[place] != 0) != bool(turns & 1)
        taken = node.edges[0 if yes else 1]
        if taken.target in graph.loops:
            continue
        source.edges = [Edge(source, taken.target, 0, taken.height)]
        source.last = place
        found = True
    return found


def _turns(graph: Graph, node: Node) -> int | None:
    """How often the node turns the value around that it tests; None if it does anything else."""
    names = [opcode.name for opcode in graph.code.ops[node.first : node.last]]
    if not names or names.pop() not in ("if", "br_if"):
        return None
    turns = [name for name in names if name not in _SHAPE]
    return len(turns) if all(name == "i32.eqz" for name in turns) else None


def _constant(graph: Graph, node: Node) -> int:
    """The place of the constant that the node ends with; -1 if there is none."""
    ops = graph.code.ops
    for place in range(node.last - 1, node.first - 1, -1):
        name = ops[place].name
        if name == "i32.const":
            return place
        if name not in _SHAPE and not (name == "br" and place == node.last - 1):
            break
    return -1
