"""Files that commands read: modules in either format, and the place in a text that an error is about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywasmvm.errors import InvalidError, MalformedError
    from pywasmvm.syntax import ModuleSyntax

#: The part of a line that is shown: minified text may have no line ends at all.
_WIDTH = 100


def read_syntax(path: str) -> ModuleSyntax:
    """The module in a `.wasm` or `.wat` file, not validated. Raises MalformedError, OSError."""
    from pywasmvm.binary.decode import decode
    from pywasmvm.module import is_text
    from pywasmvm.text.parser import parse_module

    data = Path(path).read_bytes()
    return parse_module(data) if path.endswith(".wat") or is_text(data[:4]) else decode(data)


def describe(path: str, error: MalformedError | InvalidError, kind: str = "") -> str:
    """The error for people: file, message and place; of a text also the line, with a caret."""
    message = f"{path}: {kind}{error}"
    if error.line is None or error.column is None:
        return message
    from pywasmvm.text.lexer import caret

    try:
        shown, below = caret(Path(path).read_bytes(), error.line, error.column).split("\n")
    except OSError:
        return message
    first = max(0, error.column - 1 - _WIDTH // 2)
    return f"{message}\n  {shown[first : first + _WIDTH].rstrip()}\n  {below[first:]}"


def write(path: str | None, data: bytes) -> None:
    """Write a result to a file, or to standard output if there is none. Raises OSError."""
    if path is None or path == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        Path(path).write_bytes(data)
