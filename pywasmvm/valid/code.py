"""Stack typing of instruction sequences (spec: Validation, Instructions; Appendix, Validation Algorithm).

A row of the instruction table that has a signature is typed by it, right here; the others have a rule, a
function registered under their name in the family files of this folder. Immediates are checked once per
kind, not once per instruction.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

from pywasmvm.errors import InvalidError
from pywasmvm.isa import ADDR, ROWS, Imm, Opcode
from pywasmvm.matching import matches
from pywasmvm.syntax import Code, MemArg
from pywasmvm.types import BOTTOM, BottomType, HeapType, RefType, ValType, ref
from pywasmvm.valid.context import Context
from pywasmvm.valid.facts import CodeFacts
from pywasmvm.valid.locals import Locals

#: More operands than this on the stack at once are refused (an implementation limit): a call is two bytes
#: long and may push a thousand of them.
MAX_OPERANDS = 1_000_000


class Label:
    """An open block: what it takes and gives, how high the stack was, whether its code is unreachable."""

    __slots__ = ("dead", "height", "kind", "mark", "params", "results", "unreachable")

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
        #: Where the locals stood when the block was opened.
        self.mark = mark
        #: The stack is polymorphic: a branch, return or trap came before in this very block.
        self.unreachable = False
        #: The code can never run: unreachable, or inside of a block that was opened in such code.
        self.dead = dead

    @property
    def operands(self) -> Sequence[ValType]:
        """What a branch to this label needs on the stack."""
        return self.params if self.kind == "loop" else self.results


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
        # The usual case: exactly the wanted types, compared at once.
        enough = len(self.stack) - self.labels[-1].height >= count
        if enough and self.stack[len(self.stack) - count :] == list(types):
            del self.stack[len(self.stack) - count :]
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
        dead = bool(self.labels) and self.labels[-1].dead
        self.labels.append(Label(kind, params, results, len(self.stack), dead, self.locals.mark))
        self.push_all(params)

    def leave(self) -> Label:
        """Close the innermost block: its results and nothing else must be on its stack."""
        label = self.labels[-1]
        self.pop_all(label.results)
        if len(self.stack) != label.height:
            raise InvalidError(f"type mismatch: values remaining on stack at end of {label.kind}")
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
        stack, labels = self.stack, self.labels
        heights = array("i")
        note = heights.append
        try:
            for opcode, immediate in zip(code.ops, code.immediates, strict=True):
                label = labels[-1]
                note(-1 if label.dead else len(stack))
                shape = _PLAIN.get(opcode)
                if shape is not None:
                    params, result = shape
                    # The usual case, in line: enough operands, of exactly the wanted types.
                    count = len(params)
                    if count == 2:
                        if (
                            len(stack) - label.height >= 2
                            and stack[-1] is params[1]
                            and stack[-2] is params[0]
                        ):
                            del stack[-2:]
                        else:
                            self.pop_all(params)
                    elif count == 1 and len(stack) > label.height and stack[-1] is params[0]:
                        stack.pop()
                    else:
                        self.pop_all(params)
                    if result is not None:
                        stack.append(result)
                else:
                    rule = _RULES.get(opcode)
                    if rule is not None:
                        rule(self, immediate)
                    else:
                        self._by_signature(opcode, immediate)
        except InvalidError as error:
            at = len(heights) - 1  # the instruction whose height was noted last
            raise InvalidError(error.message, None, code.offsets[at], code.ops[at].name) from None
        return CodeFacts(heights)

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


Rule = Callable[[CodeValidator, Any], None]

_RULES: dict[Opcode, Rule] = {}


def _shape(opcode: Opcode) -> tuple[tuple[ValType, ...], ValType | None] | None:
    """Params and the single result of a plain row, or of a constant: types that need no look-up."""
    signature = opcode.signature
    if signature is None or any(kind not in _VALUES for kind in opcode.immediates):
        return None
    if ADDR in (*signature.params, *signature.results) or len(signature.results) > 1:
        return None
    params = tuple(p for p in signature.params if isinstance(p, ValType))
    results = [r for r in signature.results if isinstance(r, ValType)]
    return params, results[0] if results else None


#: Immediates that are values and refer to nothing.
_VALUES = frozenset({Imm.I32, Imm.I64, Imm.F32, Imm.F64, Imm.V128})

_PLAIN = {opcode: shape for opcode in ROWS if (shape := _shape(opcode)) is not None}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the typing rule of the rows with these names."""

    def register(function: Rule) -> Rule:
        for opcode in ROWS:
            if opcode.name in names:
                _RULES[opcode] = function
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
