"""What we say of a binary, and what the reference says."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from pywasmvm import InvalidError, MalformedError, Module
from tests.support.wat import wasm_tools

#: Where we refuse on purpose what the reference accepts, or the other way round: implementation limits, which
#: the specification allows (its appendix on implementation limitations), by a part of either side's message.
LIMITS: dict[str, str] = {
    "too many locals: more than": "the number of locals of a function",
    "array.new_fixed of": "the operands of one array.new_fixed",
    "parameters, results or fields: more than": "the size of a type",
    "operands on the stack": "the height of the operand stack",
    "types above each other": "the depth of a type hierarchy",
}

#: The same for what the reference says.
REFERENCE_LIMITS: dict[str, str] = {
    "count exceeds limit": "the number of things in a section",
    "count of": "the number of things in a section",
    "too many locals": "the number of locals of a function",
    "function body size": "the size of a function body",
    "effective type size exceeds the limit": "the size of a type",
    "subtype depth exceeds": "the depth of a type hierarchy",
    "string size out of bounds": "the length of a name",
    "out-of-bounds": "the size of a vector",
    "data segments count of": "the number of data segments",
    "br_table targets": "the number of targets of one br_table",
    "exceeds limit of": "a count",
    "exceed the limit of": "a count",
    "exceeds the maximum": "a count",
}


def ours(data: bytes) -> tuple[str, str]:
    """`valid`, `malformed` or `invalid`, and the message. Any other exception goes through: it is a bug."""
    try:
        Module(data)
    except MalformedError as error:
        # A damaged first byte may make it a text, whose errors have lines.
        if error.line is None and (error.offset is None or not 0 <= error.offset <= len(data)):
            raise AssertionError(f"no place in {error!r}") from error
        return "malformed", str(error)
    except InvalidError as error:
        return "invalid", str(error)
    return "valid", ""


def reference(data: bytes) -> tuple[bool, str]:
    """Whether `wasm-tools validate --features=wasm3` accepts the bytes, and what it says.

    Its set of 3.0 includes threads, which the specification of 3.0 does not: they are switched off.
    """
    with tempfile.NamedTemporaryFile(suffix=".wasm") as file:
        Path(file.name).write_bytes(data)
        done = subprocess.run(
            [wasm_tools(), "validate", "--features=wasm3,-threads", file.name], capture_output=True, text=True
        )
    return done.returncode == 0, done.stderr


def differs(mine: tuple[str, str], other: tuple[bool, str]) -> bool:
    """Whether the verdicts are apart, and not for a limit of an implementation."""
    if (mine[0] == "valid") == other[0]:
        return False
    return not any(part in mine[1] for part in LIMITS) and not any(
        part in other[1] for part in REFERENCE_LIMITS
    )
