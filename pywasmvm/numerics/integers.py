"""Integer instructions of i32 and i64, one pure function each, named after the instruction.

Spec: Execution, Numerics, Integer Operations. Values are canonical unsigned integers (0 <= x < 2**N).
These run in the interpreter's inner loop. So wrapping is a comparison where at most one wrap can
happen (cheaper than a mask), and nothing is factored out into helpers on the paths that are taken often.
"""

from __future__ import annotations

from typing import NoReturn

from pywasmvm.errors import Trap, TrapKind


def _divide_by_zero() -> NoReturn:
    raise Trap(TrapKind.INTEGER_DIVIDE_BY_ZERO)


def i32_clz(a: int) -> int:
    return 32 - a.bit_length()


def i32_ctz(a: int) -> int:
    return (a & -a).bit_length() - 1 if a else 32


def i32_popcnt(a: int) -> int:
    return a.bit_count()


def i32_add(a: int, b: int) -> int:
    total = a + b
    return total if total <= 0xFFFFFFFF else total - 0x100000000


def i32_sub(a: int, b: int) -> int:
    difference = a - b
    return difference if difference >= 0 else difference + 0x100000000


def i32_mul(a: int, b: int) -> int:
    return a * b & 0xFFFFFFFF


def i32_div_s(a: int, b: int) -> int:
    if not b:
        _divide_by_zero()
    # `//` rounds down and Wasm rounds towards zero, so each case divides magnitudes.
    if a < 0x80000000:
        return a // b if b < 0x80000000 else -(a // (0x100000000 - b)) & 0xFFFFFFFF
    if b < 0x80000000:
        return -((0x100000000 - a) // b) & 0xFFFFFFFF
    quotient = (0x100000000 - a) // (0x100000000 - b)
    if quotient == 0x80000000:
        raise Trap(TrapKind.INTEGER_OVERFLOW)
    return quotient


def i32_div_u(a: int, b: int) -> int:
    if b:
        return a // b
    _divide_by_zero()


def i32_rem_s(a: int, b: int) -> int:
    if not b:
        _divide_by_zero()
    # The sign is the dividend's, and the divisor's does not matter.
    if b >= 0x80000000:
        b = 0x100000000 - b
    return a % b if a < 0x80000000 else -((0x100000000 - a) % b) & 0xFFFFFFFF


def i32_rem_u(a: int, b: int) -> int:
    if b:
        return a % b
    _divide_by_zero()


def i32_and(a: int, b: int) -> int:
    return a & b


def i32_or(a: int, b: int) -> int:
    return a | b


def i32_xor(a: int, b: int) -> int:
    return a ^ b


def i32_shl(a: int, b: int) -> int:
    return a << b % 32 & 0xFFFFFFFF


def i32_shr_s(a: int, b: int) -> int:
    if a < 0x80000000:
        return a >> b % 32
    return (a - 0x100000000 >> b % 32) + 0x100000000


def i32_shr_u(a: int, b: int) -> int:
    return a >> b % 32


def i32_rotl(a: int, b: int) -> int:
    b %= 32
    return (a << b | a >> 32 - b) & 0xFFFFFFFF


def i32_rotr(a: int, b: int) -> int:
    b %= 32
    return (a >> b | a << 32 - b) & 0xFFFFFFFF


def i32_eqz(a: int) -> int:
    return 0 if a else 1


def i32_eq(a: int, b: int) -> int:
    return 1 if a == b else 0


def i32_ne(a: int, b: int) -> int:
    return 1 if a != b else 0


# Signed comparisons: with equal signs the unsigned order is right, otherwise the sign bit of one decides.


def i32_lt_s(a: int, b: int) -> int:
    if a ^ b < 0x80000000:
        return 1 if a < b else 0
    return a >> 31


def i32_lt_u(a: int, b: int) -> int:
    return 1 if a < b else 0


def i32_gt_s(a: int, b: int) -> int:
    if a ^ b < 0x80000000:
        return 1 if a > b else 0
    return b >> 31


def i32_gt_u(a: int, b: int) -> int:
    return 1 if a > b else 0


def i32_le_s(a: int, b: int) -> int:
    if a ^ b < 0x80000000:
        return 1 if a <= b else 0
    return a >> 31


def i32_le_u(a: int, b: int) -> int:
    return 1 if a <= b else 0


def i32_ge_s(a: int, b: int) -> int:
    if a ^ b < 0x80000000:
        return 1 if a >= b else 0
    return b >> 31


def i32_ge_u(a: int, b: int) -> int:
    return 1 if a >= b else 0


def i32_extend8_s(a: int) -> int:
    a &= 0xFF
    return a if a < 0x80 else a + 0xFFFFFF00


def i32_extend16_s(a: int) -> int:
    a &= 0xFFFF
    return a if a < 0x8000 else a + 0xFFFF0000


def i64_clz(a: int) -> int:
    return 64 - a.bit_length()


def i64_ctz(a: int) -> int:
    return (a & -a).bit_length() - 1 if a else 64


def i64_popcnt(a: int) -> int:
    return a.bit_count()


def i64_add(a: int, b: int) -> int:
    total = a + b
    return total if total <= 0xFFFFFFFFFFFFFFFF else total - 0x10000000000000000


def i64_sub(a: int, b: int) -> int:
    difference = a - b
    return difference if difference >= 0 else difference + 0x10000000000000000


def i64_mul(a: int, b: int) -> int:
    return a * b & 0xFFFFFFFFFFFFFFFF


def i64_div_s(a: int, b: int) -> int:
    if not b:
        _divide_by_zero()
    # `//` rounds down and Wasm rounds towards zero, so each case divides magnitudes.
    if a < 0x8000000000000000:
        return a // b if b < 0x8000000000000000 else -(a // (0x10000000000000000 - b)) & 0xFFFFFFFFFFFFFFFF
    if b < 0x8000000000000000:
        return -((0x10000000000000000 - a) // b) & 0xFFFFFFFFFFFFFFFF
    quotient = (0x10000000000000000 - a) // (0x10000000000000000 - b)
    if quotient == 0x8000000000000000:
        raise Trap(TrapKind.INTEGER_OVERFLOW)
    return quotient


def i64_div_u(a: int, b: int) -> int:
    if b:
        return a // b
    _divide_by_zero()


def i64_rem_s(a: int, b: int) -> int:
    if not b:
        _divide_by_zero()
    # The sign is the dividend's, and the divisor's does not matter.
    if b >= 0x8000000000000000:
        b = 0x10000000000000000 - b
    return a % b if a < 0x8000000000000000 else -((0x10000000000000000 - a) % b) & 0xFFFFFFFFFFFFFFFF


def i64_rem_u(a: int, b: int) -> int:
    if b:
        return a % b
    _divide_by_zero()


def i64_and(a: int, b: int) -> int:
    return a & b


def i64_or(a: int, b: int) -> int:
    return a | b


def i64_xor(a: int, b: int) -> int:
    return a ^ b


def i64_shl(a: int, b: int) -> int:
    return a << b % 64 & 0xFFFFFFFFFFFFFFFF


def i64_shr_s(a: int, b: int) -> int:
    if a < 0x8000000000000000:
        return a >> b % 64
    return (a - 0x10000000000000000 >> b % 64) + 0x10000000000000000


def i64_shr_u(a: int, b: int) -> int:
    return a >> b % 64


def i64_rotl(a: int, b: int) -> int:
    b %= 64
    return (a << b | a >> 64 - b) & 0xFFFFFFFFFFFFFFFF


def i64_rotr(a: int, b: int) -> int:
    b %= 64
    return (a >> b | a << 64 - b) & 0xFFFFFFFFFFFFFFFF


def i64_eqz(a: int) -> int:
    return 0 if a else 1


def i64_eq(a: int, b: int) -> int:
    return 1 if a == b else 0


def i64_ne(a: int, b: int) -> int:
    return 1 if a != b else 0


def i64_lt_s(a: int, b: int) -> int:
    if a ^ b < 0x8000000000000000:
        return 1 if a < b else 0
    return a >> 63


def i64_lt_u(a: int, b: int) -> int:
    return 1 if a < b else 0


def i64_gt_s(a: int, b: int) -> int:
    if a ^ b < 0x8000000000000000:
        return 1 if a > b else 0
    return b >> 63


def i64_gt_u(a: int, b: int) -> int:
    return 1 if a > b else 0


def i64_le_s(a: int, b: int) -> int:
    if a ^ b < 0x8000000000000000:
        return 1 if a <= b else 0
    return a >> 63


def i64_le_u(a: int, b: int) -> int:
    return 1 if a <= b else 0


def i64_ge_s(a: int, b: int) -> int:
    if a ^ b < 0x8000000000000000:
        return 1 if a >= b else 0
    return b >> 63


def i64_ge_u(a: int, b: int) -> int:
    return 1 if a >= b else 0


def i64_extend8_s(a: int) -> int:
    a &= 0xFF
    return a if a < 0x80 else a + 0xFFFFFFFFFFFFFF00


def i64_extend16_s(a: int) -> int:
    a &= 0xFFFF
    return a if a < 0x8000 else a + 0xFFFFFFFFFFFF0000


def i64_extend32_s(a: int) -> int:
    a &= 0xFFFFFFFF
    return a if a < 0x80000000 else a + 0xFFFFFFFF00000000
