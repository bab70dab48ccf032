"""Stack typing: the signature of every row, polymorphic stacks, immediates, facts for the engines."""

from __future__ import annotations

from array import array

import pytest

from pywasmvm.errors import InvalidError
from pywasmvm.features import DEFAULT
from pywasmvm.isa import ADDR, ROWS, Imm, op
from pywasmvm.isa.opcode import Opcode
from pywasmvm.isa.opcode import row as new_row
from pywasmvm.syntax import Code, MemArg, ModuleSyntax
from pywasmvm.types import BOTTOM, F32, F64, FUNCREF, I32, I64, BottomType, Limits, MemoryType, ValType
from pywasmvm.valid import code as validator_module
from pywasmvm.valid.code import BY_RULE, PLAIN, CodeValidator, _way, has_rule
from pywasmvm.valid.context import Context
from pywasmvm.valid.locals import MAX_LOCALS
from tests.support import binary as b
from tests.support.numeric import INSTRUCTIONS
from tests.support.validation import accepted, accepted_body, refusal, refused_body

CONST = {
    "i32": b"\x41\0",
    "i64": b"\x42\0",
    "f32": b"\x43\0\0\0\0",
    "f64": b"\x44" + bytes(8),
    "v128": b"\xfd\x0c" + bytes(16),
    "funcref": b"\xd0\x70",
}
BYTE = {"i32": b.I32, "i64": b.I64, "f32": b.F32, "f64": b.F64, "v128": b"\x7b", "funcref": b.FUNCREF}
MEMORY = b.section(5, b.vec([b"\0\1"]))


def check_signature(encoding: bytes, params: tuple[str, ...], result: str | None) -> None:
    """The instruction is valid with exactly these operands and this result."""

    def module(operands: tuple[str, ...], given: str | None) -> bytes:
        code = b"".join(CONST[type_] for type_ in operands) + encoding
        return b.function(code, b"", BYTE[given] if given else b"", MEMORY)

    accepted(module(params, result))
    for index in range(len(params)):
        for other in CONST:
            if other != params[index]:
                wrong = (*params[:index], other, *params[index + 1 :])
                assert refusal(module(wrong, result)).message.startswith("type mismatch")
    if params:
        assert "nothing on stack" in str(refusal(module(params[1:], result)))
    for given in (*CONST, None):
        if given != result:
            assert refusal(module(params, given)).message.startswith("type mismatch")


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_numeric_instructions(name: str) -> None:
    params, result = INSTRUCTIONS[name]
    check_signature(op(name).encoding, params, result)


ACCESSES = [row for row in ROWS if row.access is not None]


@pytest.mark.parametrize("row", ACCESSES, ids=lambda row: row.name)
def test_loads_and_stores(row: Opcode) -> None:
    value = row.name.partition(".")[0]
    lane = b"\0" if row.name.endswith("_lane") else b""
    operands = ("i32", value) if "store" in row.name or lane else ("i32",)
    check_signature(row.encoding + b"\0\0" + lane, operands, None if "store" in row.name else value)


@pytest.mark.parametrize("row", ACCESSES, ids=lambda row: row.name)
def test_alignment_is_at_most_the_width_of_the_access(row: Opcode) -> None:
    words = row.name.split(".")[1]
    width, _, count = words.lstrip("adelorst").partition("_")[0].partition("x")
    value = row.name.partition(".")[0]
    size = int(width or value[1:]) * int(count or 1) // 8
    lane = b"\0" if words.endswith("_lane") else b""
    operands = CONST["i32"] + (CONST[value] if "store" in words or lane else b"")
    result = BYTE[value] if "load" in words else b""

    def module(align: int) -> bytes:
        return b.function(operands + row.encoding + bytes([align, 0]) + lane, b"", result, MEMORY)

    exponent = size.bit_length() - 1
    accepted(module(exponent))
    error = refusal(module(exponent + 1))
    assert error.message == "alignment must not be larger than natural"
    assert error.instruction == row.name


