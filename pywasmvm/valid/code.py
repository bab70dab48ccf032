"""Stack typing of instruction sequences (spec: Validation, Instructions; Appendix, Validation Algorithm).

A row of the instruction table that has a signature is typed by it, right here; the others have a rule, a
function registered under their name in the family files of this folder. Immediates are checked once per
kind, not once per instruction.

`CodeValidator.run` does in line what is usual - exactly the wanted types are on the stack - and leaves
everything else, and every refusal, to the general way: the rules and `_by_signature`.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from pywasmvm.errors import InvalidError
from pywasmvm.isa import ADDR, ROWS, Imm, Opcode
from pywasmvm.isa.opcode import Signature
from pywasmvm.matching import matches
from pywasmvm.syntax import Code, MemArg
from pywasmvm.types import BOTTOM, BottomType, FuncType, HeapType, NumType, RefType, ValType, ref
from pywasmvm.valid.context import Context, Shape
from pywasmvm.valid.facts import CodeFacts
from pywasmvm.valid.locals import Locals

#: More operands than this on the stack at once are refused (an implementation limit): a call is two bytes
#: long and may push a thousand of them.
MAX_OPERANDS = 1_000_000


class Label:
    """An open block: what it takes and gives, how high the stack was, whether its code is unreachable."""

    __slots__ = ("dead", "height", "kind", "mark", "operands", "params", "results", "unreachable")

    def __init__(
        self,
        kind: str,
        params: Sequence[ValType],
        results: Sequence[ValType],
        height: int,
        dead: bool,
        mark: int,
    ) -> None:
        self.kind, self.params, self.results, self.height = kind, params, results, height
        #: What a branch to this label needs on the stack.
        self.operands = params if kind == "loop" else results
        #: How many locals had got a value when the block was opened.
        self.mark = mark
        #: The stack is polymorphic: a branch, return or trap came before in this very block.
        self.unreachable = False
        #: The code can never run: unreachable, or inside of a block that was opened in such code.
        self.dead = dead


class CodeValidator:
    """Types one function body or constant expression."""

    __slots__ = ("context", "labels", "locals", "stack")

    def __init__(
        self, context: Context, params: Sequence[ValType], runs: Sequence[tuple[int, ValType]]
    ) -> None:
        self.context = context
        self.locals = Locals(params, [(count, context.close(type_)) for count, type_ in runs])
        self.stack: list[ValType] = []
        self.labels: list[Label] = []

    # -- the operand stack ---------------------------------------------------------------------------

    def push(self, type_: ValType) -> None:
        """Put an operand on the stack."""
        self.stack.append(type_)

    def push_all(self, types: Sequence[ValType]) -> None:
        """Put several operands on the stack, the last one on top."""
        self.stack.extend(types)
        if len(types) > 1 and len(self.stack) > MAX_OPERANDS:
            raise InvalidError(f"more than {MAX_OPERANDS} operands on the stack")

    def pop(self, expected: ValType | None = None) -> ValType:
        """Take an operand of the expected type (None: of any type) from the current block's stack."""
        label = self.labels[-1]
        if len(self.stack) == label.height:
            if label.unreachable:
                return BOTTOM
            wanted = "a value" if expected is None else str(expected)
            raise InvalidError(f"type mismatch: expected {wanted}, but nothing on stack")
        found = self.stack.pop()
        if expected is not None and found is not expected and not matches(found, expected):
            raise InvalidError(f"type mismatch: expected {expected}, found {found}")
        return found

    def pop_all(self, types: Sequence[ValType]) -> None:
        """Take several operands; the last of `types` is on top."""
        count = len(types)
        if count == 0:
            return
        # The usual case: exactly the wanted types, compared at once.
        start = len(self.stack) - count
        if start >= self.labels[-1].height and self.stack[start:] == list(types):
            del self.stack[start:]
            return
        for type_ in reversed(types):
            self.pop(type_)

    def pop_ref(self) -> RefType:
        """Take an operand that must be a reference; one from unreachable code is below all of them."""
        found = self.pop()
        if isinstance(found, BottomType):
            return ref(False, HeapType.BOT)
        if not isinstance(found, RefType):
            raise InvalidError(f"type mismatch: expected a reference, found {found}")
        return found

    # -- blocks --------------------------------------------------------------------------------------

    def enter(self, kind: str, params: Sequence[ValType], results: Sequence[ValType]) -> None:
        """Open a block whose parameters have been popped."""
        labels = self.labels
        dead = bool(labels) and labels[-1].dead
        labels.append(Label(kind, params, results, len(self.stack), dead, len(self.locals.order)))
        self.push_all(params)

    def leave(self) -> Label:
        """Close the innermost block: its results and nothing else must be on its stack."""
        label = self.labels[-1]
        if label.results:
            self.pop_all(label.results)
        if len(self.stack) != label.height:
            raise InvalidError(f"type mismatch: values remaining on stack at end of {label.kind}")
        if len(self.locals.order) > label.mark:
            self.locals.forget(label.mark)
        return self.labels.pop()

    def unreachable(self) -> None:
        """The rest of the current block can never run: its stack becomes polymorphic."""
        label = self.labels[-1]
        del self.stack[label.height :]
        label.unreachable = label.dead = True

    def label(self, depth: int) -> Label:
        """The label that many blocks out."""
        if depth >= len(self.labels):
            raise InvalidError(f"unknown label {depth}")
        return self.labels[-1 - depth]

    # -- sequences -----------------------------------------------------------------------------------

    def run(self, code: Code, results: Sequence[ValType]) -> CodeFacts:
        """Type a whole body. The error raised names the instruction and its offset."""
        self.enter("function", (), results)
        context, stack, labels = self.context, self.stack, self.labels
        local_types = self.locals.plain
        local_count = len(local_types)
        ways, shapes = _ways(context.address), context.shapes
        bits = context.address.bits if context.address is not None else 0
        height, dead = 0, False  # of the innermost label
        immediates: list[Any] = code.immediates
        heights: list[int] = []
        try:
            for opcode, immediate in zip(code.ops, immediates, strict=True):
                heights.append(-1 if dead else len(stack))
                way, shape, alignment = ways[opcode]
                # The usual cases, in line: what is wanted is there, of exactly the wanted types.
                if way == PLAIN:
                    pass
                elif way == LOCAL_GET:
                    if immediate < local_count and (type_ := local_types[immediate]) is not None:
                        stack.append(type_)
                        continue
                elif way == MEMORY:
                    if immediate.memory or immediate.align > alignment or immediate.offset >> bits:
                        shape = None
                elif way == BY_IMMEDIATE:
                    shape = shapes[opcode].get(immediate)
                elif (
                    way != BY_RULE  # to set a local
                    and immediate < local_count
                    and len(stack) > height
                    and stack[-1] is local_types[immediate]
                ):
                    if way == LOCAL_SET:
                        stack.pop()
                    continue
                if shape is None:
                    rule = _RULES.get(opcode)
                    if rule is None:
                        self._by_signature(opcode, immediate)
                    elif (found := rule(self, immediate)) is not None:
                        self._by_type(opcode, immediate, found)
                    if labels:
                        label = labels[-1]
                        height, dead = label.height, label.dead
                    continue
                count, params, result = shape
                if count == 1 and len(stack) > height and stack[-1] is params[0]:
                    stack.pop()
                elif (
                    count == 2
                    and len(stack) - height >= 2
                    and stack[-1] is params[1]
                    and stack[-2] is params[0]
                ):
                    stack.pop()
                    stack.pop()
                elif count:
                    self.pop_all(params)
                if result is not None:
                    stack.append(result)
        except InvalidError as error:
            at = len(heights) - 1  # the instruction whose height was noted last
            raise InvalidError(error.message, None, code.offsets[at], code.ops[at].name) from None
        return CodeFacts(array("i", heights))

    def _by_type(self, opcode: Opcode, immediate: object, type_: FuncType) -> None:
        """Pop and push what a rule has found for this immediate; if it has the usual shape, remember it."""
        self.pop_all(type_.params)
        self.push_all(type_.results)
        if len(type_.results) < 2:
            result = type_.results[0] if type_.results else None
            self.context.shapes[opcode][immediate] = len(type_.params), type_.params, result

    def _by_signature(self, opcode: Opcode, immediate: Any) -> None:
        """A row with a signature and immediates: check each immediate, then pop and push."""
        signature = opcode.signature
        if signature is None:
            raise InvalidError(f"{opcode.name} has neither signature nor rule")
        address: ValType | None = None
        parts = immediate if len(opcode.immediates) > 1 else (immediate,)
        # The memory or table before the segment, which stands first in the binary.
        for kind, value in reversed(list(zip(opcode.immediates, parts, strict=True))):
            if kind is Imm.MEMARG:
                address = self._memarg(opcode, value)
            elif kind is Imm.MEMORY:
                address = self.context.memory(value).address
            elif kind is Imm.DATA:
                self.context.data(value)
            elif kind is Imm.ELEM:
                self.context.elem(value)
            elif kind is Imm.LANE and value >= opcode.lanes:
                raise InvalidError(f"invalid lane index {value}: {opcode.name} has {opcode.lanes} lanes")
            elif kind is Imm.LANES and any(lane >= opcode.lanes for lane in value):
                raise InvalidError(f"invalid lane index {max(value)}")
        for param in reversed(signature.params):
            self.pop(address if param is ADDR else param)  # type: ignore[arg-type]  # ADDR is resolved here
        for result in signature.results:
            self.push(address if result is ADDR else result)  # type: ignore[arg-type]

    def _memarg(self, opcode: Opcode, memarg: MemArg) -> ValType:
        memory = self.context.memory(memarg.memory)
        if opcode.access is not None and memarg.align > opcode.access.natural_alignment:
            raise InvalidError("alignment must not be larger than natural")
        if memarg.offset >> memory.address.bits:
            raise InvalidError("offset out of range")
        return memory.address


