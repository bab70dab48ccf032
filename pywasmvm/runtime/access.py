"""Loads and stores: one function for each kind of access (spec: Execution, Memory Instructions).

They work on a memory's `u8` view and an effective address, which is never negative: operands are unsigned and
offsets are added without wrapping. Outside of the view they raise IndexError or struct.error (OverflowError
for addresses beyond what Python can count), which the engines turn into the guest's trap.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pywasmvm.isa.opcode import Access
from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits
from pywasmvm.types import V128

View = memoryview
Load = Callable[[View, int], Any]
Store_ = Callable[[View, int, Any], None]

_UNPACK = {code: struct.Struct("<" + code).unpack_from for code in "BHIQbhid"}
_PACK = {code: struct.Struct("<" + code).pack_into for code in "BHIQfd"}
_unpack_f32 = struct.Struct("<f").unpack_from
_unpack_u32 = _UNPACK["I"]
_pack_u32 = _PACK["I"]
_pack_f32 = _PACK["f"]

_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SIGNED = {1: "b", 2: "h", 4: "i"}


def load_f32(view: View, address: int) -> float:
    """f32.load: a NaN that is not the canonical one keeps its bits."""
    value: float = _unpack_f32(view, address)[0]
    # Widening a signalling NaN would quieten it: take its bits instead.
    return value if value == value else f32_from_bits(_unpack_u32(view, address)[0])


def store_f32(view: View, address: int, value: float) -> None:
    """f32.store."""
    if value == value:
        _pack_f32(view, address, value)
    else:
        _pack_u32(view, address, f32_to_bits(value))


# -- vectors -----------------------------------------------------------------------------------------------

_two_halves = struct.Struct("<QQ")


def _load_v128(view: View, address: int) -> int:
    low, high = _two_halves.unpack_from(view, address)
    return int(low | high << 64)


def _store_v128(view: View, address: int, value: int) -> None:
    _two_halves.pack_into(view, address, value & 0xFFFF_FFFF_FFFF_FFFF, value >> 64)


#: Struct letters of lanes by their width in bytes.
_LANES = {1: "b", 2: "h", 4: "i", 8: "q"}


def _extending(kind: str) -> Load:
    """Eight bytes as lanes of half the width they get, such as `s8x8`."""
    width, _, count = kind[1:].partition("x")
    letter, wider = _LANES[int(width) // 8], _LANES[int(width) // 4]
    if kind[0] == "u":
        letter, wider = letter.upper(), wider.upper()
    unpack = struct.Struct(f"<{count}{letter}").unpack_from
    pack = struct.Struct(f"<{count}{wider}").pack
    return lambda view, address: int.from_bytes(pack(*unpack(view, address)), "little")


def _vector_load(access: Access) -> Load:
    kind, size = access.kind, access.size
    if kind == "v128":
        return _load_v128
    if "x" in kind:
        return _extending(kind)
    if kind.startswith("splat"):
        read = _UNPACK[_UNSIGNED[size]]
        ones = sum(1 << bit for bit in range(0, 128, 8 * size))
        return lambda view, address: read(view, address)[0] * ones
    if kind.startswith("zero"):  # the other lanes are
        read = _UNPACK[_UNSIGNED[size]]
        return lambda view, address: read(view, address)[0]
    raise LookupError(f"{kind} is not a load of a whole vector")


def lane_load_function(access: Access) -> Callable[[View, int, int, int], int]:
    """How a load replaces one lane: view, address, vector and lane to the new vector."""
    read, bits = _UNPACK[_UNSIGNED[access.size]], 8 * access.size
    mask = (1 << bits) - 1

    def load(view: View, address: int, vector: int, lane: int) -> int:
        shift = lane * bits
        value: int = read(view, address)[0]
        return vector & ~(mask << shift) | value << shift

    return load


def lane_store_function(access: Access) -> Callable[[View, int, int, int], None]:
    """How one lane is stored: view, address, vector and lane."""
    pack, bits = _PACK[_UNSIGNED[access.size]], 8 * access.size
    mask = (1 << bits) - 1

    def store(view: View, address: int, vector: int, lane: int) -> None:
        pack(view, address, vector >> lane * bits & mask)

    return store


# -- the functions of an access ----------------------------------------------------------------------------


def unpacker(access: Access) -> Callable[[View, int], tuple[Any, ...]] | None:
    """The `unpack_from` whose only item is the loaded value, for accesses that need nothing more."""
    if access.kind[0] == "u" and access.type is not V128:
        return _UNPACK[_UNSIGNED[access.size]]
    return _UNPACK["d"] if access.kind == "f64" else None


def packer(access: Access) -> Callable[[View, int, Any], None] | None:
    """The `pack_into` that stores a canonical value, for accesses that need nothing more."""
    if access.kind == "f64":
        return _PACK["d"]
    full = access.kind[0] == "u" and access.size * 8 == access.type.bits
    return _PACK[_UNSIGNED[access.size]] if full else None


def raw_unpacker(access: Access) -> Callable[[View, int], tuple[Any, ...]]:
    """The `unpack_from` that reads a number as its kind says: `s8` gives a negative one as such, and an f32's
    NaN loses its bits. For the translator, which sees to the rest itself.
    """
    kind = access.kind
    if kind[0] == "f":
        return _unpack_f32 if kind == "f32" else _UNPACK["d"]
    return _UNPACK[(_SIGNED if kind[0] == "s" else _UNSIGNED)[access.size]]


def raw_packer(access: Access) -> Callable[[View, int, Any], None]:
    """The `pack_into` for a value that fits."""
    if access.kind[0] == "f":
        return _pack_f32 if access.kind == "f32" else _PACK["d"]
    return _PACK[_UNSIGNED[access.size]]


def load_function(access: Access) -> Load:
    """How this access reads a canonical value. Raises LookupError for one of a single lane."""
    if access.kind == "f32":
        return load_f32
    if access.type is V128:
        return _vector_load(access)
    found = unpacker(access)
    if found is not None:
        unpack = found
        return lambda view, address: unpack(view, address)[0]
    signed, mask = _UNPACK[_SIGNED[access.size]], (1 << access.type.bits) - 1
    return lambda view, address: signed(view, address)[0] & mask


def store_function(access: Access) -> Store_:
    """How this access writes a canonical value: narrow integer stores drop the high bits.

    Raises LookupError for an access of a single lane.
    """
    if access.kind == "f32":
        return store_f32
    if access.type is V128:
        if access.kind != "v128":
            raise LookupError(f"{access.kind} is not a store of a whole vector")
        return _store_v128
    found = packer(access)
    if found is not None:
        return found
    pack, mask = _PACK[_UNSIGNED[access.size]], (1 << (8 * access.size)) - 1
    return lambda view, address, value: pack(view, address, value & mask)
