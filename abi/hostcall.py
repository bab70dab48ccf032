"""`@proxy_call` and `@wasi_call`: an annotated Python function becomes a typed host function.

The function says what it takes and gives (`Bytes`, `U32`, `OutBytes` ...); from the annotations come the
wasm signature and one generated thunk that reads the guest's memory, calls the function and writes its
answer back. So no host function touches an address itself, and none can forget a bounds check or write its
outputs on failure. The thunk has fixed parameters (no `*args`): it runs on every call a guest makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

from abi.guest import GuestMemory, GuestMemoryError
from abi.proxy_wasm.types import Errno, Status

# What a host function may take. Python types for the checker, names for the thunk maker.
U32: TypeAlias = int
U64: TypeAlias = int
I32: TypeAlias = int
I64: TypeAlias = int
Bytes: TypeAlias = bytes
"""An address and a size in the signature; the bytes there in Python."""

# What it may give, besides a status: written to the guest only when the call succeeded.
OutU32: TypeAlias = int
OutU64: TypeAlias = int
OutToken: TypeAlias = int
"""`OutU32` whose slot is checked, and set to 0, before the call: what it begins must reach the guest."""
OutId: TypeAlias = int
"""`OutU32` whose slot is checked before the call, and left as it is when the call fails."""
OutBytes: TypeAlias = bytes
"""Two addresses in the signature: where the block's address and its size are written."""
OutBuffer: TypeAlias = bytes
"""`OutBytes` with the compatibility rule of `GuestMemory.hand_over_buffer`."""
OptionalBytes: TypeAlias = bytes
"""`OutBytes` whose slots may be null."""
OutStatus: TypeAlias = int
"""Nothing that is written: the status that is returned although the outputs are written."""


@dataclass(frozen=True)
class _Input:
    wasm: str
    parameters: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class _Output:
    parameters: tuple[str, ...]
    write: str
    before: str = ""


_INPUTS = {
    "U32": _Input("i32", ("{0}",), "{0}"),
    "U64": _Input("i64", ("{0}",), "{0}"),
    "I32": _Input("i32", ("{0}",), "({0} ^ 0x80000000) - 0x80000000"),
    "I64": _Input("i64", ("{0}",), "({0} ^ 0x8000000000000000) - 0x8000000000000000"),
    "Bytes": _Input("i32 i32", ("{0}_at", "{0}_size"), "read({0}_at, {0}_size)"),
}

_OUTPUTS = {
    "OutU32": _Output(("{0}_to",), "guest.write_u32({0}_to, {1})"),
    "OutU64": _Output(("{0}_to",), "guest.write_u64({0}_to, {1})"),
    "OutToken": _Output(("{0}_to",), "guest.write_u32({0}_to, {1})", "guest.write_u32({0}_to, 0)"),
    "OutId": _Output(("{0}_to",), "guest.write_u32({0}_to, {1})", "guest.read_u32({0}_to)"),
    "OutBytes": _Output(("{0}_to", "{0}_size_to"), "guest.hand_over({0}_to, {0}_size_to, {1})"),
    "OutBuffer": _Output(("{0}_to", "{0}_size_to"), "guest.hand_over_buffer({0}_to, {0}_size_to, {1})"),
    "OptionalBytes": _Output(("{0}_to", "{0}_size_to"), "guest.hand_over_optional({0}_to, {0}_size_to, {1})"),
    "OutStatus": _Output((), "status = int({1})"),
}


@dataclass
class HostCall:
    """One host function: its Python body, wasm signature and thunk maker.

    `signature` is in the notation of `FuncType.parse` ("i32 i32 -> i32"). `bind(vm, guest)` gives the raw
    callable for one VM: it takes the caller and canonical unsigned integers and returns one (or None).
    """

    name: str
    body: Callable[..., Any]
    signature: str
    source: str
    _names: dict[str, Any]
    _maker: Callable[..., Any] | None = field(default=None, repr=False)

    def bind(self, vm: object, guest: GuestMemory) -> Callable[..., int | None]:
        if self._maker is None:
            scope: dict[str, Any] = dict(self._names)
            exec(compile(self.source, f"<thunk of {self.name}>", "exec"), scope)
            self._maker = scope["make"]
        thunk: Callable[..., int | None] = self._maker(vm, guest, self.body)
        return thunk


