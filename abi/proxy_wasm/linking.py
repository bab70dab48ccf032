"""From a module to its ABI version and a linker with just the host functions it imports.

Source: proxy-wasm specification 0.2.1, "ABI version"; refusals carry Envoy 1.40's texts (measured), so that
an operator finds them where they always were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abi.proxy_wasm.failures import RestrictedCall
from abi.proxy_wasm.started import REPEATABLE
from abi.proxy_wasm.types import Errno, Status
from abi.proxy_wasm.versions import (
    WASI_MODULES,
    AbiVersion,
    HostFunction,
    Phase,
    callbacks,
    detect,
    host_function,
)
from pywasmvm import FuncType, HostFunc, Linker, Module

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm

HostCallable = Callable[..., int | None]


def type_text(signature: object) -> str:
    """A function type as Envoy writes it: `i32 i32 -> i32`, with `void` for nothing."""
    parameters, _, results = str(signature).partition("->")
    return f"{parameters.strip() or 'void'} -> {results.strip() or 'void'}"


def exported_functions(module: Module) -> dict[str, FuncType]:
    """Exported functions in section order, with their types."""
    return {name: kind for name, kind in module.exports.items() if isinstance(kind, FuncType)}


def version_of(module: Module) -> AbiVersion | None:
    """The ABI version a module was built for; None when it carries no known marker."""
    return detect(exported_functions(module))


def import_errors(module: Module, version: AbiVersion) -> Iterator[str]:
    """What is wrong with the imports of a module, in Envoy's words; nothing when it can be linked."""
    for item in module.import_list:
        place = f"{item.module}.{item.name}"
        row = host_function(version, item.module, item.name)
        if row is None or not isinstance(item.type, FuncType):
            yield f"Failed to load Wasm module due to a missing import: {place}"
            continue
        if type_text(item.type) not in accepted_types(row):
            yield (
                f"Failed to load Wasm module due to an import type mismatch: {place}, "
                f"want: {type_text(item.type)}, but host exports: {type_text(row.signature)}"
            )


def accepted_types(row: HostFunction) -> list[str]:
    """The types under which a host function may be imported, the proper one first."""
    proper = type_text(row.signature)
    return [proper, proper.replace("-> i32", "-> void")] if row.resultless else [proper]


def export_errors(module: Module, version: AbiVersion) -> Iterator[str]:
    """Callbacks that a module exports with another type than its version has."""
    exports = exported_functions(module)
    for name, row in callbacks(version).items():
        kind = exports.get(name)
        if kind is not None and type_text(kind) != type_text(row.signature):
            yield (
                f"Bad function signature for: {name}, want: {type_text(row.signature)}, "
                f"but the module exports: {type_text(kind)}"
            )


@dataclass(slots=True)
class Binding:
    """One linked host function: what it does normally, and in each restricted phase that forbids it.
    `repeatable`: a call of it while a plugin starts does not matter to a snapshot (`started.py`)."""

    name: str
    function: HostFunc
    allowed: Phase
    normal: HostCallable
    early: HostCallable
    restricted: HostCallable
    repeatable: bool


