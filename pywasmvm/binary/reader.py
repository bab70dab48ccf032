"""A cursor over the bytes of a module: LEB128 numbers, names, vectors (spec: Binary Format, Values).

Every refusal carries the byte offset and starts with the official text.
"""

from __future__ import annotations

from pywasmvm.errors import MalformedError

UNEXPECTED_END = "unexpected end of section or function"


class Reader:
    """Reads `data[pos:end]`; `pos` moves forward. Reading past `end` is malformed."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0, end: int | None = None) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data) if end is None else end

    def fail(self, message: str, at: int | None = None) -> MalformedError:
        """The error to raise, placed at `at` or at the cursor."""
        return MalformedError(message, offset=self.pos if at is None else at)

    @property
    def exhausted(self) -> bool:
        """Whether everything has been read."""
        return self.pos >= self.end

    def byte(self) -> int:
        """One byte."""
        pos = self.pos
        if pos >= self.end:
            raise self.fail(UNEXPECTED_END)
        self.pos = pos + 1
        return self.data[pos]

    def take(self, count: int) -> int:
        """Skip `count` bytes and return where they start."""
        start = self.pos
        if count > self.end - start:
            raise self.fail(UNEXPECTED_END)
        self.pos = start + count
        return start

    def _leb128(self, bits: int, signed: bool) -> int:
        """A LEB128 number of at most `bits` bits, which are 32 or more."""
        start = self.pos
        result = shift = 0
        # Nearly all numbers are short, and what is written in four bytes is never too large or too long.
        for byte in self.data[start : min(start + 4, self.end)]:
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self.pos = start + shift // 7
                return result - (1 << shift) if signed and byte & 0x40 else result
        return self._long_leb128(bits, signed)

    def _long_leb128(self, bits: int, signed: bool) -> int:
        """A LEB128 number of any length.

        One that the end cuts off is read on for its error alone: what is wrong with it anyway is said first.
        """
        start = pos = self.pos
        data = self.data
        result = shift = 0
        while True:
            if pos >= len(data):
                raise self.fail(UNEXPECTED_END, start)
            byte = data[pos]
            pos += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                raise self.fail("integer representation too long", start)
        if signed and result >> (shift - 1):
            result -= 1 << shift
        least, most = (-1 << (bits - 1), 1 << (bits - 1)) if signed else (0, 1 << bits)
        if not least <= result < most:
            raise self.fail("integer too large", start)
        if pos > self.end:
            raise self.fail(UNEXPECTED_END, start)
        self.pos = pos
        return result

    def unsigned(self, bits: int) -> int:
        """An unsigned LEB128 number of at most `bits` bits."""
        return self._leb128(bits, False)

    def signed(self, bits: int) -> int:
        """A signed LEB128 number of at most `bits` bits, as a Python int with its sign."""
        return self._leb128(bits, True)

    def u32(self) -> int:
        """An index, a length, a count."""
        pos = self.pos
        if pos < self.end and (byte := self.data[pos]) < 0x80:
            self.pos = pos + 1
            return byte
        return self.unsigned(32)

    def length(self) -> int:
        """A count of things that take at least one byte each: more than there are bytes is malformed."""
        start = self.pos
        count = self.u32()
        if count > self.end - self.pos:
            raise self.fail(UNEXPECTED_END, start)
        return count

    def name(self) -> str:
        """A length and that many bytes of UTF-8."""
        start = self.pos
        count = self.u32()
        if count > self.end - self.pos:
            raise self.fail("length out of bounds", start)
        start = self.take(count)
        try:
            return self.data[start : start + count].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail("malformed UTF-8 encoding", start + error.start) from None
