"""How things go wrong here: refused starts, dead VMs, and the words Envoy's log has for them.

`TRAP_PHRASES` is the only place where our trap kinds meet V8's phrases; operators search logs for those, and
the golden cases compare them. The other texts are Envoy 1.40's own, measured.
"""

from __future__ import annotations

from collections.abc import Callable

from pywasmvm.errors import Frame, Trap, TrapKind, WasmException

TRAP_PHRASES: dict[TrapKind, str] = {
    TrapKind.UNREACHABLE: "RuntimeError: unreachable",
    TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS: "RuntimeError: memory access out of bounds",
    TrapKind.INTEGER_DIVIDE_BY_ZERO: "RuntimeError: divide by zero",
    TrapKind.INTEGER_OVERFLOW: "RuntimeError: divide result unrepresentable",
    TrapKind.INVALID_CONVERSION: "RuntimeError: float unrepresentable in integer range",
    TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS: "RuntimeError: table index is out of bounds",
    TrapKind.UNDEFINED_ELEMENT: "RuntimeError: table index is out of bounds",
    TrapKind.UNINITIALIZED_ELEMENT: "RuntimeError: null function or function signature mismatch",
    TrapKind.INDIRECT_CALL_TYPE_MISMATCH: "RuntimeError: null function or function signature mismatch",
    TrapKind.NULL_REFERENCE: "RuntimeError: dereferencing a null pointer",
    TrapKind.NULL_FUNCTION_REFERENCE: "RuntimeError: dereferencing a null pointer",
    TrapKind.NULL_STRUCTURE_REFERENCE: "RuntimeError: dereferencing a null pointer",
    TrapKind.NULL_ARRAY_REFERENCE: "RuntimeError: dereferencing a null pointer",
    TrapKind.NULL_I31_REFERENCE: "RuntimeError: dereferencing a null pointer",
    TrapKind.NULL_EXCEPTION_REFERENCE: "RuntimeError: dereferencing a null pointer",
    TrapKind.OUT_OF_BOUNDS_ARRAY_ACCESS: "RuntimeError: array element access out of bounds",
    TrapKind.CAST_FAILURE: "RuntimeError: illegal cast",
    TrapKind.ALLOCATION_TOO_LARGE: "RuntimeError: requested new array is too large",
    TrapKind.CALL_STACK_EXHAUSTED: "RangeError: Maximum call stack size exceeded",
}
"""V8's words for a trap. Kinds that V8 does not know (fuel, deadline) are described by their own message."""

MISSING_MARKER = "Missing or unknown Proxy-Wasm ABI version"
CORRUPTED = "Failed to parse corrupted Wasm module"
MISSING_MALLOC = "Wasm module is missing malloc function."

LOAD_FAILED = "Failed to load Wasm code"
INITIALIZE_FAILED = "Failed to initialize Wasm code"
START_FAILED = "Failed to start base Wasm"
CONFIGURE_FAILED = "Failed to configure base Wasm plugin"


class RestrictedCall(Exception):
    """A guest called a host function in a phase that does not allow it (start-up, allocator)."""


class PluginStartError(Exception):
    """A plugin was refused.

    `reason` is one of Envoy's ("Failed to load Wasm code" ...). `host_errors` are the host's own log lines
    about it, in order and without backtraces; they have been given to `Host.error` already.
    """

    def __init__(self, reason: str, host_errors: list[str]) -> None:
        self.reason, self.host_errors = reason, host_errors
        super().__init__("; ".join([reason, *host_errors]))


class PluginFailure(Exception):
    """The guest's VM is dead: it trapped in this callback or in an earlier one.

    `function` is the guest function that failed; `trap` the trap, or None when something else stopped it
    (a call that was not allowed, a Wasm exception, an error inside a host function: see `__cause__`).
    """

    def __init__(self, message: str, function: str, trap: Trap | None) -> None:
        self.function, self.trap = function, trap
        super().__init__(message)


def phrase(error: BaseException) -> str:
    """What stopped a guest, in V8's words."""
    if isinstance(error, Trap):
        known = TRAP_PHRASES.get(error.kind)
        return f"Uncaught {known}" if known else f"Uncaught RuntimeError: {error.kind.value}"
    if isinstance(error, RestrictedCall):
        return "Uncaught Error: restricted_callback"
    if isinstance(error, WasmException):
        return "Uncaught [object WebAssembly.Exception]"
    return f"Uncaught Error: {type(error).__name__}: {error}"


def backtrace(error: BaseException, place: Callable[[int | None], object] = lambda offset: None) -> str:
    """Envoy's lines about where it happened, with a newline in front; "" when no function name is known.

    `place` says where in the source the instruction at an offset of the module comes from, if that is known.
    """
    frames: tuple[Frame, ...] = error.frames if isinstance(error, Trap) else ()
    if not any(frame.func for frame in frames):
        return ""
    lines = ["Proxy-Wasm plugin in-VM backtrace:"]
    for number, frame in enumerate(frames[:MOST_FRAMES]):
        where = f"{frame.offset:#x}" if frame.offset is not None else "host"
        source = place(frame.offset)
        lines.append(f"  {number}:  {where} - {frame.func}" + (f" ({source})" if source is not None else ""))
    if len(frames) > MOST_FRAMES:
        lines.append(f"  ... {len(frames) - MOST_FRAMES} more")
    return "\n" + "\n".join(lines)


MOST_FRAMES = 30
"""Frames shown of a trap; a stack overflow has thousands."""


def function_failed(name: str, error: BaseException) -> str:
    """The first line of Envoy's report about a failed guest function."""
    return f"Function: {name} failed: {phrase(error)}"


def vm_failed(reason: str) -> str:
    return f"Wasm VM failed {reason}"


def load_failed_lines(plugin_name: str, fail_open: bool) -> list[str]:
    """The critical lines that end every refused start. `fail_open` is the deprecated boolean of that name."""
    lines = [f"Plugin {plugin_name} failed to load"]
    return lines if fail_open else [*lines, "Plugin configured to fail closed failed to load"]
