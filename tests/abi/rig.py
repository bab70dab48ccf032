"""`Rig`: a guest that lets a test call any host function in any phase.

The module is generated from the ABI tables: it imports every host function of its version and exports a
wrapper for each, and it has every callback. A callback keeps its arguments, logs its own name and returns the
number in its memory cell. The host hands such a line to the test's hook, which may call the wrappers: host
functions then run exactly as if the guest had called them in that callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.types import LogLevel
from abi.proxy_wasm.versions import AbiVersion, Callback, callbacks, host_functions
from abi.proxy_wasm.vm import Vm
from tests.support.wat import wat

INPUT, OUTPUT, NAMES, CELLS, ARGUMENTS, HEAP = 0x20000, 0x30000, 0x1000, 0x8000, 0x10000, 0x40000
PAGES = 48
POISON = 0xDEADBEEF
VM_ARGUMENTS = (
    "vm_id",
    "configuration",
    "environment",
    "limits",
    "start_limits",
    "capabilities",
    "services",
    "foreign_functions",
)
START_UP = {"_initialize", "_start", "main", "__main_void", "malloc", "proxy_on_memory_allocate"}


class Out:
    """A place where a host function writes."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes


BYTES, WORD, LONG = Out(4, 4), Out(4), Out(8)


def _types(signature: str) -> tuple[list[str], list[str]]:
    parameters, _, results = signature.partition("->")
    return parameters.split(), results.split()


def _wat_type(signature: str) -> str:
    parameters, results = _types(signature)
    return " ".join([*(f"(param {p})" for p in parameters), *(f"(result {r})" for r in results)])


MALLOC = (
    "(global.get $heap) (global.set $heap (i32.and (i32.add (global.get $heap)"
    " (i32.add (local.get 0) (i32.const 15))) (i32.const -8)))"
)
"""What the rig's allocator does: blocks one behind the other."""


def module_text(
    version: AbiVersion, wasi: str = "wasi_snapshot_preview1", more: str = "", malloc: str = MALLOC
) -> str:
    """The rig's module as text. `more` is put behind everything else, `malloc` is the allocator's body."""
    lines = ["(module"]
    rows = [r for r in host_functions(version) if r.module in ("env", wasi)]
    lines += [f'(import "{r.module}" "{r.name}" (func $i_{r.name} {_wat_type(r.signature)}))' for r in rows]
    lines.append(f'(memory (export "memory") {PAGES})')
    lines.append(f"(global $heap (mut i32) (i32.const {HEAP}))")
    lines.append(f'(func (export "{version.marker}"))')
    for row in rows:
        gets = " ".join(f"(local.get {n})" for n in range(len(_types(row.signature)[0])))
        call = f"(call $i_{row.name} {gets})"
        lines.append(f'(func (export "call_{row.name}") {_wat_type(row.signature)} {call})')
    lines.append(f'(func (export "malloc") (param i32) (result i32) {malloc})')
    for number, (name, callback) in enumerate(_callbacks(version)):
        at = NAMES + 64 * number
        lines.append(f'(data (i32.const {at}) "{name}")')
        result = f"(i32.load (i32.const {CELLS + 4 * number}))" if _types(callback.signature)[1] else ""
        lines.append(
            f'(func (export "{name}") {_wat_type(callback.signature)}'
            f" {_kept(number, len(_types(callback.signature)[0]))}"
            f" (drop (call $i_proxy_log (i32.const 2) (i32.const {at}) (i32.const {len(name)}))) {result})"
        )
        if name in ("proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"):
            lines.append(f'(data (i32.const {CELLS + 4 * number}) "\\01")')
    return "\n".join([*lines, more, ")"])


def _kept(number: int, count: int) -> str:
    """Store the parameters of the callback of this number."""
    at = ARGUMENTS + 32 * number
    return " ".join(f"(i32.store (i32.const {at + 4 * n}) (local.get {n}))" for n in range(count))


def _callbacks(version: AbiVersion) -> list[tuple[str, Callback]]:
    return [(name, row) for name, row in callbacks(version).items() if name not in START_UP]


