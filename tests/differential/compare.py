"""Two observations side by side: the differences, and which of them are meant (`differences.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.differential.differences import ON_PURPOSE, OnPurpose
from tests.differential.observe import Observed

LONGEST_SHOWN = 400
NOTHING = "(nothing)"


@dataclass(frozen=True)
class Difference:
    """One thing that Envoy did in one way and we in another, as text."""

    scene: str
    exchange: str
    what: str
    envoy: str
    ours: str

    @property
    def meant(self) -> OnPurpose | None:
        place = f"{self.scene}:{self.exchange} {self.what}"
        return next((one for one in ON_PURPOSE if one.covers(place, self.envoy, self.ours)), None)

    def __str__(self) -> str:
        sides = f"    Envoy: {_short(self.envoy)}\n    ours:  {_short(self.ours)}"
        return f"{self.scene}:{self.exchange} {self.what}\n{sides}"


def compare(scene: str, envoy: dict[str, Observed], ours: dict[str, Observed]) -> list[Difference]:
    """All differences of a scene, those that are meant among them."""
    found = []
    for exchange in envoy:
        left, right = envoy[exchange], ours[exchange]
        parts = [
            *_message("response", left.response, right.response),
            *_upstream(left.upstream, right.upstream),
            *_lines("guest line", left.guest, right.guest),
            *_lines("host error", left.host, right.host),
        ]
        found += [Difference(scene, exchange, *part) for part in parts]
    return found


Part = tuple[str, str, str]


def _message(where: str, envoy: dict[str, Any], ours: dict[str, Any]) -> Iterable[Part]:
    for key in sorted({*envoy, *ours}):
        left, right = envoy.get(key), ours.get(key)
        if left == right:
            continue
        if key in ("headers", "trailers"):
            only_left = Counter(left or []) - Counter(right or [])
            only_right = Counter(right or []) - Counter(left or [])
            yield f"{where} {key}", "; ".join(only_left.elements()), "; ".join(only_right.elements())
        else:
            yield f"{where} {key}", _text(left), _text(right)


def _upstream(envoy: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> Iterable[Part]:
    if len(envoy) != len(ours):
        yield "number of upstream requests", str(len(envoy)), str(len(ours))
        return
    for number, (left, right) in enumerate(zip(envoy, ours, strict=True)):
        yield from _message(f"upstream request {number}", left, right)


def _lines(what: str, envoy: Sequence[str], ours: Sequence[str]) -> Iterable[Part]:
    """Pairs that differ; only the first one when there are more lines on one side."""
    if len(envoy) != len(ours):
        same = next(
            (n for n, (a, b) in enumerate(zip(envoy, ours, strict=False)) if a != b),
            min(len(envoy), len(ours)),
        )
        yield f"{what} {same} of {len(envoy)}, {len(ours)}", _nth(envoy, same), _nth(ours, same)
        return
    for number, (left, right) in enumerate(zip(envoy, ours, strict=True)):
        if left != right:
            yield f"{what} {number}", left, right


def _nth(lines: Sequence[str], number: int) -> str:
    return lines[number] if number < len(lines) else NOTHING


def _text(value: object) -> str:
    return NOTHING if value is None else str(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ... ({len(text)} characters)"
