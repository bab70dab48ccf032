"""A function of a module to Python source: graph, symbolic run, structure, text."""

from __future__ import annotations

from pywasmvm.module import Module
from pywasmvm.translate import calls, memory, reference, table, variable, vector
from pywasmvm.translate.body import Body
from pywasmvm.translate.fuel import charge
from pywasmvm.translate.graph import Graph
from pywasmvm.translate.idioms import insert_bulks
from pywasmvm.translate.inline import expansion_of
from pywasmvm.translate.options import Options
from pywasmvm.translate.ranges import MOST_INSTRUCTIONS
from pywasmvm.translate.rules import complete
from pywasmvm.translate.structure import Structure, TooDeep
from pywasmvm.translate.symbolic import LocalTypes
from pywasmvm.translate.threading import thread
from pywasmvm.translate.versions import copy_function, copy_loops
from pywasmvm.translate.writer import Writer
from pywasmvm.types import F32, F64, NumType, VecType

#: The family files register their rules when they are imported.
RULE_FILES = (calls, memory, reference, table, variable, vector)
complete()


#: A loop of a function with more locals is not entered from outside.
MOST_LOCALS = 2_000


def source_of(
    module: Module,
    index: int,
    options: Options,
    *,
    loop: int = -1,
    marking: bool = False,
    listing: bool = False,
) -> str | None:
    """The Python source of a defined function (index with imports counted).

    With `loop`, the index of a `loop` instruction, that of what is left from its head on, a function of all
    locals; None where the loop cannot be entered from outside. `marking` is for `faults.py`;
    `listing` ends statements with a comment: a tab, `#` and the number of the instruction that made them.

    Raises MalformedError or InvalidError for a body that was not looked at before (lazy validation).
    """
    found = expansion_of(module, index, inline=options.inline)
    code = found.code
    type_ = module.context.functions[index].func
    graph = Graph(code, found.heights, len(type_.results), module.context, found.costs)
    types = LocalTypes(type_.params, code)
    if not options.fuel:
        thread(graph)
    if loop >= 0 and (graph.tangled or len(types) >= MOST_LOCALS or not graph.enter_at(found.place(loop))):
        return None
    if loop < 0 and options.small and not options.quick and not graph.tangled:
        copy_function(graph, types, len(type_.params))
    if len(code) <= MOST_INSTRUCTIONS and graph.loops and not graph.tangled and copy_loops(graph, types):
        graph.analyse()
        if insert_bulks(graph, types):
            graph.analyse()
    body = Body(module, index, code, graph, options, marking=marking)
    body.listing = listing
    if loop >= 0:
        body.enter_with_all(found.given)
    body.run()
    if options.fuel:
        charge(body, graph)
    return _written(body, graph, options)


def _written(body: Body, graph: Graph, options: Options) -> str:
    poll = f"if {body.use('stop')}:{body.use('I')}.store.halt()" if options.poll and graph.loops else ""
    if graph.regions:
        body.use("I")
    lines: list[str] = []
    try:
        if options.flat or graph.tangled:
            raise TooDeep
        short = (
            {h for h, loop in graph.loops.items() if body.steps.is_short(h, loop, graph)} if poll else set()
        )
        writer = Writer(poll, short)
        writer.write(Structure(graph).build(), 2)
        lines = writer.lines
    except (TooDeep, RecursionError):
        from pywasmvm.translate.dispatch import dispatched

        lines = dispatched(graph, poll)
    head = []
    counted = options.quick and body.given == len(body.params)
    if counted:
        body.uses |= {"left", "better"}
    assigned = [f"g{i}" for i in sorted(body.assigned_globals)]
    assigned += ["fuel"] * options.fuel + ["left"] * counted
    if assigned:
        head.append(f"  nonlocal {','.join(assigned)}")
    params = ",".join(f"l{i}" for i in range(body.given))
    if counted:  # in here, because another function around this one would cost three times as much
        head += ["  left-=1", f"  if left<0:return better()({params})"]
    zeroes: dict[str, list[str]] = {}
    for local in sorted(body.zeroed):
        type_ = body.local_type(local)
        zero = "0.0" if type_ in (F32, F64) else "0" if isinstance(type_, NumType | VecType) else "None"
        zeroes.setdefault(zero, []).append(f"l{local}")
    head += [f"  {'='.join(names)}={zero}" for zero, names in zeroes.items()]
    free = "".join(f"{name}=" for name in sorted(body.uses))
    declared = [f" {free}None"] if free else []
    return "\n".join(["def make():", *declared, f" def F({params}):", *head, *lines, " return F", ""])
