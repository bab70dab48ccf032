"""Operands for tests of numeric instructions: the instruction list with types, edge values, strategies.

Written out here rather than read from `pywasmvm.isa`, so that a wrong row there is noticed. Values are bit
patterns (unsigned integers); `operand` and `bits` turn them into the VM's representation and back.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits

WIDTH = {"i32": 32, "i64": 64, "f32": 32, "f64": 64}

INTEGER_UNARY = ["clz", "ctz", "popcnt", "extend8_s", "extend16_s"]
INTEGER_BINARY = ["add", "sub", "mul", "div_s", "div_u", "rem_s", "rem_u", "and", "or", "xor"]
INTEGER_BINARY += ["shl", "shr_s", "shr_u", "rotl", "rotr"]
INTEGER_COMPARE = ["eq", "ne", "lt_s", "lt_u", "gt_s", "gt_u", "le_s", "le_u", "ge_s", "ge_u"]
FLOAT_UNARY = ["abs", "neg", "ceil", "floor", "trunc", "nearest", "sqrt"]
FLOAT_BINARY = ["add", "sub", "mul", "div", "min", "max", "copysign"]
FLOAT_COMPARE = ["eq", "ne", "lt", "gt", "le", "ge"]

# instruction -> (operand types, result type)
INSTRUCTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "i64.extend32_s": (("i64",), "i64"),
    "i32.wrap_i64": (("i64",), "i32"),
    "i64.extend_i32_s": (("i32",), "i64"),
    "i64.extend_i32_u": (("i32",), "i64"),
    "f32.demote_f64": (("f64",), "f32"),
    "f64.promote_f32": (("f32",), "f64"),
}
for _i, _f in (("i32", "f32"), ("i64", "f64")):
    INSTRUCTIONS |= {f"{_i}.{name}": ((_i,), _i) for name in INTEGER_UNARY}
    INSTRUCTIONS |= {f"{_i}.{name}": ((_i, _i), _i) for name in INTEGER_BINARY}
    INSTRUCTIONS |= {f"{_i}.{name}": ((_i, _i), "i32") for name in INTEGER_COMPARE}
    INSTRUCTIONS |= {f"{_i}.eqz": ((_i,), "i32")}
    INSTRUCTIONS |= {f"{_f}.{name}": ((_f,), _f) for name in FLOAT_UNARY}
    INSTRUCTIONS |= {f"{_f}.{name}": ((_f, _f), _f) for name in FLOAT_BINARY}
    INSTRUCTIONS |= {f"{_f}.{name}": ((_f, _f), "i32") for name in FLOAT_COMPARE}
    INSTRUCTIONS |= {f"{_i}.reinterpret_{_f}": ((_f,), _i), f"{_f}.reinterpret_{_i}": ((_i,), _f)}
for _i, _f, _s in itertools.product(("i32", "i64"), ("f32", "f64"), "su"):
    INSTRUCTIONS[f"{_i}.trunc_{_f}_{_s}"] = ((_f,), _i)
    INSTRUCTIONS[f"{_i}.trunc_sat_{_f}_{_s}"] = ((_f,), _i)
    INSTRUCTIONS[f"{_f}.convert_{_i}_{_s}"] = ((_i,), _f)

# These pass NaN bits on; every other instruction that gives a NaN gives the canonical one.
MOVES_NAN = ("abs", "neg", "copysign", "reinterpret")


def _near(*centres: int, width: int) -> set[int]:
    return {(centre + step) % 2**width for centre in centres for step in (-2, -1, 0, 1, 2)}


def _float_edges(width: int) -> list[int]:
    to_bits = f32_to_bits if width == 32 else f64_to_bits
    fraction = 23 if width == 32 else 52
    top = (2 ** (width - fraction - 1) - 1) << fraction  # infinity
    one = to_bits(1.0)
    positive = {0, 1, 2, 1 << fraction, (1 << fraction) - 1, top - 1, top, top + 1, top + (1 << fraction - 1)}
    positive |= {top + (1 << fraction - 1) + 5, top + (1 << fraction) - 1, one, one - 1, one + 1}
    for value in (0.1, 0.25, 0.5, 1.5, 2.0, 2.5, 3.0, 3.5, 100.125, 2.0**22 + 0.5, 2.0**23 - 0.5):
        positive.add(to_bits(_single(value) if width == 32 else value))
    for exponent in (7, 8, 15, 16, 23, 24, 31, 32, 51, 52, 53, 62, 63, 64, 96, -24, -126):
        near = to_bits(2.0**exponent)
        positive |= {near - 1, near, near + 1}
    return sorted(positive | {bits | 1 << width - 1 for bits in positive})


def _single(value: float) -> float:
    import numpy as np

    return float(np.float32(value))


EDGES: dict[str, list[int]] = {
    "i32": sorted(
        _near(0, 2**7, 2**8, 2**15, 2**16, 2**23, 2**24, 2**31, width=32) | {0x12345678, 0xFFFF8000}
    ),
    "i64": sorted(
        _near(0, 2**7, 2**15, 2**31, 2**32, 2**53, 2**63, 2**24 << 38, 3 << 39, width=64)
        | {0x0123456789ABCDEF, 0x8000008000000000, 0x8000008000000001, 0x8000007FFFFFFFFF, 0x7FFFFFBFFFFFFFFF}
        | {0x20000020000001, 0x100000180000001, 0x8000000000000400, 0x8000000000000401, 0xFFFFFFFFFFFFFC00}
    ),
    "f32": _float_edges(32),
    "f64": sorted(
        {*_float_edges(64)}
        | {
            f64_to_bits(sign * value)
            for sign in (1, -1)
            for value in (2147483648.9, 4294967295.9, 0.9999999999)
        }
        | {
            f64_to_bits(value)
            for value in (3.4028235677973366e38, 3.4028235677973362e38, 1e39, 1e-46, 7.006e-46)
        }
        | {f64_to_bits(1.0 + 2**-24), f64_to_bits(1.0 + 3 * 2**-24), f64_to_bits(1.0 + 2**-24 + 2**-52)}
    ),
}


def patterns(type_: str) -> st.SearchStrategy[int]:
    """Bit patterns of a value type: edge values, small numbers and anything."""
    width = WIDTH[type_]
    return st.one_of(
        st.sampled_from(EDGES[type_]),
        st.integers(0, 2**width - 1),
        st.integers(-70, 70).map(lambda value: _small(type_, value)),
    )


def _small(type_: str, value: int) -> int:
    if type_[0] == "i":
        return int(value % 2 ** WIDTH[type_])
    return f32_to_bits(value / 4) if type_ == "f32" else f64_to_bits(value / 4)


def operand(type_: str, bits: int) -> Any:
    """The VM's value with this bit pattern."""
    return {"f32": f32_from_bits, "f64": f64_from_bits}.get(type_, int)(bits)


def bits(type_: str, value: Any) -> int:
    """The bit pattern of one of the VM's values; checks that it is one."""
    if type_[0] == "i":
        if type(value) is not int or not 0 <= value < 2 ** WIDTH[type_]:
            raise ValueError(f"{value!r} is not a canonical {type_}")
        return value
    if not isinstance(value, float) or (type_ == "f32" and value == value and _single(value) != value):
        raise ValueError(f"{value!r} is not an {type_}")
    return f32_to_bits(value) if type_ == "f32" else f64_to_bits(value)


def is_nan(type_: str, pattern: int) -> bool:
    """Whether the bit pattern is a NaN of that float type."""
    if type_ == "f32":
        return pattern & 0x7FFFFFFF > 0x7F800000
    return type_ == "f64" and pattern & 0x7FFFFFFFFFFFFFFF > 0x7FF0000000000000
