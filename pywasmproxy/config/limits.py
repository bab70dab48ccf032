"""Our own limits on guest code: one table with names, units, defaults and meanings.

Envoy has no such limits, so they live where its configuration stays valid: in `node.metadata.pywasmvm` (a
free Struct), and in flags of `serve`. Values are written as people write them: `500ms`, `64MiB`, `75%`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PAGE = 65536
"""Bytes in one page of linear memory (WebAssembly core specification, "Memory Instances")."""

MAX_PAGES = 65536
"""Pages a 32-bit memory can have at most."""

_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE_UNITS = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "k": 1024,
    "m": 1024**2,
    "g": 1024**3,
}
_COUNT_UNITS = {"k": 1000, "m": 1000**2, "g": 1000**3}
_QUANTITY = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?)\s*([a-zA-Z%]*)\s*")
_UNLIMITED = ("unlimited", "none", "off")


class LimitError(ValueError):
    """A limit's name or value that makes no sense; `name` is the key, `suggestion` a better one or None."""

    def __init__(self, name: str, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.suggestion = suggestion


def _quantity(value: object) -> tuple[float, str]:
    """Number and unit (lower case, "" for none) of a human-written quantity; unit "?" if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value, ""
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return 0, "?"
    digits = found[1].replace("_", "")
    return (float(digits) if "." in digits else int(digits)), found[2].lower()


def duration(value: object) -> float:
    """Seconds of `500ms`, `1.5s`, `2m`, `1h`, or of a plain number of seconds. ValueError otherwise."""
    number, unit = _quantity(value)
    if (unit or "s") not in _DURATION_UNITS or not 0 < number < 1e12:
        raise ValueError("a duration above zero, such as 500ms or 2s")
    return number * _DURATION_UNITS[unit or "s"]


def pages(value: object) -> int:
    """Pages of a size (`64MiB`, rounded down) or of a plain number of pages; else ValueError."""
    number, unit = _quantity(value)
    count = number if not unit else number * _SIZE_UNITS.get(unit, 0) // PAGE
    if count != int(count) or not 1 <= count <= MAX_PAGES:
        raise ValueError("a size such as 64MiB (at most 4GiB), or a number of 64 KiB pages")
    return int(count)


def count(value: object) -> int:
    """A whole number above zero; k, M and G stand for thousands, millions, milliards. Else ValueError."""
    number, unit = _quantity(value)
    total = number * _COUNT_UNITS.get(unit, 1 if not unit else 0)
    if total != int(total) or not 1 <= total < 1 << 63:
        raise ValueError("a whole number above zero, such as 5000 or 10M")
    return int(total)


def share(value: object) -> float:
    """A part of a whole: `75%` or `0.75`. ValueError unless it is above 0 and at most 1."""
    number, unit = _quantity(value)
    part = number / 100 if unit == "%" else number
    if unit not in ("", "%") or not 0 < part <= 1:
        raise ValueError("a share such as 75% or 0.75")
    return float(part)


def _limit(default: object, read: Callable[[object], object], meaning: str) -> Any:
    """One row of the table below."""
    return dataclasses.field(default=default, metadata={"read": read, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one VM and one call into it may use. None means unlimited.

    `callback_time` and `callback_fuel` count from zero for each outermost call into the guest. `start_time`
    takes the place of `callback_time` for the calls of the start-up sequence (start section, `_initialize`,
    `proxy_on_vm_start`, `proxy_on_configure`), which run once per VM, before it serves anything.
    """

    callback_time: float | None = _limit(1.0, duration, "seconds one callback may run")
    start_time: float | None = _limit(60.0, duration, "seconds one call of the start-up sequence may run")
    callback_fuel: int | None = _limit(None, count, "units of fuel one callback may burn")
    memory_pages: int | None = _limit(4096, pages, "linear memory of one VM, in pages of 64 KiB")
    table_elements: int | None = _limit(1_000_000, count, "elements in one table of a VM")
    call_depth: int | None = _limit(10_000, count, "nested calls inside a guest")
    recycle_memory_share: float | None = _limit(
        0.75, share, "part of memory_pages beyond which a fresh VM takes over from a leaking one"
    )
    recycle_streams: int | None = _limit(None, count, "streams after which a fresh VM takes over")

    def describe(self) -> list[tuple[str, object, str]]:
        """(name, value, meaning) of every limit, in the table's order."""
        return [(row.name, getattr(self, row.name), row.metadata["meaning"]) for row in _ROWS.values()]


_ROWS = {row.name: row for row in dataclasses.fields(Limits)}


def suggest(name: str, known: Mapping[str, object] | list[str]) -> str | None:
    """The known name closest to a mistyped one, if any is close."""
    folded = {candidate.lower(): candidate for candidate in known}
    cutoff = 0.7 if len(name) > 4 else 0.6  # one wrong letter of three is still close
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def override(limits: Limits, name: str, value: object) -> Limits:
    """A copy of `limits` with one value replaced: a number, a text like `500ms`, or None/"unlimited".

    LimitError for an unknown name (with a suggestion) or a value out of range.
    """
    if name not in _ROWS:
        raise LimitError(name, f"unknown limit {name!r}; known: {', '.join(_ROWS)}", suggest(name, _ROWS))
    if value is None or (isinstance(value, str) and value.strip().lower() in _UNLIMITED):
        return dataclasses.replace(limits, **{name: None})
    try:
        return dataclasses.replace(limits, **{name: _ROWS[name].metadata["read"](value)})
    except ValueError as error:
        raise LimitError(name, f"{name}: expected {error}, found {value!r}") from None
