"""The symbolic run of a function: every basic block becomes Python statements and a way to end.

Blocks are visited in reverse postorder, so that what is known about locals (facts) and what lies on the
operand stack is known on every way in but those back to a loop. Nothing is computed before somebody needs it:
operands stay expressions on the symbolic stack until a side effect, a branch or the end of a block forces
them into a variable, and the order of everything the guest can observe stays Wasm's.
"""

from __future__ import annotations

from typing import Any

from pywasmvm.module import Module
from pywasmvm.syntax import Code
from pywasmvm.translate import comparisons, idioms
from pywasmvm.translate.expr import DEEPEST, TRAPS, Expr, call, constant
from pywasmvm.translate.floats import CARRIED, clean
from pywasmvm.translate.graph import (
    CHECK,
    FALL,
    IF,
    RETURN,
    STRUCTURE,
    SWITCH,
    Edge,
    Graph,
    Node,
)
from pywasmvm.translate.integers import canonical
from pywasmvm.translate.options import Options
from pywasmvm.translate.places import Known, repeated_addresses
from pywasmvm.translate.ranges import Steps
from pywasmvm.translate.rules import PLAIN, RULES, Shape
from pywasmvm.translate.summary import Trips
from pywasmvm.translate.symbolic import BITS, MASKS, Fact, LocalTypes, Symbolic, number
from pywasmvm.translate.versions import SMALL, Guard
from pywasmvm.types import F64, I32, I64, ValType


class State:
    """What holds at one place of the code: operands, facts about locals, locals that have a value, and what
    is known of memory.
    """

    __slots__ = ("assigned", "facts", "known", "stack")

    def __init__(
        self, stack: list[Expr], facts: dict[int, Fact], assigned: frozenset[int], known: Known
    ) -> None:
        self.stack, self.facts, self.assigned, self.known = stack, facts, assigned, known


