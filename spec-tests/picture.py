"""The picture of `docs/conformance.md`: a bar per proposal, as SVG written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape

_ROW, _LEFT, _WIDTH, _TOP = 26, 250, 330, 74
_GREEN, _RED, _INK, _FAINT = "#2e8b57", "#c0392b", "#1f2933", "#66727f"


def picture(headline: str, order: Iterable[str], sums: Mapping[str, Counter[str]]) -> str:
    """Bars for the areas in `order` that have `sums`: green is passed, red is failed."""
    rows = [name for name in order if name in sums]
    height = _TOP + _ROW * len(rows) + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="740" height="{height}" viewBox="0 0 740 {height}"'
        ' font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(headline)} assertions of the official suite pass</title>",
        f'<rect width="740" height="{height}" rx="8" fill="#ffffff"/>',
        _text(24, 36, headline, _INK, size=22, weight=700),
        _text(24, 56, "assertions of the official WebAssembly 3.0 core suite pass", _FAINT),
    ]
    for index, name in enumerate(rows):
        counts, y = sums[name], _TOP + index * _ROW
        passed = _WIDTH * counts["passed"] / counts.total()
        out += [
            _text(_LEFT - 12, y + 13, name, _INK, anchor="end"),
            _bar(_LEFT, y, passed, _GREEN),
            _bar(_LEFT + passed, y, _WIDTH - passed, _RED),
            _text(_LEFT + _WIDTH + 12, y + 13, f"{counts['passed']:,} / {counts.total():,}", _FAINT),
        ]
    return "\n".join([*filter(None, out), "</svg>", ""])


def _bar(x: float, y: int, width: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="13" fill="{fill}"/>' if width else ""


def _text(
    x: int, y: int, text: str, fill: str, *, size: int = 12, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{escape(text)}</text>'
    )