#: What a rule does is pop and push; or it returns what is to be popped and pushed, if that follows from the
#: immediate alone and is the same in the whole module.
Rule = Callable[[CodeValidator, Any], FuncType | None]

_RULES: dict[Opcode, Rule] = {}

#: The ways in which `CodeValidator.run` types an instruction. Three go by a shape: that of the row, the same
#: if the memarg is in order, or the one that the rule has found for this immediate before. Three are accesses
#: to a local that always has a value. `BY_RULE` is the general way, which also takes what the others leave.
BY_RULE, PLAIN, MEMORY, BY_IMMEDIATE, LOCAL_GET, LOCAL_SET, LOCAL_TEE = range(7)

#: Ways that rules named when they were registered.
_WAYS_OF_RULES: dict[Opcode, int] = {}

#: Immediates that are values and refer to nothing.
_VALUES = frozenset({Imm.I32, Imm.I64, Imm.F32, Imm.F64, Imm.V128})


#: How `run` types a row, the shape that it has with any immediate, and the largest alignment of a memarg.
_Way = tuple[int, Shape | None, int]


def _shape(signature: Signature, address: NumType | None) -> Shape | None:
    """Params and the single result; None if there are several, or an address and no type for it."""
    types = [address if type_ is ADDR else type_ for type_ in signature.params + signature.results]
    known = tuple([type_ for type_ in types if isinstance(type_, ValType)])
    if len(signature.results) > 1 or len(known) < len(types):
        return None
    count = len(signature.params)
    return count, known[:count], known[count] if signature.results else None


