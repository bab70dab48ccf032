"""Between Python values and canonical ones (docs/adr/0003-value-representation.md).

Inside, i32 and i64 are unsigned; users see them signed and may give either. A reference is itself.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

from pywasmvm.numerics.bits import f32_from_python
from pywasmvm.types import F32, F64, I32, I64, V128, HeapType, RefType, ValType

Convert = Callable[[Any], Any]


def _integer(bits: int) -> Convert:
    low, high, mask = -(1 << (bits - 1)), 1 << bits, (1 << bits) - 1

    def convert(value: Any) -> int:
        number = index(value)  # bools and numpy integers count, floats do not
        if not low <= number < high:
            raise OverflowError(f"{number} does not fit in an i{bits}")
        return int(number & mask)

    return convert


def _float64(value: Any) -> float:
    return value if type(value) is float else float(value)


def _vector(value: Any) -> int:
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) != 16:
            raise TypeError(f"a v128 is 16 bytes, not {len(value)}")
        return int.from_bytes(value, "little")
    number = index(value)
    if not 0 <= number < 1 << 128:
        raise OverflowError(f"{number} does not fit in a v128")
    return int(number)


def _reference(type_: RefType) -> Convert:
    """A check: any object may be an externref, the other references are made by guests."""
    from pywasmvm.runtime.gc import is_instance  # objects of a guest use these conversions themselves

    def check(value: Any) -> Any:
        if not is_instance(value, type_):
            raise TypeError(f"{value!r} is no {type_}")
        return value

    return check


def _same(value: Any) -> Any:
    return value


_TO_CANONICAL: dict[ValType, Convert] = {
    I32: _integer(32),
    I64: _integer(64),
    F32: f32_from_python,
    F64: _float64,
    V128: _vector,
}


def to_canonical(type_: ValType) -> Convert:
    """How a Python value becomes a canonical one. The function raises TypeError or OverflowError.

    A v128 is given as an integer of 128 bits or as 16 bytes, lane 0 first.
    """
    found = _TO_CANONICAL.get(type_)
    if found is not None:
        return found
    if isinstance(type_, RefType) and not (type_.nullable and type_.heap is HeapType.EXTERN):
        return _reference(type_)
    return _same


def _signed32(value: int) -> int:
    return value - 0x1_0000_0000 if value >= 0x8000_0000 else value


def _signed64(value: int) -> int:
    return value - 0x1_0000_0000_0000_0000 if value >= 0x8000_0000_0000_0000 else value


_TO_PYTHON: dict[ValType, Convert] = {I32: _signed32, I64: _signed64}


def to_python(type_: ValType) -> Convert:
    """How a canonical value is shown to a user: integers signed, the rest as it is."""
    return _TO_PYTHON.get(type_, _same)


_DEFAULTS: dict[ValType, Any] = {I32: 0, I64: 0, F32: 0.0, F64: 0.0, V128: 0}


def default(type_: ValType) -> Any:
    """The initial value of a local: zero or null."""
    return _DEFAULTS.get(type_)