@pytest.mark.parametrize("row", ACCESSES, ids=lambda row: row.name)
def test_an_access_needs_a_memory(row: Opcode) -> None:
    lane = b"\0" if row.name.endswith("_lane") else b""
    assert refusal(b.function(b"\0" + row.encoding + b"\0\0" + lane)).message == "unknown memory 0"


@pytest.mark.parametrize(
    ("text", "params", "result"),
    [
        ("memory.size", (), "i32"),
        ("memory.grow", ("i32",), "i32"),
        ("memory.fill", ("i32", "i32", "i32"), None),
        ("memory.copy", ("i32", "i32", "i32"), None),
    ],
)
def test_memory_instructions(text: str, params: tuple[str, ...], result: str | None) -> None:
    zeros = b"\0\0" if text == "memory.copy" else b"\0"
    check_signature(op(text).encoding + zeros, params, result)
    assert refusal(b.function(b"\0" + op(text).encoding + zeros)).message == "unknown memory 0"


def test_the_rule_of_every_row_exists() -> None:
    assert [row.name for row in ROWS if not has_rule(row)] == []
    assert not has_rule(Opcode("new", 0xFF, None, (), None, "mvp"))


def test_a_row_without_signature_and_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Opcode("new", 0xFF, None, (), None, "mvp")
    monkeypatch.setitem(validator_module._ways(None), row, _way(row, None))
    validator = CodeValidator(Context(ModuleSyntax(b"", DEFAULT)), (), ())
    with pytest.raises(InvalidError, match="new has neither signature nor rule"):
        validator.run(Code((), [row], [None], array("Q", [7])), ())


class TestUnreachableCode:
    """After an unconditional branch the stack gives whatever is asked for, but what is on it still counts."""

    @pytest.mark.parametrize("jump", ["unreachable", "return", "br 0", "i32.const 0 br_table 0"])
    @pytest.mark.parametrize(
        "rest", ["i32.add drop", "drop drop", "select drop", "i64.const 1 i64.add drop", ""]
    )
    def test_operands_come_from_nowhere(self, jump: str, rest: str) -> None:
        accepted_body(f"{jump} {rest}")

    @pytest.mark.parametrize(
        "rest",
        ["i64.const 1 i32.add drop", "f32.const 0 i32.const 0 i32.add drop", "i32.const 1 f32.neg drop"],
    )
    def test_what_is_on_the_stack_is_still_typed(self, rest: str) -> None:
        refused_body("type mismatch", f"unreachable {rest}")

    def test_values_may_not_remain(self) -> None:
        refused_body("type mismatch: values remaining on stack at end of function", "unreachable i32.const 0")

    def test_the_result_of_an_instruction_is_typed(self) -> None:
        refused_body("type mismatch", "unreachable i32.add f32.neg drop")

    def test_outer_operands_are_out_of_reach(self) -> None:
        refused_body("type mismatch", "i32.const 0 block drop end", types="")

    def test_unreachable_ends_with_its_block(self) -> None:
        refused_body("type mismatch", "block unreachable end drop")
        accepted_body("block (result i32) unreachable end drop")

    def test_operands_below_the_branch_are_dropped(self) -> None:
        accepted_body("i64.const 1 f32.const 2 unreachable i32.add drop")


@pytest.mark.parametrize(
    "body", ["i32.eqz", "i32.const 1 i32.add", "i32.const 1 i32.const 1 i32.add i32.add"]
)
def test_operands_below_stay(body: str) -> None:
    accepted_body(f"f64.const 0 i32.const 0 {body} drop f64.neg drop")
    accepted_body(f"f64.const 0 block i32.const 0 {body} drop end f64.neg drop")
    refused_body("type mismatch: values remaining", f"f64.const 0 i32.const 0 {body} drop")
    refused_body("type mismatch: expected i32, but nothing", f"i32.const 0 block {body} drop end drop")