def _outputs_of(annotation: str, status: str) -> list[str]:
    """The output kinds in a return annotation such as `Status | tuple[OutBytes, OutU32]`."""
    parts = [part.strip() for part in annotation.split("|")]
    rest = [part for part in parts if part != status]
    if not rest:
        return []
    return [kind.strip() for kind in rest[0].removeprefix("tuple[").removesuffix("]").split(",")]


def _make(body: Callable[..., Any], status: type[IntEnum], fault: IntEnum) -> HostCall:
    """Derive signature and thunk from the annotations, which are text (PEP 563) and are read as such."""
    notes = dict(body.__annotations__)
    returns = notes.pop("return")
    name = body.__name__
    wasm: list[str] = []
    parameters: list[str] = []
    values: list[str] = []
    for argument, note in list(notes.items())[1:]:  # the first parameter is the VM
        kind = _INPUTS[note]
        wasm.append(kind.wasm)
        parameters += [p.format(argument) for p in kind.parameters]
        values.append(kind.value.format(argument))
    call = f"body({', '.join(['vm', *values])})"

    lines = ["try:"]
    result = "i32"
    outputs = [] if returns in ("None", "int") else _outputs_of(returns, status.__name__)
    before = [
        _OUTPUTS[note].before.format(f"out{position}")
        for position, note in enumerate(outputs)
        if _OUTPUTS[note].before
    ]
    if before:  # behind the reading of what comes in, ahead of the call
        lines += [f"    given = vm, {', '.join(values)}", *(f"    {line}" for line in before)]
        call = "body(*given)"
    if returns == "None":
        result = ""
        lines += [f"    {call}"]
    elif returns == "int":
        lines += [f"    return {call}"]
    elif not outputs:
        lines += [f"    return int({call})"]
    else:
        lines += [f"    answer = {call}", "    if answer.__class__ is Failure:", "        return int(answer)"]
        for position, note in enumerate(outputs):
            out = _OUTPUTS[note]
            wasm += ["i32"] * len(out.parameters)
            parameters += [p.format(f"out{position}") for p in out.parameters]
            value = "answer" if len(outputs) == 1 else f"answer[{position}]"
            lines.append("    " + out.write.format(f"out{position}", value))
    lines += ["except GuestMemoryError:", f"    return {'' if returns == 'None' else int(fault)}"]
    if outputs:
        lines.append("return status" if "OutStatus" in outputs else "return 0")
    inner = "\n        ".join(lines)
    source = (
        "def make(vm, guest, body):\n"
        "    read = guest.read\n"
        f"    def {name}({', '.join(['caller', *parameters])}):\n"
        f"        {inner}\n"
        f"    return {name}\n"
    )
    names = {"Failure": status, "GuestMemoryError": GuestMemoryError}
    return HostCall(name, body, f"{' '.join(wasm)} -> {result}", source, names)


def proxy_call(body: Callable[..., Any]) -> HostCall:
    """A `proxy_*` function: answers a `Status`; addresses outside memory are INVALID_MEMORY_ACCESS.

    The first parameter is the VM. A result other than a `Status` means OK and is written to the guest; a
    function annotated `-> int` gives its result as it is, one annotated `-> None` has none.
    """
    return _make(body, Status, Status.INVALID_MEMORY_ACCESS)


def wasi_call(body: Callable[..., Any]) -> HostCall:
    """A WASI function: answers an `Errno`; addresses outside memory are FAULT."""
    return _make(body, Errno, Errno.FAULT)
