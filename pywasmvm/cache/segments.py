"""Tens of thousands of data segments, as Go links them, as three arrays and one piece of memory."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from pywasmvm.cache.entry import Segments, clock

if TYPE_CHECKING:
    from pywasmvm.cache.entry import Entry
    from pywasmvm.syntax import DataSegments

#: Fewer segments are written one by one.
MANY = 1000

#: What lies between the segments may make so many times their own size.
_SPREAD = 4


def columns(segments: Segments | None) -> DataSegments | None:
    """The segments as the decoder would find them."""
    if segments is None:
        return None
    from pywasmvm.syntax import DataSegments

    offset = _numbers(segments.offset)
    start, length = _numbers(segments.start), _numbers(segments.length)
    return DataSegments([0] * len(offset), [*offset], start, length)


def image(data: DataSegments, source: bytes, cache: Entry | None) -> tuple[int, bytes] | None:
    """What many segments put into memory 0, in their order, which must be all zero there: the first address,
    and the bytes from there on. None where they are few, elsewhere, far apart, or not at constant addresses.
    """
    if len(data) < MANY:
        return None
    known = None if cache is None else cache.segments
    if known is not None:
        return (known.base, known.image) if known.image else None
    begin = clock()
    offsets = [offset for offset in data.offset if isinstance(offset, int)]
    if set(data.memory) != {0} or len(offsets) != len(data):
        return None
    base = min(offsets)
    size = max(map(int.__add__, offsets, data.length)) - base
    whole = bytearray(size if size <= _SPREAD * sum(data.length) else 0)
    if whole:
        view = memoryview(source)
        for offset, start, length in zip(offsets, data.start, data.length, strict=True):
            whole[offset - base : offset - base + length] = view[start : start + length]
    made = bytes(whole)
    if cache is not None:
        cache.keep_segments(
            Segments(_words(offsets), _words(data.start), _words(data.length), base, made), clock() - begin
        )
    return (base, made) if made else None


def _words(numbers: list[int]) -> bytes:
    return array("I", numbers).tobytes()


def _numbers(words: bytes) -> list[int]:
    return array("I", words).tolist()
