"""Every vector instruction against a native WebAssembly engine, on bit patterns.

The other engine runs with the deterministic choices for relaxed instructions and with canonical NaNs, so the
results are equal bit by bit. One module exports each instruction behind integers, a vector as two i64: its
Python binding cannot pass vectors. Instructions on memory run on our interpreter too, on the same module.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pywasmvm import Instance, Module, Trap
from pywasmvm.numerics import function
from tests.support.numeric import EDGES, bits, operand
from tests.support.vectors import INSTRUCTIONS, LANE_LOADS, LANE_STORES, LANES, LOADS, random_vector
from tests.support.wat import wat

pytestmark = pytest.mark.wasmtime

SHUFFLES = [bytes(range(16)), bytes(range(16, 32)), bytes(range(31, -1, -2))]
SHUFFLES += [bytes(random.Random(seed).choices(range(32), k=16)) for seed in range(20)]
CASES = 250

MEMORY = {**LOADS, **LANE_LOADS, "v128.store": 16, **LANE_STORES}
#: Bytes of memory that hold something; instructions on memory work around here and around its end.
FILLED = 64
END = 1 << 16


def exported(name: str, body: str, operands: tuple[str, ...], result: str) -> str:
    """A function from integers to integers around `body`, which finds its operands on the stack."""
    params: list[str] = []
    reads: list[str] = []
    for type_ in operands:
        at = len(params)
        if type_ == "v128":
            params += ["i64", "i64"]
            reads.append(f"local.get {at} i64x2.splat local.get {at + 1} i64x2.replace_lane 1")
        else:
            params.append(f"i{type_[1:]}")
            cast = f" {type_}.reinterpret_i{type_[1:]}" if type_[0] == "f" else ""
            reads.append(f"local.get {at}{cast}")
    results = {"v128": "(result i64 i64)", "": ""}.get(result, f"(result i{result[1:]})")
    back = f"i{result[1:]}.reinterpret_{result}" if result[:1] == "f" else ""
    if result == "v128":
        back = "local.tee $v i64x2.extract_lane 0 local.get $v i64x2.extract_lane 1"
    return (
        f'(func (export "{name}") (param {" ".join(params)}) {results} (local $v v128)'
        f" {' '.join(reads)} {body} {back})"
    )


def immediates(name: str) -> list[Any]:
    """Everything that can stand behind the instruction: its lanes, some shuffles, or nothing."""
    return SHUFFLES if name == "i8x16.shuffle" else [*range(LANES[name])] if name in LANES else [None]


def written(immediate: Any) -> str:
    """An immediate as text."""
    return (
        ""
        if immediate is None
        else " ".join(map(str, immediate if isinstance(immediate, bytes) else [immediate]))
    )


def module() -> bytes:
    """Each instruction with each of its immediates; exports are named by the text of both."""
    functions = [
        exported(f"{name} {written(immediate)}", f"{name} {written(immediate)}", *signature)
        for name, signature in INSTRUCTIONS.items()
        for immediate in immediates(name)
    ]
    for name, size in MEMORY.items():
        store, lanes = "store" in name, 16 // size if "lane" in name else 0
        operands = ("i32", "v128") if store or lanes else ("i32",)
        for lane in range(lanes) if lanes else [""]:
            body, label = f"{name} offset=3 {lane}", f"{name} {lane}"
            functions.append(exported(label, body, operands, "" if store else "v128"))
    data = "".join(f"\\{byte:02x}" for byte in random.Random("data").randbytes(FILLED))
    lines = "\n".join(functions)
    return wat(f'(module (memory (export "memory") 1) (data (i32.const 0) "{data}") {lines})')


class Native:
    """The module on the other engine."""

    def __init__(self, data: bytes) -> None:
        wasmtime = pytest.importorskip("wasmtime")
        config = wasmtime.Config()
        config.wasm_relaxed_simd = config.wasm_relaxed_simd_deterministic = True
        config.cranelift_nan_canonicalization = True
        self.trap: type[Exception] = wasmtime.Trap
        self.store = wasmtime.Store(wasmtime.Engine(config))
        instance = wasmtime.Instance(self.store, wasmtime.Module(self.store.engine, data), [])
        self.exports = instance.exports(self.store)

    def __call__(self, name: str, *args: int) -> Any:
        return self.exports[name](self.store, *args)

    def memory(self) -> bytes:
        """All of it."""
        return bytes(self.exports["memory"].read(self.store))


@pytest.fixture(scope="module")
def assembled() -> bytes:
    return module()


@pytest.fixture(scope="module")
def native(assembled: bytes) -> Native:
    return Native(assembled)


def halves(types: tuple[str, ...], values: tuple[int, ...]) -> Iterator[int]:
    """Arguments of the exported function: every vector is two i64, the lower one first."""
    for type_, value in zip(types, values, strict=True):
        yield from (value & 2**64 - 1, value >> 64) if type_ == "v128" else (value,)


def whole(result: str, found: Any) -> int:
    """What the exported function returned, as the bit pattern of the instruction's result."""
    if result == "v128":
        low, high = found
        return int(low % 2**64 | high % 2**64 << 64)
    return int(found) % 2 ** int(result[1:])


def random_operand(type_: str, source: random.Random) -> int:
    """A vector, or a number that is often an edge value."""
    if type_ == "v128":
        return random_vector(source)
    return source.choice([source.choice(EDGES[type_]), source.getrandbits(int(type_[1:]))])


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_same_bits(name: str, native: Native) -> None:
    types, result = INSTRUCTIONS[name]
    source, compute = random.Random(name), function(name)
    choices = immediates(name)
    for case in range(CASES):
        immediate = choices[case % len(choices)]
        patterns = tuple(random_operand(type_, source) for type_ in types)
        expected = whole(result, native(f"{name} {written(immediate)}", *halves(types, patterns)))
        extra = () if immediate is None else (immediate,)
        value = compute(*map(operand, types, patterns), *extra)
        found = value if result == "v128" else bits(result, value)
        assert found == expected, [immediate, *map(hex, patterns), hex(found), hex(expected)]


@pytest.mark.parametrize("name", MEMORY)
def test_same_effect_on_memory(name: str, assembled: bytes, native: Native) -> None:
    ours = Instance(Module(assembled))
    other = Native(assembled)
    source, size = random.Random(name), MEMORY[name]
    lanes = range(16 // size) if "lane" in name else [""]
    for address in [*range(FILLED), *range(END - size - 6, END + 2), 2**32 - 3, 2**32 - 1]:
        vector = random_vector(source)
        label = f"{name} {source.choice(lanes)}"
        args = [address, *(halves(("v128",), (vector,)) if "lane" in name or "store" in name else ())]
        expected = attempt(lambda: other(label, *args), other.trap)  # noqa: B023 - called at once
        found = attempt(lambda: ours.exports[label](*args), Trap)  # noqa: B023
        assert found == expected, (address, hex(vector))
    assert ours.exports["memory"].data.tobytes() == other.memory()


def attempt(call: Callable[[], Any], trap: type[Exception]) -> Any:
    """What a call returns, or how it trapped."""
    try:
        found = call()
    except trap as error:
        return "trap" if "out of bounds memory access" in str(error) else error
    return [*found] if isinstance(found, tuple | list) else found
