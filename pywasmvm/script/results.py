"""What came of running a script: one outcome per command, and their sums.

Every command is counted. `passed` counts assertions only, which is the number that suites are compared by;
`failed` counts every command that did not do what it should, so that a module that does not load shows even
when nothing asks for it; `skipped` counts commands that never ran because their process was stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """One command: `reason` says why it failed and is None when it passed.

    `expected` and `found` are the two messages of a malformed or invalid module; they need not agree.
    """

    line: int
    kind: str
    reason: str | None = None
    expected: str | None = None
    found: str | None = None

    @property
    def assertion(self) -> bool:
        """Whether it is one of the `assert_...` commands."""
        return self.kind.startswith("assert_")

    @property
    def agrees(self) -> bool:
        """Whether the message found begins with the one expected; true where messages are not compared."""
        return self.expected is None or (self.found or "").startswith(self.expected)


@dataclass
class Results:
    """The outcomes of one file, summed up.

    `passed_by_kind` and `failed_by_kind` count all kinds of commands, `commands` how many the script has;
    `messages` are those of malformed and invalid modules, `disagreements` the ones among them that differ
    from the suite's. `seconds` is the time it took, `peak_memory` the largest resident size of its process in
    bytes (None where the platform does not tell).
    """

    file: str
    commands: int = 0
    passed_by_kind: Counter[str] = field(default_factory=Counter)
    failed_by_kind: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)
    messages: int = 0
    disagreements: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int | None = None

    def add(self, outcome: Outcome) -> None:
        """Count one command."""
        if outcome.reason is None:
            self.passed_by_kind[outcome.kind] += 1
        else:
            self.failed_by_kind[outcome.kind] += 1
            self.failures.append(outcome)
        if outcome.expected is not None:
            self.messages += 1
            if not outcome.agrees:
                self.disagreements.append(outcome)

    @property
    def passed(self) -> int:
        """Assertions that passed."""
        return sum(count for kind, count in self.passed_by_kind.items() if kind.startswith("assert_"))

    @property
    def failed(self) -> int:
        """Commands that failed, of any kind."""
        return sum(self.failed_by_kind.values())

    @property
    def assertions(self) -> int:
        """Assertions that ran."""
        return self.passed + sum(n for kind, n in self.failed_by_kind.items() if kind.startswith("assert_"))

    @property
    def skipped(self) -> int:
        """Commands that never ran."""
        return self.commands - sum(self.passed_by_kind.values()) - self.failed

    @property
    def ok(self) -> bool:
        """Whether every command ran and did what it should."""
        return not self.failed and not self.skipped

    def to_json(self) -> dict[str, Any]:
        """A record for machines."""
        kinds = sorted({*self.passed_by_kind, *self.failed_by_kind})
        return {
            "file": self.file,
            "passed": self.passed,
            "failed": self.failed,
            "skipped": self.skipped,
            "commands": self.commands,
            "assertions": self.assertions,
            "kinds": {k: {"passed": self.passed_by_kind[k], "failed": self.failed_by_kind[k]} for k in kinds},
            "messages": {"total": self.messages, "agreed": self.messages - len(self.disagreements)},
            "seconds": round(self.seconds, 3),
            "peak_memory": self.peak_memory,
            "failures": [{"line": f.line, "kind": f.kind, "reason": f.reason} for f in self.failures],
            "disagreements": [
                {"line": d.line, "kind": d.kind, "expected": d.expected, "found": d.found}
                for d in self.disagreements
            ],
        }


def totals(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sums over the records of files."""
    files = list(records)
    summed: dict[str, Any] = {
        key: sum(record[key] for record in files)
        for key in ("passed", "failed", "skipped", "commands", "assertions")
    }
    kinds: dict[str, Counter[str]] = {}
    for record in files:
        for kind, counts in record["kinds"].items():
            kinds.setdefault(kind, Counter()).update(counts)
    summed["files"] = len(files)
    summed["kinds"] = {
        kind: {"passed": counts["passed"], "failed": counts["failed"]}
        for kind, counts in sorted(kinds.items())
    }
    summed["messages"] = {
        key: sum(record["messages"][key] for record in files) for key in ("total", "agreed")
    }
    summed["seconds"] = round(sum(record["seconds"] for record in files), 3)
    summed["peak_memory"] = max((record["peak_memory"] or 0 for record in files), default=0) or None
    return summed