class Bindings:
    """The host functions of one VM. Entering a restricted phase exchanges what they do, so that an
    unrestricted call pays nothing for the rule."""

    def __init__(self, vm: Vm, module: Module) -> None:
        self.linker = Linker()
        # A module may import the same function twice (Go's linker does); it is defined once.
        wanted = {(item.module, item.name): item.type for item in module.import_list}
        self._all = [self._link(vm, place, name, kind) for (place, name), kind in wanted.items()]
        self._not_in_allocator = [b for b in self._all if Phase.ALLOCATOR not in b.allowed]

    def _link(self, vm: Vm, module: str, name: str, kind: object) -> Binding:
        row = host_function(vm.version, module, name)
        if row is None or not isinstance(kind, FuncType):
            raise ValueError(f"{module}.{name} was to be refused by import_errors()")
        normal = _implementation(vm, row)
        if row.resultless and not kind.results:
            normal = _without_result(normal)
        restricted = _restricted(name)
        if Phase.START_SECTION in row.allowed:
            early = _adopting(vm, normal)
        else:
            early = _not_available(Status.INTERNAL_FAILURE if kind.results else None)
        function = self.linker.define_func(module, name, kind, early, caller=True)
        repeatable = row.module in WASI_MODULES or (row.module == "env" and name in REPEATABLE)
        return Binding(name, function, row.allowed, normal, early, restricted, repeatable)

    def enter_initialize(self) -> None:
        """The start section is over: there is an instance now, and calls that are not allowed trap."""
        for binding in self._all:
            allowed = Phase.INITIALIZE in binding.allowed
            binding.function.rebind(binding.normal if allowed else binding.restricted)

    def leave_initialize(self) -> None:
        for binding in self._all:
            binding.function.rebind(binding.normal)

    def watch(self, note: Callable[[str], None]) -> None:
        """Tell `note` of every call that a repeated start would have to make again."""
        for binding in self._all:
            if not binding.repeatable:
                binding.function.rebind(_noted(note, binding))

    def stop_watching(self) -> None:
        self.leave_initialize()

    def enter_allocator(self) -> list[tuple[HostFunc, HostCallable]]:
        """Restrict; what to give `leave_allocator` afterwards (the allocator may run in start-up, too)."""
        before = []
        for binding in self._not_in_allocator:
            function = binding.function
            before.append((function, function.callable))
            function.rebind(binding.restricted)
        return before

    def leave_allocator(self, before: list[tuple[HostFunc, HostCallable]]) -> None:
        for function, what in before:
            function.rebind(what)


def _implementation(vm: Vm, row: HostFunction) -> HostCallable:
    """What a row does for one VM: its function, or a stub when it may not be called."""
    if vm.capabilities is not None and row.name not in vm.capabilities:
        refusal = Status.INTERNAL_FAILURE if row.module == "env" else Errno.NOTCAPABLE
        result = None if row.signature.endswith("-> ") else int(refusal)

        def not_allowed(*_: object) -> int | None:
            vm.host_error(f"Attempted call to restricted proxy-wasm capability: {row.name}")
            return result

        return not_allowed
    bound = row.call.bind(vm, vm.guest)
    return bound if vm.trace is None else _traced(vm.trace, f"{row.module}.{row.name}", bound)


def _traced(trace: Callable[[str], None], place: str, call: HostCallable) -> HostCallable:
    """Envoy logs every host call at trace level; hosts that want it too have a `trace` method."""

    def traced(caller: object, *arguments: int) -> int | None:
        trace(f"[vm->host] {place}({', '.join(map(str, arguments))})")
        result = call(caller, *arguments)
        trace(f"[vm<-host] {place} return: {'void' if result is None else result}")
        return result

    return traced


def _without_result(call: HostCallable) -> HostCallable:
    def resultless(*arguments: object) -> None:
        call(*arguments)

    return resultless


def _noted(note: Callable[[str], None], binding: Binding) -> HostCallable:
    def noted(caller: object, *arguments: int) -> int | None:
        note(binding.name)
        return binding.normal(caller, *arguments)

    return noted


def _restricted(name: str) -> HostCallable:
    def restricted(*_: object) -> int | None:
        raise RestrictedCall(f"{name} is not allowed in this phase")

    return restricted


def _adopting(vm: Vm, call: HostCallable) -> HostCallable:
    """In the start section the instance is not known to the VM yet; the caller brings its memory."""

    def early(caller: object, *arguments: int) -> int | None:
        vm.adopt_memory(caller)
        return call(caller, *arguments)

    return early


def _not_available(status: Status | None) -> HostCallable:
    result = None if status is None else int(status)
    return lambda *_: result
