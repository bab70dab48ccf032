"""Which locals matter at a place: those that some way from there reads before it writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pywasmvm.translate.graph import Graph, Node


def live_at_entry(graph: Graph) -> dict[Node, int]:
    """For each node the locals that are live where it begins, as a set of bits."""
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    reads: dict[Node, int] = {}
    writes: dict[Node, int] = {}
    for node in graph.nodes:
        read = written = 0
        for index in range(node.first, node.last):
            name = ops[index].name
            if name == "local.get":
                bit = 1 << immediates[index]
                if not written & bit:
                    read |= bit
            elif name in ("local.set", "local.tee"):
                written |= 1 << immediates[index]
        reads[node], writes[node] = read, written
    live = dict(reads)
    changed = True
    while changed:
        changed = False
        for node in reversed(graph.nodes):
            after = 0
            for edge in node.edges:
                after |= live.get(edge.target, 0)
            found = reads[node] | (after & ~writes[node])
            if found != live[node]:
                live[node] = found
                changed = True
    return live
