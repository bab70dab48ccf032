"""What a case expects against what was seen, as a list of differences in words; empty means equal.

Placeholders in expected texts (`<date>`, `<ms>`, ...) are patterns; `<listener>` and `<upstream>` are the
ports of this run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.replay.cases import Case
from tests.replay.logs import host_line

PATTERNS = {
    "<date>": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
    "<request-id>": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "<ms>": r"\d+",
    "<n>": r"\d+",
    "<port>": r"\d{1,5}",
    "<volatile>": r".*",
}
LONGEST_SHOWN = 300

# Where we mean to differ from Envoy 1.40: property names it has dropped and older filters still read. What is
# expected as "not found" there may be a value here (status 3: one without bytes).
STILL_SERVED = {"cluster_name", "cluster_metadata", "route_name", "route_metadata", "node"}
STILL_SERVED |= {"listener_direction", "listener_metadata", "upstream_host_metadata"}
NOT_FOUND = re.compile(r"prop (?P<name>\w+)(?P<rest>(%00\S+)?) -> 1 \(outputs untouched\)")


@dataclass
class Seen:
    """Everything observed while a case ran, in the golden form."""

    started: bool = False
    startup_log: list[dict[str, str]] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    request_logs: list[list[dict[str, str]]] = field(default_factory=list)
    after_log: list[dict[str, str]] = field(default_factory=list)
    upstream_requests: list[dict[str, Any]] = field(default_factory=list)
    host_errors: list[str] = field(default_factory=list)
    last_line: str = ""
    exit_status: int = 0


class Comparison:
    """Collects differences of one case."""

    def __init__(self, ports: dict[str, int], of_envoy: bool = False) -> None:
        self.ports = ports
        self.of_envoy = of_envoy
        self.differences: list[str] = []

    def matches(self, wanted: str, seen: str) -> bool:
        if "<" not in wanted:
            return wanted == seen
        for name in ("listener", "upstream"):
            wanted = wanted.replace(f"<{name}>", str(self.ports[name]))
        pattern = re.escape(wanted)
        for placeholder, expression in PATTERNS.items():
            pattern = pattern.replace(re.escape(placeholder), expression)
        return re.fullmatch(pattern, seen, re.DOTALL) is not None

    def note(self, where: str, wanted: object, seen: object) -> None:
        self.differences.append(f"{where}: expected {_short(wanted)}, saw {_short(seen)}")

    def value(self, where: str, wanted: object, seen: object) -> None:
        if isinstance(wanted, str) and isinstance(seen, str):
            equal = self.matches(wanted, seen)
        else:
            equal = wanted == seen
        if not equal:
            self.note(where, wanted, seen)

    def lines(self, where: str, wanted: Sequence[dict[str, str]], seen: Sequence[dict[str, str]]) -> None:
        """Guest lines: level, prefix and message, in order. Only the first difference is reported."""
        for index, (want, got) in enumerate(zip(wanted, seen, strict=False)):
            if not self.same_line(want, got):
                self.note(f"{where}, guest line {index}", _line(want), _line(got))
                return
        if len(seen) < len(wanted):
            self.note(f"{where}, guest line {len(seen)}", _line(wanted[len(seen)]), "nothing")
        elif len(seen) > len(wanted):
            self.note(f"{where}, guest line {len(wanted)}", "nothing", _line(seen[len(wanted)]))

    def same_line(self, wanted: dict[str, str], seen: dict[str, str]) -> bool:
        if all(self.matches(wanted[key], seen[key]) for key in ("level", "prefix", "message")):
            return True
        dropped = NOT_FOUND.fullmatch(wanted["message"])
        if self.of_envoy or dropped is None or dropped["name"] not in STILL_SERVED:
            return False
        start = f"prop {dropped['name']}{dropped['rest']} -> "
        return seen["message"].startswith((start + "0 ", start + "3 "))

    def headers(self, where: str, wanted: list[list[str]], seen: list[list[str]]) -> None:
        """Header fields as a multiset; names without regard to case."""
        left = [[name.lower(), value] for name, value in seen]
        missing = []
        for name, value in wanted:
            for candidate in left:
                if candidate[0] == name.lower() and self.matches(value, candidate[1]):
                    left.remove(candidate)
                    break
            else:
                missing.append([name, value])
        if missing or left:
            self.differences.append(f"{where}: missing {_short(missing)}, unexpected {_short(left)}")

    def message(self, where: str, wanted: dict[str, Any], seen: dict[str, Any]) -> None:
        """A request or a response: every key of either side."""
        for key in [*wanted, *(key for key in seen if key not in wanted)]:
            if key in ("headers", "trailers"):
                self.headers(f"{where} {key}", wanted.get(key, []), seen.get(key, []))
            else:
                self.value(f"{where} {key}", wanted.get(key), seen.get(key))


def compare(
    case: Case, expect: dict[str, Any], seen: Seen, ports: dict[str, int], of_envoy: bool = False
) -> list[str]:
    """All differences between `expect` and `seen`; `of_envoy` when the real Envoy was run."""
    report = Comparison(ports, of_envoy)
    report.value("started", expect["started"], seen.started)
    if report.differences:
        report.differences[0] += f" (the proxy's last line: {_short(seen.last_line)})"
        return report.differences
    if case.compare_logs:
        report.lines("start", expect.get("startup_log", seen.startup_log), seen.startup_log)
    if not seen.started:
        report.value("exit status", 1, seen.exit_status)
        if not seen.last_line.endswith(expect["exit_message"]):
            report.note("last line of the process", expect["exit_message"], seen.last_line)
    _counted(report, "responses", expect.get("responses", []), seen.responses)
    for index, (want, got) in enumerate(zip(expect.get("responses", []), seen.responses, strict=False)):
        report.message(f"response {index}", want, got)
    if case.compare_logs:
        for number, (lines, got_lines) in enumerate(
            zip(expect.get("request_logs", []), seen.request_logs, strict=False)
        ):
            report.lines(f"request {number}", lines, got_lines)
        report.lines("afterwards", expect.get("after_log", []), seen.after_log)
    _counted(report, "upstream requests", expect.get("upstream_requests", []), seen.upstream_requests)
    upstream = zip(expect.get("upstream_requests", []), seen.upstream_requests, strict=False)
    for index, (want, got) in enumerate(upstream):
        report.message(f"upstream request {index}", want, got)
    wanted_errors = [host_line(line) for line in expect.get("host_errors", [])]
    seen_errors = [host_line(line) for line in seen.host_errors]
    if wanted_errors != seen_errors:
        report.note("host error lines", wanted_errors, seen_errors)
    return report.differences


def _counted(report: Comparison, what: str, wanted: Sequence[object], seen: Sequence[object]) -> None:
    if len(wanted) != len(seen):
        report.note(f"number of {what}", len(wanted), len(seen))


def _line(line: dict[str, str]) -> str:
    return f"[{line['level']}] {line['prefix']}: {line['message']}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)
    shown = text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + " ..."
    return repr(shown) if isinstance(value, str) else shown