class _Host(MemoryHost):
    def __init__(self, rig: Rig, log_level: LogLevel) -> None:
        super().__init__(log_level, clusters=("svc", "other"))
        self.rig = rig

    def log(self, level: LogLevel, prefix: str, message: str) -> None:
        if message.startswith("proxy_on_"):
            self.rig.entered(message)
        else:
            super().log(level, prefix, message)


def announces(host: object, address: int) -> bool:
    """Whether a line at this address is a callback's of the rig, saying that it was called."""
    return isinstance(host, _Host) and NAMES <= address < CELLS


class Hands:
    """What a test does with the rig's module as it runs: hooks into callbacks, host functions called."""

    vm: Vm
    version: AbiVersion

    def __init__(self) -> None:
        self.hooks: dict[str, Callable[[], object]] = {}
        self.results: dict[str, Any] = {}
        self.called: list[str] = []

    def during(self, callback: str, action: Callable[[], object]) -> Self:
        """What to do in a callback; its result is then in `results`."""
        self.hooks[callback] = action
        return self

    def entered(self, name: str) -> None:
        self.called.append(name)
        if name in self.hooks:
            self.results[name] = self.hooks[name]()

    def returns(self, callback: str, value: int) -> None:
        """What a callback returns from now on."""
        names = [name for name, _ in _callbacks(self.version)]
        self.vm.guest.write_u32(CELLS + 4 * names.index(callback), value)

    def arguments(self, callback: str) -> tuple[int, ...]:
        """What a callback was called with last."""
        rows = _callbacks(self.version)
        number = [name for name, _ in rows].index(callback)
        count = len(_types(rows[number][1].signature)[0])
        return tuple(self.vm.guest.read_u32(ARGUMENTS + 32 * number + 4 * n) for n in range(count))

    def ask(self, name: str, *arguments: int | bytes | Out) -> Any:
        """Call a host function. Bytes become address and size, `Out`s addresses of poisoned slots. Gives the
        status, or a tuple with the outputs behind it; None where the host wrote nothing."""
        guest, function = self.vm.guest, self.vm.instance.exports[f"call_{name}"].raw
        raw: list[int] = []
        outs: list[tuple[Out, list[int]]] = []
        put, slot = INPUT, OUTPUT
        for argument in arguments:
            if isinstance(argument, bytes):
                guest.write(put, argument)
                raw += [put, len(argument)]
                put += len(argument) + 1
            elif isinstance(argument, Out):
                places = []
                for size in argument.sizes:
                    places.append(slot)
                    guest.write(slot, (POISON * 0x1_0000_0001).to_bytes(8, "little")[:size])
                    slot += 8
                raw += places
                outs.append((argument, places))
            else:
                raw.append(argument)
        status = function(*raw)
        values = [self._read(out, places) for out, places in outs]
        return (status, *values) if values else status

    def _read(self, out: Out, places: list[int]) -> object:
        memory = self.vm.guest
        if out is LONG:
            value = int.from_bytes(memory.read(places[0], 8), "little")
            return None if value == POISON * 0x1_0000_0001 else value
        words = [memory.read_u32(place) for place in places]
        if all(word == POISON for word in words):
            return None
        return memory.read(*words) if out is BYTES else words[0]


class Rig(Hands):
    """A plugin made of the rig module. Further arguments go to `Vm` and `Plugin`.

    `hooks` are needed for start-up callbacks, which run inside the constructor; later ones: `during`.
    """

    def __init__(
        self,
        version: AbiVersion = AbiVersion.V0_2_1,
        hooks: Mapping[str, Callable[[Rig], object]] | None = None,
        wasi: str = "wasi_snapshot_preview1",
        log_level: LogLevel = LogLevel.TRACE,
        malloc: str = MALLOC,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.hooks |= {name: partial(hook, self) for name, hook in (hooks or {}).items()}
        self.version = version
        self.host: Any = _Host(self, log_level)  # tests give it what hosts may have besides
        for_vm = {name: arguments.pop(name) for name in VM_ARGUMENTS if name in arguments}
        self.vm = Vm(wat(module_text(version, wasi, malloc=malloc)), host=self.host, **for_vm)
        self.plugin = Plugin(self.vm, **arguments)
