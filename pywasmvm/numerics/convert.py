"""Conversion instructions, one pure function each, named after the instruction.

Spec: Execution, Numerics, Conversions. Integers are canonical unsigned, f32 a float that is exactly an
f32. Limits are those of the float format: every float strictly between them truncates into range.
"""

from __future__ import annotations

from math import nan
from typing import NoReturn

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.numerics.bits import as_f32, f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits


def _refuse(a: float) -> NoReturn:
    raise Trap(TrapKind.INTEGER_OVERFLOW if a == a else TrapKind.INVALID_CONVERSION)


# -- between integers ------------------------------------------------------------------------------------


def i32_wrap_i64(a: int) -> int:
    return a & 0xFFFFFFFF


def i64_extend_i32_s(a: int) -> int:
    return a if a < 0x80000000 else a + 0xFFFFFFFF00000000


def i64_extend_i32_u(a: int) -> int:
    return a


# -- float to integer, trapping --------------------------------------------------------------------------


def i32_trunc_f64_s(a: float) -> int:
    if -2147483649.0 < a < 2147483648.0:
        return int(a) & 0xFFFFFFFF
    _refuse(a)


def i32_trunc_f64_u(a: float) -> int:
    if -1.0 < a < 4294967296.0:
        return int(a)
    _refuse(a)


def i64_trunc_f64_s(a: float) -> int:
    # No float lies between -2**63 - 1 and -2**63, so the limit itself is in range.
    if -9223372036854775808.0 <= a < 9223372036854775808.0:
        return int(a) & 0xFFFFFFFFFFFFFFFF
    _refuse(a)


def i64_trunc_f64_u(a: float) -> int:
    if -1.0 < a < 18446744073709551616.0:
        return int(a)
    _refuse(a)


# An f32 is a double too, and the limits hold for it as they stand.
i32_trunc_f32_s = i32_trunc_f64_s
i32_trunc_f32_u = i32_trunc_f64_u
i64_trunc_f32_s = i64_trunc_f64_s
i64_trunc_f32_u = i64_trunc_f64_u


# -- float to integer, saturating ------------------------------------------------------------------------


def i32_trunc_sat_f64_s(a: float) -> int:
    if a >= 2147483648.0:
        return 0x7FFFFFFF
    if a > -2147483649.0:
        return int(a) & 0xFFFFFFFF
    return 0x80000000 if a == a else 0


def i32_trunc_sat_f64_u(a: float) -> int:
    if a >= 4294967296.0:
        return 0xFFFFFFFF
    return int(a) if a > -1.0 else 0


def i64_trunc_sat_f64_s(a: float) -> int:
    if a >= 9223372036854775808.0:
        return 0x7FFFFFFFFFFFFFFF
    if a > -9223372036854775808.0:
        return int(a) & 0xFFFFFFFFFFFFFFFF
    return 0x8000000000000000 if a == a else 0


def i64_trunc_sat_f64_u(a: float) -> int:
    if a >= 18446744073709551616.0:
        return 0xFFFFFFFFFFFFFFFF
    return int(a) if a > -1.0 else 0


i32_trunc_sat_f32_s = i32_trunc_sat_f64_s
i32_trunc_sat_f32_u = i32_trunc_sat_f64_u
i64_trunc_sat_f32_s = i64_trunc_sat_f64_s
i64_trunc_sat_f32_u = i64_trunc_sat_f64_u


# -- integer to float ------------------------------------------------------------------------------------


def f64_convert_i32_s(a: int) -> float:
    return float(a if a < 0x80000000 else a - 0x100000000)


def f64_convert_i32_u(a: int) -> float:
    return float(a)


def f64_convert_i64_s(a: int) -> float:
    return float(a if a < 0x8000000000000000 else a - 0x10000000000000000)


def f64_convert_i64_u(a: int) -> float:
    return float(a)  # Python rounds half to even


def f32_convert_i32_s(a: int) -> float:
    as_f32[0] = a if a < 0x80000000 else a - 0x100000000
    return as_f32[0]  # type: ignore[no-any-return]


def f32_convert_i32_u(a: int) -> float:
    as_f32[0] = a
    return as_f32[0]  # type: ignore[no-any-return]


def f32_convert_i64_s(a: int) -> float:
    if a >= 0x8000000000000000:
        return -f32_convert_i64_u(0x10000000000000000 - a)
    return f32_convert_i64_u(a)


def f32_convert_i64_u(a: int) -> float:
    if a >= 0x20000000000000:
        # Too long for a double, and rounding twice may round wrongly. The bits that do not fit are far
        # below the last one of an f32; only whether any is set matters, so they are merged into one.
        as_f32[0] = (a >> 11 | (1 if a & 0x7FF else 0)) * 2048.0
    else:
        as_f32[0] = a
    return as_f32[0]  # type: ignore[no-any-return]


# -- between floats --------------------------------------------------------------------------------------


def f32_demote_f64(a: float) -> float:
    as_f32[0] = a
    return as_f32[0]  # type: ignore[no-any-return]


def f64_promote_f32(a: float) -> float:
    return a if a == a else nan


# -- same bits, other type -------------------------------------------------------------------------------

i32_reinterpret_f32 = f32_to_bits
i64_reinterpret_f64 = f64_to_bits
f32_reinterpret_i32 = f32_from_bits
f64_reinterpret_i64 = f64_from_bits