def test_the_stack_must_be_empty_at_the_end() -> None:
    refused_body("type mismatch: values remaining on stack", "i32.const 0")
    refused_body("type mismatch: values remaining on stack", "i32.const 0 i32.const 0", "(result i32)")
    refused_body("type mismatch: expected i32, but nothing on stack", "", "(result i32)")
    refused_body("type mismatch: expected a value, but nothing on stack", "drop")


def test_an_error_names_function_offset_and_instruction() -> None:
    error = refusal(b.function(b"\x41\0\x41\0\x43\0\0\0\0\x6a", b"", b.I32))
    assert error.function == 0
    assert error.instruction == "i32.add"
    data = b.function(b"\x41\0\x41\0\x43\0\0\0\0\x6a", b"", b.I32)
    assert error.offset is not None
    assert data[error.offset] == 0x6A
    assert (
        str(error)
        == f"type mismatch: expected i32, found f32 (function 0, offset {error.offset:#x}, i32.add)"
    )


def test_function_indices_in_errors_count_imports() -> None:
    error = refusal('(module (import "m" "f" (func)) (func) (func drop))')
    assert error.function == 2


def test_too_many_locals_are_refused_before_they_take_memory() -> None:
    def module(count: int, params: bytes = b"") -> bytes:
        runs = b.vec([b.u32(count) + b.I64])
        return b.module(b.types(b.functype(params)), b.functions(0), b.code(b.body(b"", runs)))

    assert MAX_LOCALS == 50_000  # as other engines have it
    accepted(module(MAX_LOCALS))
    accepted(module(MAX_LOCALS - 1, b.I32))
    for data in (module(MAX_LOCALS + 1), module(MAX_LOCALS, b.I32), module(0xFFFFFFFF)):
        error = refusal(data)
        assert error.message.startswith("too many locals")
        assert error.function == 0


def test_locals_have_the_types_of_params_and_runs() -> None:
    runs = b.vec([b.u32(2) + b.I64, b.u32(0) + b.F32, b.u32(1) + b.F64])

    def module(index: int, result: bytes) -> bytes:
        body = b.body(b"\x20" + b.u32(index), runs)
        return b.module(b.types(b.functype(b.I32, result)), b.functions(0), b.code(body))

    for index, type_ in enumerate((b.I32, b.I64, b.I64, b.F64)):
        accepted(module(index, type_))
        wrong = b.F32 if type_ != b.F32 else b.I32
        refusal(module(index, wrong))
    assert refusal(module(4, b.F64)).message == "unknown local 4"


def test_the_facts_are_the_heights_of_the_stack() -> None:
    module = accepted("(module (func (param i32) (result i32) local.get 0 i32.const 1 i32.add"
                      " block unreachable drop end local.get 0 i32.add))")  # fmt: skip
    code, facts = module.body(0)
    names = [opcode.name for opcode in code.ops]
    assert dict(zip(names[:5], facts.heights[:5], strict=True)) == {
        "local.get": 0, "i32.const": 1, "i32.add": 2, "block": 1, "unreachable": 1,
    }  # fmt: skip
    assert list(facts.heights) == [0, 1, 2, 1, 1, -1, -1, 1, 2, 1]


# -- rules that only a 64-bit memory shows -----------------------------------------------------------------


def validator(memory: MemoryType) -> CodeValidator:
    syntax = ModuleSyntax(b"", DEFAULT, memories=[memory])
    return CodeValidator(Context(syntax), (), ())


def run(memory: MemoryType, name: str, immediate: object, operands: tuple[ValType, ...]) -> list[ValType]:
    # `run` opens the function block itself, so the operands come as constants before the instruction.
    constants = {I32: "i32.const", I64: "i64.const", F32: "f32.const", F64: "f64.const"}
    names = [constants[type_] for type_ in operands]  # type: ignore[index]
    code = Code(
        (),
        [*(op(n) for n in names), op(name)],
        [*([0] * len(names)), immediate],
        array("Q", range(len(names) + 1)),
    )
    checker = validator(memory)
    checker.run(code, ())
    return checker.stack


