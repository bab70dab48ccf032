"""A proxy's log as records: guest lines (`wasm log PREFIX: TEXT`) and the host's own error lines.

One format for Envoy and for us: `[time][thread][level][component] [source] text`; a line without that header
continues the message before it. Also the one table of the runtimes' different words for the same trap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADER = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\]\[(?P<thread>\d+)\]\[(?P<level>\w+)\]\[(?P<component>\w+)\] "
    r"(?:\[[^\]]*\] )?(?P<text>.*)",
    re.DOTALL,
)
GUEST = re.compile(r"wasm log(?: (?P<prefix>[^:]*))?: (?P<message>.*)", re.DOTALL)
LEVELS = {"warning": "warn"}  # the log's word, the golden files' word
ERRORS = {"warn", "error", "critical"}

# V8's words for a trap, and those that every other runtime takes from the specification's test-suite.
# Host error lines are compared after this table was applied to both sides; nothing else may differ.
SAME_TRAP = {
    "Uncaught RuntimeError: unreachable": "unreachable",
    "Uncaught RuntimeError: memory access out of bounds": "out of bounds memory access",
    "Uncaught RuntimeError: divide by zero": "integer divide by zero",
    "Uncaught RuntimeError: remainder by zero": "integer divide by zero",
    "Uncaught RuntimeError: table index is out of bounds": "undefined element",
    "Uncaught RuntimeError: null function or function signature mismatch": "indirect call type mismatch",
    "Uncaught RangeError: Maximum call stack size exceeded": "call stack exhausted",
    "Uncaught Error: restricted_callback": "restricted_callback",
}


@dataclass(frozen=True)
class Record:
    """One log message: `message` may have several lines."""

    thread: str
    level: str
    component: str
    message: str
    guest: bool = False
    prefix: str = ""

    @property
    def golden(self) -> dict[str, str]:
        return {"level": self.level, "prefix": self.prefix, "message": self.message}

    @property
    def is_host_error(self) -> bool:
        return not self.guest and self.component == "wasm" and self.level in ERRORS


def parse(message: str) -> Record | None:
    """A whole message, continuation lines joined; None when it is no log line (something printed raw)."""
    header = HEADER.match(message)
    if header is None:
        return None
    found, component = header["text"], header["component"]
    level = LEVELS.get(header["level"], header["level"])
    guest = GUEST.fullmatch(found) if component == "wasm" else None
    if guest is None:
        return Record(header["thread"], level, component, found)
    prefix = guest["prefix"] or ""
    return Record(header["thread"], level, component, guest["message"], True, prefix)


def host_line(message: str) -> str:
    """First line of a host error, with the runtime's own words replaced by the common ones."""
    line = message.split("\n", 1)[0]
    for v8, common in SAME_TRAP.items():
        line = line.replace(v8, common)
    return line
