"""`Replies`: where one reply of Redis ends and the next begins. RESP 2, without looking at values.

Source: the Redis serialization protocol. A server is not trusted: length, nesting and numbers have bounds,
and what is no reply is an error.
"""

from __future__ import annotations

MAX_REPLY = 32 << 20
"""Bytes of one reply, as many as an HTTP call's response may have."""

MAX_NESTING = 32
"""Arrays inside of arrays."""

MAX_LINE = 1 << 16
"""Bytes of a status or an error, and of a number."""


class RespError(Exception):
    """The bytes are no reply, or one that is beyond the bounds."""


class Replies:
    """Takes bytes as they come and gives whole replies, each exactly as it came."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._begin = 0  # of the reply that is being looked at
        self._at = 0  # what is before it has been looked at
        self._seen = 0  # no end of line before it
        self._left: list[int] = [1]  # values that are still to come, per array that is open

    @property
    def held(self) -> int:
        """Bytes of a reply that is not complete."""
        return len(self._data)

    def feed(self, data: bytes) -> list[bytes]:
        """The replies that are complete now. RespError."""
        self._data += data
        found = []
        while self._complete():
            found.append(bytes(self._data[self._begin : self._at]))
            self._begin = self._at
            self._left = [1]
        del self._data[: self._begin]
        self._at -= self._begin
        self._seen = max(self._seen - self._begin, 0)
        self._begin = 0
        if len(self._data) > MAX_REPLY:
            raise RespError("a reply is too long")
        return found

    def _complete(self) -> bool:
        """Go on looking; whether `_at` is the end of the reply."""
        data, left = self._data, self._left
        while True:
            while left and left[-1] == 0:
                left.pop()
            if not left:
                return True
            end = data.find(b"\r\n", max(self._at, self._seen))
            if (end if end >= 0 else len(data)) - self._at > MAX_LINE:
                raise RespError("a line is too long")
            if end < 0:
                self._seen = max(self._at, len(data) - 1)
                return False
            kind, line = bytes(data[self._at : self._at + 1]), bytes(data[self._at + 1 : end])
            after = end + 2
            if kind == b"$" and (size := _number(line)) >= 0:
                after += size + 2
            if after - self._begin > MAX_REPLY:
                raise RespError("a reply is too long")
            if after > len(data):
                return False
            if data[after - 2 : after] != b"\r\n":
                raise RespError("text of another length than announced")
            left[-1] -= 1
            if kind == b"*":
                count = _number(line)
                if len(left) > MAX_NESTING:
                    raise RespError("nested too deeply")
                left.append(max(count, 0))
            elif kind == b":":
                _number(line)
            elif kind not in (b"$", b"+", b"-"):
                raise RespError(f"a value of kind {kind!r}")
            self._at = after


def _number(line: bytes) -> int:
    digits = line[1:] if line[:1] in (b"-", b"+") else line
    if not digits.isdigit() or len(digits) > 20:
        raise RespError(f"{line[:20]!r} is no number")
    return int(line)
