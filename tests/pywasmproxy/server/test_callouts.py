"""`CallOuts` on its own, and a kind of call-out that nothing of ours knows: from the guest and back to it."""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from abi.hostcall import Bytes, OutId, proxy_call
from abi.proxy_wasm.callouts import FURTHER_CALL, Answer
from abi.proxy_wasm.deferred import CallOut, CancelCall
from abi.proxy_wasm.extensions import ENTRY_POINTS, Extension, extensions
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import ALL, Callback, HostFunction, host_function
from abi.proxy_wasm.vm import Vm
from pywasmproxy.server import callouts
from pywasmproxy.server.callouts import CallOuts
from tests.pywasmproxy.server.support import Client, Lines, bootstrap, listener, port_of, proxy
from tests.support.wat import wat

# --- what another package would bring -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask(CallOut):
    question: bytes


@proxy_call
def proxy_ask(vm: Vm, question: Bytes) -> Status | OutId:
    """Ask; the answer is in buffer 9."""
    plugin = vm.active.plugin
    token = None if plugin is None else vm.calls.begin(FURTHER_CALL, plugin, len(question))
    if plugin is None or token is None:
        return Status.INTERNAL_FAILURE
    vm.deferred.append(Ask(plugin, token, question))
    return token


class Asking:
    """Carries `Ask` out: the answer is the question in upper case, from the loop."""

    def __init__(self, effect: Ask, outs: CallOuts) -> None:
        self.cancelled = False
        asyncio.get_running_loop().call_soon(self.answer, effect, outs)

    def answer(self, effect: Ask, outs: CallOuts) -> None:
        answer = Answer(buffers={9: effect.question.upper()})
        outs.answer(
            effect, lambda: effect.plugin.deliver(effect.token, "proxy_on_answered", answer, 3, ends=True)
        )

    def perform(self, effect: CallOut) -> None: ...

    def cancel(self) -> None:
        self.cancelled = True


EXTENSION = Extension(
    (HostFunction("env", "proxy_ask", "i32 i32 i32 -> i32", ALL, proxy_ask),),
    (Callback("proxy_on_answered", "i32 i32 i32 -> "),),
)

GUEST = """(module
  (import "env" "proxy_ask" (func $ask (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "what is it")
  (global $id (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (global.set $id (local.get 0))
    (drop (call $ask (i32.const 16) (i32.const 10) (i32.const 0)))
    (i32.const 1))
  (func (export "proxy_on_answered") (param $root i32) (param $token i32) (param $status i32)
    (drop (call $get (i32.const 9) (i32.const 0) (i32.const -1) (i32.const 64) (i32.const 68)))
    (drop (call $effective (global.get $id)))
    (drop (call $reply (i32.add (i32.const 200) (i32.add (local.get $token) (local.get $status)))
      (i32.const 0) (i32.const 0) (i32.load (i32.const 64)) (i32.load (i32.const 68))
      (i32.const 0) (i32.const 0) (i32.const -1)))))
"""


@dataclass
class Entry:
    value: Any

    def load(self) -> Any:
        return self.value


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the package were installed."""
    found = importlib.metadata.entry_points
    ours = {ENTRY_POINTS: [Entry(EXTENSION)], callouts.ENTRY_POINTS: [Entry({Ask: Asking})]}
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda **selection: ours.get(selection.get("group", "")) or found(**selection),
    )
    extensions.cache_clear()
    yield
    extensions.cache_clear()


def filter_of(module: bytes) -> str:
    code = base64.b64encode(module).decode()
    return f"""
- name: envoy.filters.http.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: asking
      vm_config:
        runtime: envoy.wasm.runtime.v8
        code: {{local: {{inline_bytes: "{code}"}}}}