def _way(opcode: Opcode, address: NumType | None) -> _Way:
    """The way of a row where the first memory, if there is one, has this address type."""
    if opcode.signature is not None:
        if _VALUES.issuperset(opcode.immediates):
            shape = _shape(opcode.signature, None)
            return BY_RULE if shape is None else PLAIN, shape, 0
        if opcode.immediates == (Imm.MEMARG,) and opcode.access is not None:
            shape = _shape(opcode.signature, address)
            return BY_RULE if shape is None else MEMORY, shape, opcode.access.natural_alignment
    return _WAYS_OF_RULES.get(opcode, BY_RULE), None, 0


@functools.cache
def _ways(address: NumType | None) -> dict[Opcode, _Way]:
    """The ways of all rows, made when the rules are there."""
    return {opcode: _way(opcode, address) for opcode in ROWS}


def rule(*names: str, way: int = BY_RULE) -> Callable[[Rule], Rule]:
    """Register the typing rule of the rows with these names, and the way of the usual case."""

    def register(function: Rule) -> Rule:
        for opcode in ROWS:
            if opcode.name in names:
                _RULES[opcode] = function
                _WAYS_OF_RULES[opcode] = way
        return function

    return register


def has_rule(opcode: Opcode) -> bool:
    """Whether a row can be typed at all; the completeness test asks."""
    return opcode.signature is not None or opcode in _RULES


def validate_function(context: Context, index: int, code: Code) -> CodeFacts:
    """Type the body of the function with this index (imports counted). Raises InvalidError."""
    type_ = context.functions[index].func
    try:
        return CodeValidator(context, type_.params, code.locals).run(code, type_.results)
    except InvalidError as error:
        raise InvalidError(error.message, index, error.offset, error.instruction) from None
