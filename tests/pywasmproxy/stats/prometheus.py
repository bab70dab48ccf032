"""A strict reader of Prometheus' text format 0.0.4: what it does not allow is an error."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram)")
_SAMPLE = re.compile(rf"({_NAME})\{{(.*)\}} (-?[0-9]+(?:\.[0-9]+)?|\+Inf|NaN)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')


@dataclass
class Family:
    """All samples of one name."""

    kind: str
    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)


def labels_of(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    while text:
        match = _LABEL.match(text)
        assert match is not None, text
        assert match[1] not in found, text
        found[match[1]] = match[2]
        text = text[match.end() :]
        assert match[3] == "" or text, "a comma at the end"
    return found


def parse(text: str) -> dict[str, Family]:
    """Families by name. Each has one type line, its samples follow it, and no two are the same."""
    assert text == "" or text.endswith("\n")
    families: dict[str, Family] = {}
    current = ""
    seen: set[object] = set()
    for line in text.splitlines():
        if (found := _TYPE.fullmatch(line)) is not None:
            assert found[1] not in families, f"{found[1]} twice"
            current = found[1]
            families[current] = Family(found[2])
            continue
        match = _SAMPLE.fullmatch(line)
        assert match is not None, line
        family = families[current]
        ends = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        assert match[1] in [current + end for end in ends], line
        labels = labels_of(match[2])
        identity = (match[1], frozenset(labels.items()))
        assert identity not in seen, line
        seen.add(identity)
        family.samples.append((match[1], labels, float(match[3])))
    for name, family in families.items():
        assert family.samples, name
        if family.kind == "histogram":
            _check_histogram(name, family)
    return families


def _check_histogram(name: str, family: Family) -> None:
    """Buckets go up, and the last one, `+Inf`, has all."""
    groups: dict[object, dict[str, float]] = {}
    for sample, labels, value in family.samples:
        rest = frozenset((key, one) for key, one in labels.items() if key != "le")
        group = groups.setdefault(rest, {})
        group[f"le {labels['le']}" if "le" in labels else sample.removeprefix(name)] = value
    for group in groups.values():
        buckets = [value for key, value in group.items() if key.startswith("le ")]
        assert buckets == sorted(buckets), name
        assert group["le +Inf"] == group["_count"] == buckets[-1], name
        assert "_sum" in group