class Body(Symbolic):
    """Turns one function into statements, kept in the nodes of its graph."""

    def __init__(
        self, module: Module, index: int, code: Code, graph: Graph, options: Options, *, marking: bool = False
    ) -> None:
        self.module, self.context, self.index = module, module.context, index
        self.code, self.graph, self.options = code, graph, options
        type_ = self.context.functions[index].func
        self.params, self.results = type_.params, type_.results
        self.steps = Steps(graph)
        #: Loads and stores whose address is computed more than once; locals that many addresses begin with.
        self.repeated, self.bases = repeated_addresses(code, graph.heights)
        #: Fuel is paid up to each call, because exceptions may come out of it.
        self.piecewise = options.fuel and bool(self.context.tags)
        super().__init__(LocalTypes(type_.params, code), len(type_.params), marking=marking)

    def _restart(self) -> None:
        super()._restart()
        #: An assumption about a loop was not confirmed: all is translated again without it.
        self._refuted = False
        self.bulk_nodes: set[Node] = set()
        #: Globals that the code assigns.
        self.assigned_globals: set[int] = set()

    def enter_with_all(self, given: int) -> None:
        """The code begins inside of the function, and all its locals are given."""
        self.given = given
        self.carrying = set(range(self.given))
        self._restart()

    # -- the run -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Translate every node. Twice when an f64 local turns out to hold NaNs from outside."""
        while True:
            for node in self.graph.nodes:
                self._node(node)
            if not self.missed - self.carrying and not self._refuted:
                return
            self.carrying |= self.missed
            self.steps.next_round()
            for node in self.graph.nodes:
                node.lines = []
                for edge in node.edges:
                    edge.moves = []
            self._restart()

    def _node(self, node: Node) -> None:
        self._enter(node)
        if node in self.bulk_nodes:  # its statements are there already
            self._leave(node)
            return
        self.lines, self.row = node.lines, None
        self._unread = None
        self._paid, self.at_instruction = node.first, node.first - 1
        self._owed = int(node.order == 0 and self.given == len(self.params))  # for the call itself
        ops, immediates = self.code.ops, self.code.immediates
        rules, plain = RULES, PLAIN
        for index in range(node.first, node.last):
            opcode = ops[index]
            if self.listing:
                self._note_lines()
            self.at_instruction = index
            shape = plain.get(opcode)
            if shape is not None:
                self._plain(shape)
                continue
            rule = rules.get(opcode.name)
            if rule is not None:
                rule(self, immediates[index])
            elif opcode.name not in STRUCTURE:
                raise LookupError(f"the translator has no rule for {opcode.name}")
        self.pay()
        self._leave(node)
        if self.listing:
            self._note_lines()

    def _enter(self, node: Node) -> None:
        """Set up what holds at the start of a node."""
        if node.order == 0:
            return
        edges = [edge for edge in node.forward if edge.state is not None]
        first = edges[0]
        state: State = first.state
        if not node.is_merge:
            self.stack = list(state.stack)
            self.facts = dict(state.facts)
            self.assigned = set(state.assigned)
            self.known = state.known.copy()
            return
        assigned = state.assigned
        known = state.known.joined([edge.state.known for edge in edges[1:]])
        facts = state.facts
        for edge in edges[1:]:
            assigned = assigned & edge.state.assigned
            facts = _joined(facts, edge.state.facts)
        self.assigned = set(assigned)
        self.facts = dict(facts)
        loop = self.graph.loops.get(node)
        self.known = known
        if loop is not None:
            known.forget()
            for inner in loop.nodes:
                for local in inner.sets:
                    known.assigned(local)
            if self.graph.tangled:
                self.known = Known()
            assumed = {} if self.graph.tangled else self.steps.assume(node, self.facts)
            if self.graph.tangled:
                self.facts = {}
            for inner in loop.nodes:
                for local in inner.sets:
                    self.facts.pop(local, None)
            self.facts.update(assumed)
        height, arity = first.height, first.arity
        self.stack = state.stack[:height]
        goal = self._goal(node)
        if goal is not None:
            self.known.assigned(goal)
        for place in range(arity):
            made = Expr(f"s{height + place}" if goal is None else f"l{goal}")
            sources = [edge.state.stack[len(edge.state.stack) - arity + place] for edge in edges]
            made.bits = sources[0].bits
            if made.bits:
                made.lo, made.hi = 0, MASKS[made.bits]
                if loop is None and all(s.lo >= 0 and s.hi <= made.hi for s in sources):
                    made.lo, made.hi = min(s.lo for s in sources), max(s.hi for s in sources)
            made.nan = CARRIED
            self.stack.append(made)

    def _leave(self, node: Node) -> None:
        """The end of a node: test, operands for the targets, states of the edges."""
        end = node.end
        guard = self.graph.guards.get(node)
        if guard is not None:
            self._ask(node, guard)
            return
        bulk = self.graph.bulks.get(node)
        if bulk is not None:
            self._try_bulk(node, *bulk)
            return
        if end == RETURN:
            self._return(node)
            return
        if end == IF:
            node.test = self.condition(self.pop())
        elif end == SWITCH:
            node.test = self._switch(self.pop(), node)
        elif end == CHECK:
            self._check(node)
            return
        elif end != FALL:
            return
        if node.region is not None:
            self._region(node)
            return
        if end == FALL:
            # One way on: what a merge is not given stays as it is for those that come from elsewhere, too.
            edge = node.edges[0]
            if edge.target.is_merge:
                self.settle(keep=edge.arity)
            elif edge.height + edge.arity < len(self.stack):
                self.spill(TRAPS)  # also of operands that the jump drops
        else:
            self.settle()
        for place, edge in enumerate(node.edges):
            self._carry(edge, self.stack)
            facts = self.facts
            if end == IF:
                facts = self._refined(node.test.yes if place == 0 else node.test.no)
                if edge.target.order <= node.order:
                    test = (
                        node.test
                        if place == 0 or node.test.value is not None
                        else comparisons.inverted(node.test)
                    )
                    facts = self._refined(self.steps.refined(edge.target, test), facts)
            self._state(edge, self.stack, facts)

    def _return(self, node: Node) -> None:
        count = len(self.results)
        values = self.stack[len(self.stack) - count :] if count else []
        self.spill(TRAPS, keep=count)
        texts = [self.escaping(value) for value in values]
        if count == 0:
            node.results = "return"
        elif count == 1:
            node.results = f"return {texts[0]}"
        else:
            node.results = f"return ({','.join(texts)})"

    def _ask(self, node: Node, guard: Guard) -> None:
        """The guard in front of a loop with a fast copy: asks what is not known, and tells the copy."""
        self.settle()
        facts = dict(self.facts)
        tests = []
        wide = []
        for local in guard.small:
            lo, hi, align = self.fact(local)
            if hi >= SMALL:
                if lo >= SMALL:  # a negative constant as start, for example: never small
                    continue
                wide.append(f"l{local}")
                facts[local] = (lo, SMALL - 1, align)
                self.local(local)
        unaligned: dict[int, list[str]] = {}
        for local, bits in guard.aligned:
            lo, hi, align = facts.get(local) or self.fact(local)
            if align < bits:
                unaligned.setdefault((1 << bits) - 1, []).append(f"l{local}")
                facts[local] = (lo, hi, bits)
                self.local(local)
        for mask, names in unaligned.items():
            forbidden = mask
            if names == wide:  # most often it is the same locals: one mask of all bits that must not be set
                forbidden, wide = mask - SMALL, []
            tests.append(
                f"not {names[0]}&{forbidden}" if len(names) == 1 else f"not ({'|'.join(names)})&{forbidden}"
            )
        if wide:
            # The least number that is not small has two digits inside of Python, this one has one.
            tests.append(f"{'|'.join(wide)}<={SMALL - 1}")
        for local in guard.positive:
            lo, hi, align = facts.get(local) or self.fact(local)
            if lo == 0:
                tests.append(f"l{local}")
                facts[local] = (1, hi, align)
                self.local(local)
        for counter, end, step in guard.meets:
            first, last = facts.get(counter) or self.fact(counter), facts.get(end) or self.fact(end)
            if first[1] >= last[0]:
                tests.append(f"l{counter}<l{end}")
            if step > 1 and not (step & (step - 1) == 0 and min(first[2], last[2]) >= step.bit_length() - 1):
                tests.append(f"not (l{end}-l{counter})%{step}")
            self.local(counter)
            self.local(end)
        for local in (*guard.small, *(x for counter, end, _ in guard.meets for x in (counter, end))):
            self.local(local)
        opposite = tests[0].removeprefix("not ") if len(tests) == 1 and tests[0].startswith("not ") else ""
        every = " and ".join(tests)
        node.test = _test(every, opposite or f"not({every})") if tests else constant(1)
        fast, slow = node.edges
        self._state(fast, self.stack, facts)
        self._state(slow, self.stack, self.facts)

    def _try_bulk(self, node: Node, trips: Trips, doing: Node) -> None:
        """Many trips around a loop at once, if generated code finds that this is the same."""
        guard = self.graph.fast[node.edges[1].target]
        for local in sorted(trips.locals()):
            self.local(local)
        count, asked = idioms.conditions(trips, self.use("m0"), set(guard.small), bounded=self.options.small)
        self.lines.append(f"n={count}")
        test = " and ".join(asked)
        node.test = _test(test, f"not({test})")
        doing.lines = idioms.statements(trips, self.use("m0"), "a0")
        if any("a0" in line for line in doing.lines):
            self.use("a0")
        if self.options.fuel:
            cost = sum(self.graph.cost(n.first, n.last) for n in trips.nodes)
            doing.lines.insert(0, f"{self.use('fuel')}-=n*{cost}")
        facts = dict(self.facts)
        for local, step in trips.steps.items():
            align = (
                0
                if step.terms
                else min(self.fact(local)[2], (step.constant & -step.constant).bit_length() - 1)
            )
            if local in guard.small:
                facts[local] = (int(local in guard.positive), SMALL - 1, align)
            else:
                facts[local] = (0, MASKS[32], align)
        self._state(node.edges[1], self.stack, self.facts)
        self.known = self.known.copy()
        self.known.forget()
        for local in trips.steps:
            self.known.assigned(local)
        self._state(node.edges[0], self.stack, facts)
        self.bulk_nodes.add(doing)

    def _switch(self, selector: Expr, node: Node) -> Any:
        depths: tuple[int, ...] = self.code.immediates[node.last - 1]  # type: ignore[assignment] # of a br_table
        places = {depth: place for place, depth in enumerate(dict.fromkeys(depths))}
        chosen = canonical(selector, 32, self)
        (chosen,) = self.names(chosen)
        return chosen, [places[depth] for depth in depths]

    def _check(self, node: Node) -> None:
        """br_on_null and its like: the reference is an operand of one target, or of both."""
        index = node.last - 1
        name, immediate = self.code.ops[index].name, self.code.immediates[index]
        (reference,) = self.names(self.pop())
        self.settle()
        plain, with_reference = list(self.stack), [*self.stack, reference]
        first, second = node.edges
        x = reference.text
        if name == "br_on_null":
            node.test = _test(f"{x} is None", f"{x} is not None")
            stacks = (plain, with_reference)
        elif name == "br_on_non_null":
            node.test = _test(f"{x} is not None", f"{x} is None")
            stacks = (with_reference, plain)
        else:
            text = f"is_instance({x},{self.reference_type(immediate[2])})"  # type: ignore[index] # of a cast
            fits = _test(text, f"not {text}")
            node.test = fits if name == "br_on_cast" else comparisons.inverted(fits)
            stacks = (with_reference, with_reference)
        for edge, stack in ((first, stacks[0]), (second, stacks[1])):
            self._carry(edge, stack)
            self._state(edge, stack, self.facts)

    def _region(self, node: Node) -> None:
        """The entry of a try region: the operands below are settled; handlers bring their own."""
        self.settle()
        region = node.region
        changed = set().union(*(inner.sets for inner in region.nodes)) if region is not None else set()
        for edge in node.edges:
            if not edge.caught:
                self._state(edge, self.stack, self.facts)
                continue
            facts = {local: fact for local, fact in self.facts.items() if local not in changed}
            types: tuple[ValType, ...] = ()
            clause = region.clauses[region.edges.index(edge)]  # type: ignore[union-attr] # it begins one
            if clause.tag is not None:
                types = self.context.tags[clause.tag].func.params
            carried = []
            for place in range(edge.arity):
                made = Expr(f"s{edge.height + place}")
                if place < len(types):
                    made.bits = BITS.get(types[place], 0)
                    made.hi = MASKS.get(made.bits, 0)
                made.nan = CARRIED
                carried.append(made)
            edge.state = State(self.stack[: edge.height] + carried, facts, frozenset(self.assigned), Known())

    def _carry(self, edge: Edge, stack: list[Expr]) -> None:
        """Put the operands a branch carries into the variables of a target where several ways meet."""
        if not edge.arity or not edge.target.is_merge:
            return
        goal = self._goal(edge.target)
        names, texts = [], []
        for place, value in enumerate(stack[len(stack) - edge.arity :]):
            name, text = f"s{edge.height + place}" if goal is None else f"l{goal}", self.escaping(value)
            if name != text:
                names.append(name)
                texts.append(text)
        if names:
            edge.moves = [f"{','.join(names)}={','.join(texts)}"]

    def _goal(self, node: Node) -> int | None:
        """The local that gets the only operand with which all ways come to a node, at once: then they put it
        there.
        """
        if node in self.graph.loops or self.graph.tangled:
            return None
        if any(edge.caught or edge.height or edge.arity != 1 for edge in node.in_edges):
            return None
        ops = self.code.ops
        for index in range(node.first, node.last):
            name = ops[index].name
            if name in ("local.set", "local.tee"):
                local: int = self.code.immediates[index]  # type: ignore[assignment]  # of these two it is a local
                return local if self.local_type(local) in BITS else None
            if name not in ("end", "block"):
                return None
        if node.end == FALL and node.edges[0].arity == 1 and not node.edges[0].height:
            return self._goal(node.edges[0].target)
        return None

    def _state(self, edge: Edge, stack: list[Expr], facts: dict[int, Fact]) -> None:
        if edge.arity:
            kept = stack[: edge.height] + stack[len(stack) - edge.arity :]
        else:
            kept = stack[: edge.height]
        edge.state = State(kept, facts, frozenset(self.assigned), self.known)
        if edge.target.order <= edge.source.order and not self.steps.check(edge.target, facts):
            self._refuted = True

    def _refined(
        self, known: tuple[tuple[int, int, int], ...], facts: dict[int, Fact] | None = None
    ) -> dict[int, Fact]:
        """The facts with bounds of locals added."""
        facts = self.facts if facts is None else facts
        if known:
            facts = dict(facts)
            for local, lo, hi in known:
                before = facts.get(local) or self.fact(local)
                align = min(before[2], 32)  # of a zero it is more than it has bits
                lo, hi = -(-max(lo, before[0]) >> align << align), min(hi, before[1]) >> align << align
                if lo <= hi:
                    facts[local] = (lo, hi, before[2])
        return facts

    # -- plain rows ----------------------------------------------------------------------------------------

    def _plain(self, shape: Shape) -> None:
        template, count, bits, name, params, traps = shape
        stack = self.stack
        if template is not None:
            if count == 2:
                b, a = stack.pop(), stack.pop()
                if a.loose:
                    a = number(a)
                if b.loose:
                    b = number(b)
                made = template(self, a, b)
            else:
                a = stack.pop()
                if a.loose and not name.endswith("eqz"):
                    a = number(a)
                made = template(self, a)
        else:
            operands = self.pop_many(count)
            texts = [self.as_argument(e, type_) for e, type_ in zip(operands, params, strict=True)]
            make = self.trapping_call if traps else call
            made = make(name, *texts, hi=MASKS.get(bits, 0))
        made.bits = bits
        if made.depth > DEEPEST:
            made = self.temp(made)
        stack.append(made)

    def as_argument(self, e: Expr, type_: ValType) -> Expr:
        """An operand as a helper function takes it."""
        if type_ is I32 or type_ is I64:
            return number(canonical(e, BITS[type_], self))
        return clean(e, self) if type_ is F64 else e

    # -- fuel ------------------------------------------------------------------------------------------------

    def pay(self) -> None:
        """Pay for the instructions up to this one, in code where exceptions are thrown."""
        if self.piecewise:
            here = self.at_instruction + 1
            cost = self.graph.cost(self._paid, here)
            cost, self._owed = cost + self._owed, 0
            self._paid = max(here, self._paid)
            if cost:
                self.lines.append(f"{self.use('fuel')}-={cost}")

    def sized(self, operands: list[Expr]) -> list[Expr]:
        """The operands of an instruction whose work has the size that the last one says: fuel is paid for
        it.
        """
        if self.options.fuel and operands:
            operands[-1] = number(canonical(operands[-1], operands[-1].bits or 32, self))
            operands = self.names(*operands)
        return operands

    def pay_for(self, size: str) -> None:
        """Pay for work of this size, after it was done."""
        if self.options.fuel:
            self.lines.append(f"{self.use('fuel')}-={size}")


def _test(text: str, negation: str) -> Expr:
    made = Expr(text, 4, 0, 1)
    made.negation = negation
    return made


def _joined(left: dict[int, Fact], right: dict[int, Fact]) -> dict[int, Fact]:
    """What holds on both ways."""
    if left is right:
        return left
    joined = {}
    for local, fact in left.items():
        other = right.get(local)
        if other is None:
            continue
        if other == fact:
            joined[local] = fact
        else:
            joined[local] = (min(fact[0], other[0]), max(fact[1], other[1]), min(fact[2], other[2]))
    return joined
