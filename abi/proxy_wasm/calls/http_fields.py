"""Header and trailer maps: get, set, add, replace, remove, size.

Source: proxy-wasm specification 0.2.1, "HTTP fields". Which map can be read or changed when is the
context's business (`contexts.py`); joining of single-value headers is as measured on Envoy 1.40.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, Bytes, OutBytes, OutU32, proxy_call
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.single_value import SINGLE_VALUE
from abi.proxy_wasm.types import MapType, Status
from abi.proxy_wasm.wire import decode_map, encode_map

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm

LAST = MapType.HTTP_CALL_RESPONSE_TRAILERS

MAX_FIELDS = 1 << 20
"""Most that one map may hold, as HTTP/2 counts it: all names and values, and `LINE_COST` for every line. Far
above what any proxy accepts; it keeps a guest that adds in a loop from taking the host's memory."""

LINE_COST = 32


def _has_room(fields: HeaderMap, name: bytes, value: bytes) -> bool:
    used = fields.byte_size + LINE_COST * fields.line_count
    return used + len(name) + len(value) + LINE_COST <= MAX_FIELDS


def _key(map_type: int, name: bytes) -> bytes:
    """The name a map stores: lower case, and `:authority` for a request's `host`."""
    name = name.lower()
    return b":authority" if name == b"host" and map_type == MapType.HTTP_REQUEST_HEADERS else name


def clean(text: bytes) -> bool:
    """Whether a name or value can stand on the wire: CR, LF and NUL would start another field (or worse).

    Envoy passes them through; refusing is our documented difference.
    """
    return not (b"\r" in text or b"\n" in text or b"\0" in text)


def _add(fields: HeaderMap, map_type: int, name: bytes, value: bytes) -> None:
    key = _key(map_type, name)
    present = fields.first(key) if key in SINGLE_VALUE[map_type] else None
    if present is None:
        fields.add(key, value)
    else:
        fields.set_in_place(key, present + b"," + value)


def joined_map(map_type: int, lines: list[tuple[bytes, bytes]]) -> HeaderMap:
    """Lines that a guest gives as a whole, as the map of a message stores them."""
    fields = HeaderMap()
    for name, value in lines:
        _add(fields, map_type, name, value)
    return fields


@proxy_call
def proxy_get_header_map_size(vm: Vm, map_type: U32) -> Status | OutU32:
    """Bytes of all names and values; only for a map that can be changed now."""
    if map_type > LAST:
        return Status.BAD_ARGUMENT
    fields = vm.active.writable_map(map_type, create=False)
    return Status.BAD_ARGUMENT if fields is None else fields.byte_size


@proxy_call
def proxy_get_header_map_pairs(vm: Vm, map_type: U32) -> Status | OutBytes:
    """All lines in order, serialized; nothing when the map is empty or not available."""
    if map_type > LAST:
        return Status.BAD_ARGUMENT
    fields = vm.active.readable_map(map_type)
    return encode_map(fields.lines) if fields else b""


@proxy_call
def proxy_set_header_map_pairs(vm: Vm, map_type: U32, pairs: Bytes) -> Status:
    """Replace everything, pseudo-headers included; undecodable input is the empty map."""
    if map_type > LAST:
        return Status.BAD_ARGUMENT
    fields = vm.active.writable_map(map_type)
    if fields is None:
        return Status.BAD_ARGUMENT
    lines = decode_map(pairs)
    if not all(clean(name) and clean(value) for name, value in lines):
        return Status.BAD_ARGUMENT
    fields.replace_all(())
    for name, value in lines:
        _add(fields, map_type, name, value)
    return Status.OK


@proxy_call
def proxy_get_header_map_value(vm: Vm, map_type: U32, name: Bytes) -> Status | OutBytes:
    """The first value of a name. A missing one is NOT_FOUND, or the empty value for 0.1.0 guests."""
    if map_type > LAST:
        return Status.BAD_ARGUMENT
    fields = vm.active.readable_map(map_type)
    if fields is None and not vm.active.in_log:
        return Status.BAD_ARGUMENT
    value = None if fields is None else fields.first(_key(map_type, name))
    if value is not None:
        return value
    return b"" if vm.version.missing_header_is_empty else Status.NOT_FOUND


@proxy_call
def proxy_add_header_map_value(vm: Vm, map_type: U32, name: Bytes, value: Bytes) -> Status:
    """Append a line; a header that can only have one line gets the value joined to it."""
    if map_type > LAST or not clean(name) or not clean(value):
        return Status.BAD_ARGUMENT
    fields = vm.active.writable_map(map_type)
    if fields is None:
        return Status.BAD_ARGUMENT
    if not _has_room(fields, name, value):
        return Status.INTERNAL_FAILURE
    _add(fields, map_type, name, value)
    return Status.OK


@proxy_call
def proxy_replace_header_map_value(vm: Vm, map_type: U32, name: Bytes, value: Bytes) -> Status:
    """Leave one line with this name, at the end; add it when there was none."""
    if map_type > LAST or not clean(name) or not clean(value):
        return Status.BAD_ARGUMENT
    fields = vm.active.writable_map(map_type)
    if fields is None:
        return Status.BAD_ARGUMENT
    if not _has_room(fields, name, value):
        return Status.INTERNAL_FAILURE
    fields.set(_key(map_type, name), value)
    return Status.OK


@proxy_call
def proxy_remove_header_map_value(vm: Vm, map_type: U32, name: Bytes) -> Status:
    """Remove all lines with this name; fine when there is none."""
    if map_type > LAST:
        return Status.BAD_ARGUMENT
    fields = vm.active.writable_map(map_type, create=False)
    if fields is None:
        return Status.BAD_ARGUMENT
    fields.remove(_key(map_type, name))
    return Status.OK
