"""Every numeric instruction against a native WebAssembly engine, on bit patterns.

One module exports each instruction behind integer parameters, so that NaN bits cross unharmed. Where the
specification leaves the NaN open, only its being one is compared, and ours must be the canonical one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from pywasmvm.errors import Trap
from pywasmvm.numerics import function
from tests.support.numeric import EDGES, INSTRUCTIONS, MOVES_NAN, WIDTH, bits, is_nan, operand
from tests.support.wat import wat

pytestmark = pytest.mark.wasmtime
CANONICAL = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}


def exported(name: str, operands: tuple[str, ...], result: str) -> str:
    """The instruction as a function from bit patterns to a bit pattern."""
    params = " ".join(f"i{type_[1:]}" for type_ in operands)
    reads = "".join(
        f" local.get {index}" + (f" {type_}.reinterpret_i{type_[1:]}" if type_[0] == "f" else "")
        for index, type_ in enumerate(operands)
    )
    back = f" i{result[1:]}.reinterpret_{result}" if result[0] == "f" else ""
    return f'(func (export "{name}") (param {params}) (result i{result[1:]}){reads} {name}{back})'


@pytest.fixture(scope="module")
def native() -> Callable[..., int | str]:
    wasmtime = pytest.importorskip("wasmtime")
    functions = "\n".join(exported(name, *signature) for name, signature in INSTRUCTIONS.items())
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, wat(f"(module {functions})")), [])
    exports = {name: instance.exports(store)[name] for name in INSTRUCTIONS}

    def call(name: str, *operands: int) -> int | str:
        try:
            result = exports[name](store, *operands)
        except wasmtime.Trap as trap:
            return str(trap.trap_code.name)
        return int(result) % 2 ** WIDTH[INSTRUCTIONS[name][1]]

    return call


TRAP_CODES = {
    "INTEGER_DIVISION_BY_ZERO": "integer divide by zero",
    "INTEGER_OVERFLOW": "integer overflow",
    "BAD_CONVERSION_TO_INTEGER": "invalid conversion to integer",
}


def operands_for(types: tuple[str, ...], seed: str) -> list[tuple[int, ...]]:
    source = random.Random(seed)
    edges: list[Any] = list(itertools.product(*(EDGES[type_] for type_ in types)))
    chosen = source.sample(edges, min(len(edges), 120))
    for _ in range(60):
        chosen.append(tuple(source.getrandbits(WIDTH[type_]) for type_ in types))
    return chosen


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_same_bits(name: str, native: Callable[..., int | str]) -> None:
    types, result = INSTRUCTIONS[name]
    for patterns in operands_for(types, name):
        expected = native(name, *patterns)
        if isinstance(expected, str):
            expected = TRAP_CODES[expected]
        elif is_nan(result, expected) and not any(word in name for word in MOVES_NAN):
            expected = CANONICAL[result]
        try:
            found: int | str = bits(result, function(name)(*map(operand, types, patterns)))
        except Trap as trap:
            found = trap.message
        assert found == expected, [hex(pattern) for pattern in patterns]
