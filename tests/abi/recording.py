"""What tests really call: a pytest plugin that notes every host function and callback, with its phase.

`scripts/abi_reference.py` runs tests under it and names on its page the tests that called a function, so no
test can be named there that did not. Not used by ordinary runs of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from abi.proxy_wasm.contexts import Context, HttpContext, RootContext
from abi.proxy_wasm.failures import RestrictedCall
from abi.proxy_wasm.linking import Binding, Bindings
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.versions import AbiVersion
from abi.proxy_wasm.vm import Vm
from tests.abi.rig import announces

TRAP = -1
"""Stands for the answer of a call that is not allowed in its phase, and of a guest that did not return."""

START_SECTION, OUTSIDE = "start section", "outside"
KINDS: tuple[tuple[type[Context], str], ...] = (
    (RootContext, "root"),
    (HttpContext, "http"),
    (TcpContext, "tcp"),
)


@dataclass(frozen=True, slots=True)
class Test:
    """A test function; its parameters do not matter."""

    __test__ = False

    file: str
    name: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call of the guest's: `phase` is the callback it was made in, `kind` whose (`Phase.kind`)."""

    test: Test
    version: AbiVersion
    module: str
    function: str
    kind: str
    phase: str
    answer: int | None


@dataclass(frozen=True, slots=True)
class Entered:
    """A call of the host's."""

    test: Test
    version: AbiVersion
    callback: str
    kind: str
    answer: int | None


class Recorder:
    """Give it to `pytest.main` as a plugin."""

    def __init__(self) -> None:
        self.calls: dict[Called, None] = {}  # as ordered sets: tests are named in the order they ran in
        self.callbacks: dict[Entered, None] = {}
        self._test = Test("", "")
        self._phases: list[tuple[Vm, str, str]] = []

    # --- pytest ---------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        file = item.path.relative_to(item.config.rootpath).as_posix()
        self._test = Test(file, getattr(item, "originalname", item.name))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self) -> Iterator[None]:
        with self._noting():
            yield

    # --- the machinery of calls -----------------------------------------------------------------------------

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Put ourselves into the three places where guest and host meet."""
        link, call, allocate = Bindings._link, Vm.call, Vm._allocate

        def linked(bindings: Bindings, vm: Vm, module: str, name: str, kind: object) -> Binding:
            binding = link(bindings, vm, module, name, kind)
            for which in ("normal", "early", "restricted"):
                setattr(binding, which, self._noted(vm, module, name, getattr(binding, which)))
            binding.function.rebind(binding.early)
            return binding

        def called(vm: Vm, context: Context, name: str, *arguments: int, default: int = 0) -> int:
            kind = next((text for one, text in KINDS if isinstance(context, one)), "")
            self._phases.append((vm, kind, name))
            answer: int = TRAP
            try:
                answer = call(vm, context, name, *arguments, default=default)
            finally:
                self._phases.pop()
                if vm.has(name):
                    self.callbacks[Entered(self._test, vm.version, name, kind, answer)] = None
            return answer

        def allocated(vm: Vm, size: int) -> int:
            self._phases.append((vm, "", vm._allocator_name))
            try:
                return allocate(vm, size)
            finally:
                self._phases.pop()
                self.callbacks[Entered(self._test, vm.version, vm._allocator_name, "", None)] = None

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bindings, "_link", linked)
            patch.setattr(Vm, "call", called)
            patch.setattr(Vm, "_allocate", allocated)
            yield

    def _noted(self, vm: Vm, module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            if name == "proxy_log" and announces(vm.host, arguments[2]):
                return function(*arguments)
            answer: int | None = TRAP
            try:
                answer = function(*arguments)
            except RestrictedCall:
                raise
            finally:
                kind, phase = self._phase(vm)
                place = Called(self._test, vm.version, module, name, kind, phase, answer)
                self.calls[place] = None
            return answer

        return noted

    def _phase(self, vm: Vm) -> tuple[str, str]:
        for entered, kind, name in reversed(self._phases):
            if entered is vm:
                return kind, name
        return "", OUTSIDE if hasattr(vm, "instance") else START_SECTION
