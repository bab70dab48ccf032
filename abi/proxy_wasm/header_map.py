"""`HeaderMap`: HTTP fields as filters see them - ordered, multi-valued, case-insensitive, raw bytes kept.

Names are stored lower-case, as Envoy does (pseudo-headers such as `:path` are ordinary entries). The
proxy-wasm calls work on bytes (`*_bytes` and `lines`); the mapping interface for people uses `str`, read
and written as UTF-8 with `surrogateescape`, so that any byte string survives the round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from itertools import takewhile


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _str(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class HeaderMap(MutableMapping[str, str]):
    """An ordered multi-map of header lines.

    `[]` reads the first value, `get_all` every value, `add` appends a line, `set` (and `[]=`) leaves exactly
    one line, moved to the end as Envoy does when it replaces. `len()` counts lines' distinct names, as a
    mapping must; `len(map.lines)` counts lines. Deleting a missing name with `remove` is not an error.
    """

    __slots__ = ("_firsts", "_lines")

    def __init__(self, lines: Iterable[tuple[str | bytes, str | bytes]] = ()) -> None:
        self._lines: list[tuple[bytes, bytes]] = [(_bytes(n).lower(), _bytes(v)) for n, v in lines]
        self._firsts: dict[bytes, bytes] | None = (
            None  # the first value of each name, once that was asked for
        )

    @classmethod
    def adopt(cls, lines: list[tuple[bytes, bytes]]) -> HeaderMap:
        """A map of lines whose names are lower-case already; the list becomes the map's own. For parsers."""
        made = cls.__new__(cls)
        made._lines = lines
        made._firsts = None
        return made

    @property
    def lines(self) -> list[tuple[bytes, bytes]]:
        """All lines in order as `(lower-case name, value)`; a copy."""
        return self._lines.copy()

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The lines but pseudo-headers; a new list."""
        return [line for line in self._lines if line[0][:1] != b":"]

    @property
    def line_count(self) -> int:
        """How many lines there are (the `n` of the headers callbacks)."""
        return len(self._lines)

    @property
    def byte_size(self) -> int:
        """Sum of the lengths of all names and values (what `proxy_get_header_map_size` answers)."""
        return sum(len(n) + len(v) for n, v in self._lines)

    @property
    def firsts(self) -> Mapping[bytes, bytes]:
        """The first value of each name (lower-case), in no order; good until the map is changed."""
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = dict(reversed(self._lines))
        return firsts

    def replace_all(self, lines: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        """Make these lines the whole content."""
        self._firsts = None
        self._lines = [
            (n.lower(), v) if type(n) is bytes and type(v) is bytes else (_bytes(n).lower(), _bytes(v))
            for n, v in lines
        ]

    def adopt_all(self, lines: list[tuple[bytes, bytes]]) -> None:
        """The same with lines whose names are lower-case already; the list becomes the map's own."""
        self._firsts = None
        self._lines = lines

    def copy(self) -> HeaderMap:
        """An independent map with the same lines."""
        return HeaderMap.adopt(self._lines.copy())

    def first(self, name: str | bytes) -> bytes | None:
        """The first value of a name as bytes; None when there is none."""
        key = name.lower() if type(name) is bytes else _bytes(name).lower()
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = dict(reversed(self._lines))
        return firsts.get(key)

    def all_bytes(self, name: str | bytes) -> list[bytes]:
        """Every value of a name, in order."""
        key = _bytes(name).lower()
        return [v for n, v in self._lines if n == key]

    def get_all(self, name: str | bytes) -> list[str]:
        """Every value of a name, in order, as text."""
        return [_str(v) for v in self.all_bytes(name)]

    def add(self, name: str | bytes, value: str | bytes) -> None:
        """Append a line; other lines of the same name stay.

        Pseudo-headers (`:path`) stay in front of all others, as HTTP/2 wants and Envoy does: a new one goes
        behind the last of them.
        """
        line = (_bytes(name).lower(), _bytes(value))
        if line[0][:1] == b":":
            at = sum(1 for _ in takewhile(lambda present: present[0][:1] == b":", self._lines))
            self._lines.insert(at, line)
            self._firsts = None
        else:
            self._lines.append(line)
            if self._firsts is not None:
                self._firsts.setdefault(*line)

    def set(self, name: str | bytes, value: str | bytes) -> None:
        """Leave one line with this name, at the end."""
        self.remove(name)
        self.add(name, value)

    def set_in_place(self, name: str | bytes, value: str | bytes) -> None:
        """Leave one line with this name where its first line stood (at the end when there was none)."""
        key = name.lower() if type(name) is bytes else _bytes(name).lower()
        new = value if type(value) is bytes else _bytes(value)
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = dict(reversed(self._lines))
        if key not in firsts:
            self._lines.append((key, new))
        else:
            at = next(place for place, line in enumerate(self._lines) if line[0] == key)
            rest = [line for line in self._lines[at + 1 :] if line[0] != key]
            self._lines[at:] = [(key, new), *rest]
        firsts[key] = new

    def remove(self, name: str | bytes) -> int:
        """Remove every line of a name; how many there were."""
        key = name.lower() if type(name) is bytes else _bytes(name).lower()
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = dict(reversed(self._lines))
        if firsts.pop(key, None) is None:
            return 0
        before = len(self._lines)
        self._lines = [line for line in self._lines if line[0] != key]
        return before - len(self._lines)

    def __getitem__(self, name: str) -> str:
        value = self.first(name)
        if value is None:
            raise KeyError(name)
        return _str(value)

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if not self.remove(name):
            raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str | bytes) and self.first(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (_str(n) for n in dict.fromkeys(n for n, _ in self._lines))

    def __len__(self) -> int:
        return len({n for n, _ in self._lines})

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeaderMap) and self._lines == other._lines

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable; typeshed wants a method

    def __repr__(self) -> str:
        return f"HeaderMap({[(_str(n), _str(v)) for n, v in self._lines]!r})"