"""


async def test_another_packages_call_out(installed: None) -> None:
    text = bootstrap(
        listener('- {match: {prefix: "/"}, direct_response: {status: 500}}', filters=filter_of(wat(GUEST)))
    )
    async with proxy(text) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.body) == (200 + 7 + 3, b"WHAT IS IT")
        client.close()
        assert not len(server.filters.call_outs)


def test_without_the_package_its_functions_are_unknown() -> None:
    version = next(iter(ALL))
    assert host_function(version, "env", "proxy_ask") is None


def test_ours_are_not_replaced(installed: None) -> None:
    version = next(iter(ALL))
    found = host_function(version, "env", "proxy_log")
    assert found is not None
    assert found.call is not proxy_ask


# --- the object itself ----------------------------------------------------------------------------------


class Note:
    """A call that only notes what is done to it."""

    def __init__(self, effect: Any, outs: CallOuts) -> None:
        self.effects, self.cancelled = [effect], 0
        NOTES.append(self)

    def perform(self, effect: CallOut) -> None:
        self.effects.append(effect)

    def cancel(self) -> None:
        self.cancelled += 1


NOTES: list[Note] = []


class FakeVm:
    """Something with an identity."""


class FakePlugin:
    def __init__(self, vm: FakeVm) -> None:
        self.vm, self.name = vm, "fake"


def outs_of(entered: list[Any] | None = None) -> CallOuts:
    def enter(plugin: Any, callback: Callable[[], object]) -> None:
        callback()
        if entered is not None:
            entered.append(plugin)

    outs = CallOuts({}, enter, Lines().log()["wasm"])
    outs._starters[Ask] = Note
    NOTES.clear()
    return outs


def asked(token: int, vm: FakeVm) -> Ask:
    plugin: Any = FakePlugin(vm)
    return Ask(plugin, token, b"")


def test_calls_wait_until_there_are_hosts() -> None:
    outs, vm, other = outs_of(), FakeVm(), FakeVm()
    for effect in (asked(7, vm), asked(7, other), asked(11, vm)):
        outs.perform(effect)
    outs.vm_died(cast(Vm, other))
    assert not NOTES
    outs.open()
    assert [note.effects[0].token for note in NOTES] == [7, 11]
    assert len(outs) == 2


def test_what_follows_goes_to_the_call_and_its_end_ends_it() -> None:
    entered: list[Any] = []
    outs, vm = outs_of(entered), FakeVm()
    outs.open()
    begin = asked(7, vm)
    outs.perform(begin)
    outs.perform(begin)
    [note] = NOTES
    assert note.effects == [begin, begin]
    seen: list[int] = []
    outs.answer(begin, lambda: seen.append(1), ends=False)
    outs.answer(begin, lambda: seen.append(2))
    outs.answer(begin, lambda: seen.append(3))
    assert seen == [1, 2]
    assert len(entered) == 2
    assert note.cancelled == 0


def test_cancelled_calls_and_dead_vms_get_no_answers() -> None:
    entered: list[Any] = []
    outs, vm, other = outs_of(entered), FakeVm(), FakeVm()
    outs.open()
    effects = [asked(7, vm), asked(11, vm), asked(7, other)]
    for effect in effects:
        outs.perform(effect)
    cancel = CancelCall(effects[0].plugin, 7)
    outs.perform(cancel)
    outs.perform(cancel)
    outs.vm_died(cast(Vm, vm))
    assert [note.cancelled for note in NOTES] == [1, 1, 0]
    for effect in effects[:2]:
        outs.answer(effect, lambda: entered.append("late"))
    assert not entered
    outs.close()
    assert NOTES[2].cancelled == 1
    outs.perform(asked(15, other))
    assert len(NOTES) == 3  # nothing begins after the end


def test_what_nobody_carries_out_is_dropped() -> None:
    outs = outs_of()
    del outs._starters[Ask]
    outs.open()
    outs.perform(asked(7, FakeVm()))
    assert not len(outs)


def test_what_calls_have_in_common_is_made_once_and_closed() -> None:
    class Shared:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    outs = outs_of()
    first = outs.keep(Shared, Shared)
    assert outs.keep(Shared, Shared) is first
    outs.close()
    assert first.closed == 1
    assert outs.keep(Shared, Shared) is not first
