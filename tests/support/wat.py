"""Text to binary for tests: `wat` with our own parser and encoder, `assembled` with an independent tool.

Results are kept for the life of the process: many tests share a module.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from pywasmvm.binary.encode import encode
from pywasmvm.text.parser import parse_module


@functools.cache
def wat(text: str) -> bytes:
    """Encode one `(module ...)` given as text. Raises MalformedError."""
    return encode(parse_module(text))


def wasm_tools() -> str:
    """Path of the `wasm-tools` program that the `dev` extra installs beside this interpreter."""
    beside = Path(sys.executable).parent / "wasm-tools"
    found = str(beside) if beside.exists() else shutil.which("wasm-tools")
    if found is None:
        raise RuntimeError("wasm-tools is missing: install the `dev` extra (`make test` does)")
    return found


@functools.cache
def assembled(text: str) -> bytes:
    """What `wasm-tools parse` makes of one `(module ...)`. Raises ValueError with the tool's own message."""
    done = subprocess.run([wasm_tools(), "parse", "-"], input=text.encode(), capture_output=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.decode(errors="replace"))
    return done.stdout