SMALL, LARGE = MemoryType(Limits(1)), MemoryType(Limits(1), I64)


def test_the_static_offset_fits_the_address_type() -> None:
    assert run(SMALL, "i32.load", MemArg(0, 2**32 - 1), (I32,)) == [I32]
    with pytest.raises(InvalidError, match="offset out of range"):
        run(SMALL, "i32.load", MemArg(0, 2**32), (I32,))
    assert run(LARGE, "i32.load", MemArg(0, 2**64 - 1), (I64,)) == [I32]
    with pytest.raises(InvalidError, match="offset out of range"):
        run(LARGE, "i32.load", MemArg(0, 2**64), (I64,))


def test_addresses_have_the_type_of_the_memory() -> None:
    assert run(LARGE, "memory.size", 0, ()) == [I64]
    assert run(LARGE, "memory.grow", 0, (I64,)) == [I64]
    assert run(LARGE, "memory.fill", 0, (I64, I32, I64)) == []
    for operands in ((I32, I32, I64), (I64, I64, I64), (I64, I32, I32)):
        with pytest.raises(InvalidError, match="type mismatch"):
            run(LARGE, "memory.fill", 0, operands)


@pytest.mark.parametrize(
    "signature", ["i32 -> i32 i32", "addr -> i32", "i32 -> addr", "addr addr -> addr addr"]
)
def test_rows_of_other_shapes_do_not_take_the_short_way(signature: str) -> None:
    for address in (None, I32, I64):
        assert _way(new_row(0xFF, "new", signature), address) == (BY_RULE, None, 0)
        way = _way(new_row(0xFF, "new", "i32 i64 f32 -> f64"), address)
        assert way == (PLAIN, (3, (I32, I64, F32), F64), 0)
        assert _way(new_row(0xFF, "new", "i32 ->"), address) == (PLAIN, (1, (I32,), None), 0)


def test_bottom_matches_everything_and_addr_nothing_but_itself() -> None:
    assert isinstance(BOTTOM, BottomType)
    checker = validator(SMALL)
    checker.enter("function", (), ())
    checker.unreachable()
    assert checker.pop(FUNCREF) is BOTTOM
    assert ADDR in op("i32.load").signature.params  # type: ignore[union-attr]
    assert Imm.MEMARG in op("i32.load").immediates


def test_lanes_must_be_there() -> None:
    for name, lanes in (("i8x16.extract_lane_u", 16), ("i32x4.extract_lane", 4), ("f64x2.extract_lane", 2)):
        body = f"v128.const i64x2 0 0 {name} {{}} drop"
        accepted_body(body.format(lanes - 1))
        refused_body(f"invalid lane index {lanes}", body.format(lanes))
    load = "i32.const 0 v128.const i64x2 0 0 v128.load16_lane {} drop"
    accepted_body(load.format(7), fields="(memory 1)")
    refused_body("invalid lane index 8", load.format(8), fields="(memory 1)")
    shuffle = "v128.const i64x2 0 0 v128.const i64x2 0 0 i8x16.shuffle" + " 31" * 15 + " {} drop"
    accepted_body(shuffle.format(31))
    refused_body("invalid lane index 32", shuffle.format(32))


def test_the_operand_stack_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validator_module, "MAX_OPERANDS", 8)
    fields = "(func $four (result i32 i32 i32 i32) unreachable)"
    drops = " drop" * 8
    accepted(f"(module {fields} (func call $four call $four {drops}))")
    error = refusal(f"(module {fields} (func i32.const 0 call $four call $four {drops} drop))")
    assert error.message == "more than 8 operands on the stack"
