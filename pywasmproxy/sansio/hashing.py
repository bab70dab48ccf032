"""xxHash64, MurmurHash2 and how hashes of several parts of a request become one, as Envoy makes them. Pure.

Source: the specification of xxHash (XXH64). Rings and tables of hosts, and the hashes of requests, are those
of Envoy, so that an Envoy and this proxy in front of the same hosts send a session to the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_routes import HashPolicy, HashSource
from pywasmproxy.sansio.matching import query_of
from pywasmproxy.sansio.router import substitute

_MASK = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _rotl(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotl((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    """The 64-bit hash of some bytes."""
    size, at = len(data), 0
    if size >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at + 32 <= size:
            for index in range(4):
                lanes[index] = _round(lanes[index], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        value = sum(_rotl(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        value = (seed + _P5) & _MASK
    value = (value + size) & _MASK
    while at + 8 <= size:
        value = (
            _rotl(value ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4
        ) & _MASK
        at += 8
    if at + 4 <= size:
        word = int.from_bytes(data[at : at + 4], "little")
        value = (_rotl(value ^ (word * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        value = _rotl(value ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    value = (value ^ value >> 33) * _P2 & _MASK
    value = (value ^ value >> 29) * _P3 & _MASK
    return value ^ value >> 32


_MURMUR, _MURMUR_SHIFT, _MURMUR_SEED = 0xC6A4A7935BD1E995, 47, 0xC70F6907


def murmur64(data: bytes) -> int:
    """MurmurHash2 in its 64-bit form for 64-bit machines, with the seed of GNU's `std::hash`."""
    value = _MURMUR_SEED ^ len(data) * _MURMUR & _MASK
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * _MURMUR & _MASK
        word = (word ^ word >> _MURMUR_SHIFT) * _MURMUR & _MASK
        value = (value ^ word) * _MURMUR & _MASK
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * _MURMUR & _MASK
    value = (value ^ value >> _MURMUR_SHIFT) * _MURMUR & _MASK
    return value ^ value >> _MURMUR_SHIFT


def combined(before: int | None, new: int) -> int:
    """One hash of several, in order."""
    return new if before is None else _rotl(before, 1) ^ new


# --- requests -------------------------------------------------------------------------------------------


def hash_of(
    policies: Sequence[HashPolicy], headers: HeaderMap, source: str, random: Callable[[], int]
) -> tuple[int | None, list[bytes]]:
    """A request's hash (None: nothing of what it is made of is there), and cookies that the client gets.

    `source` is the client's `ip:port`; `random` gives 64 bits for a new cookie.
    """
    found: int | None = None
    cookies: list[bytes] = []
    for policy in policies:
        value = _part(policy, headers, source)
        if value is None and policy.source is HashSource.COOKIE and policy.ttl is not None:
            value = b"%016x" % (random() & _MASK)
            cookies.append(_cookie(policy, policy.ttl, value))
        if value is not None:
            found = combined(found, xxh64(value))
        if found is not None and policy.terminal:
            break
    return found, cookies


def _part(policy: HashPolicy, headers: HeaderMap, source: str) -> bytes | None:
    name = policy.name.encode()
    match policy.source:
        case HashSource.HEADER:
            values = headers.all_bytes(name)
            if not values:
                return None
            if policy.rewrite is not None:
                values = [substitute(policy.rewrite, value) for value in values]
            return b"".join(sorted(values))
        case HashSource.COOKIE:
            return _cookie_of(headers, name)
        case HashSource.SOURCE_IP:
            return source.rpartition(":")[0].strip("[]").encode() or None
        case HashSource.QUERY_PARAMETER:
            return query_of(headers.first(b":path") or b"").get(name)


def _cookie_of(headers: HeaderMap, name: bytes) -> bytes | None:
    for line in headers.all_bytes(b"cookie"):
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if equals and key == name:
                return value.strip(b'"')
    return None


def _cookie(policy: HashPolicy, ttl: float, value: bytes) -> bytes:
    parts = [b'%b="%b"' % (policy.name.encode(), value)]
    if ttl >= 1:
        parts.append(b"Max-Age=%d" % ttl)
    if policy.path:
        parts.append(b"Path=%b" % policy.path.encode())
    return b"; ".join([*parts, b"HttpOnly"])
