"""The exception tree: one class per kind of failure the specification tells apart.

    WasmError
    |- MalformedError    bytes or text are not a module         (spec: Binary Format, Text Format)
    |- InvalidError      a typing rule is broken                (spec: Validation)
    |- LinkError         an import is missing or mismatched     (spec: Execution, Instantiation)
    |- SnapshotError     a snapshot cannot be taken, or does not fit
    |- Trap              execution stopped                      (spec: Execution)
    |  `- Exhaustion     a resource ran out
    `- WasmException     a Wasm exception nobody caught         (spec: Execution, Exceptions)

Every message begins with the text the official test suite expects for that failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class WasmError(Exception):
    """Anything that goes wrong with a WebAssembly module."""


class MalformedError(WasmError):
    """The bytes (or the text) are not a module.

    `offset` counts bytes from the start of the binary; `line` and `column` (from 1) belong to text. Those
    that do not apply are None.
    """

    def __init__(
        self, message: str, offset: int | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        self.message, self.offset, self.line, self.column = message, offset, line, column
        place = "" if offset is None else f" (at offset {offset:#x})"
        if line is not None:
            place = f" (line {line}, column {column})"
        super().__init__(message + place)


class InvalidError(WasmError):
    """A validation rule is broken.

    `function` is the index in the function index space (None for module-level rules), `offset` the byte
    offset of the instruction in the module (in the text of a module in text form, which then also has `line`
    and `column`, from 1), `instruction` its text name.
    """

    def __init__(
        self,
        message: str,
        function: int | None = None,
        offset: int | None = None,
        instruction: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        self.message, self.function, self.offset, self.instruction = message, function, offset, instruction
        self.line, self.column = line, column
        parts = [f"function {function}"] if function is not None else []
        if line is not None:
            parts.append(f"line {line}, column {column}")
        elif offset is not None:
            parts.append(f"offset {offset:#x}")
        if instruction is not None:
            parts.append(instruction)
        super().__init__(message + (f" ({', '.join(parts)})" if parts else ""))


class LinkError(WasmError):
    """An import cannot be satisfied. `expected` is what the module asks for, `found` what was offered."""

    def __init__(
        self,
        message: str,
        module: str | None = None,
        name: str | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        self.message, self.module, self.name = message, module, name
        self.expected, self.found = expected, found
        text = message
        if module is not None:
            text += f": {module}.{name}"
        if expected is not None:
            text += f" (the module wants {expected}" + (f", found {found})" if found is not None else ")")
        super().__init__(text)


class SnapshotError(WasmError):
    """A snapshot cannot be taken, or brought back; the message says what is in the way, and where."""


class TrapKind(Enum):
    """Why execution stopped. The value is the official message; the last group is ours."""

    UNREACHABLE = "unreachable"
    INTEGER_DIVIDE_BY_ZERO = "integer divide by zero"
    INTEGER_OVERFLOW = "integer overflow"
    INVALID_CONVERSION = "invalid conversion to integer"
    OUT_OF_BOUNDS_MEMORY_ACCESS = "out of bounds memory access"
    OUT_OF_BOUNDS_TABLE_ACCESS = "out of bounds table access"
    UNDEFINED_ELEMENT = "undefined element"
    UNINITIALIZED_ELEMENT = "uninitialized element"
    INDIRECT_CALL_TYPE_MISMATCH = "indirect call type mismatch"
    NULL_REFERENCE = "null reference"
    NULL_FUNCTION_REFERENCE = "null function reference"
    NULL_STRUCTURE_REFERENCE = "null structure reference"
    NULL_ARRAY_REFERENCE = "null array reference"
    NULL_I31_REFERENCE = "null i31 reference"
    NULL_EXCEPTION_REFERENCE = "null exception reference"
    OUT_OF_BOUNDS_ARRAY_ACCESS = "out of bounds array access"
    CAST_FAILURE = "cast failure"

    CALL_STACK_EXHAUSTED = "call stack exhausted"
    ALLOCATION_TOO_LARGE = "allocation size too large"
    OUT_OF_FUEL = "out of fuel"
    DEADLINE_EXCEEDED = "deadline exceeded"

    UNKNOWN_IMPORT = "unknown import called"


@dataclass(frozen=True, slots=True)
class Frame:
    """One level of a wasm backtrace.

    `index` is the function index in its module, `offset` the byte offset of the instruction in the module's
    binary, `instruction` its text name; None where a frame has none (host functions).
    """

    module: str
    func: str
    index: int
    offset: int | None
    instruction: str | None

    def __str__(self) -> str:
        place = f" +{self.offset:#05x}" if self.offset is not None else ""
        return f"{self.module}!{self.func}[{self.index}]{place}" + (
            f"  {self.instruction}" if self.instruction else ""
        )


def format_backtrace(frames: tuple[Frame, ...], most: int = 30) -> str:
    """The frames as text, innermost first; the middle of a very deep stack is left out."""
    lines = ["wasm backtrace (innermost first):"]
    shown = frames if len(frames) <= most else frames[: most // 2] + frames[-(most // 2) :]
    for position, frame in enumerate(shown):
        if len(frames) > most and position == most // 2:
            lines.append(f"  ... {len(frames) - len(shown)} more ...")
        number = position if position < most // 2 else position + len(frames) - len(shown)
        lines.append(f"  {number}: {frame}")
    return "\n".join(lines)


class Trap(WasmError):
    """Execution stopped. `kind` says why, `frames` where (innermost first)."""

    def __init__(self, kind: TrapKind, detail: str = "") -> None:
        self.kind = kind
        self.message = kind.value + (f" {detail}" if detail else "")
        self.frames: tuple[Frame, ...] = ()
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message + ("\n" + format_backtrace(self.frames) if self.frames else "")


class Exhaustion(Trap):
    """A resource ran out: calls, room for structs and arrays, fuel or time; `kind` says which."""


class WasmException(WasmError):
    """A Wasm exception on its way through Python frames, or one that no handler caught.

    `tag` is the tag instance, `values` its canonical operands, `exn` the exception as a value: handlers that
    want a reference get that one. A host function may raise one, and then `exn` may be left out.
    """

    def __init__(self, tag: object, values: tuple[object, ...], exn: object = None) -> None:
        self.tag, self.values, self.exn = tag, values, exn
        super().__init__("uncaught exception")
