"""Shared queues: tokens, scopes, order, notifications."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.services import Services
from abi.proxy_wasm.types import Status
from pywasmvm import Trap, TrapKind
from tests.abi.rig import BYTES, WORD, Rig

OK, MISSING, EMPTY = Status.OK, Status.NOT_FOUND, Status.EMPTY
REGISTER, RESOLVE = "proxy_register_shared_queue", "proxy_resolve_shared_queue"
ENQUEUE, DEQUEUE = "proxy_enqueue_shared_queue", "proxy_dequeue_shared_queue"


def registered(services: Services, *names: bytes, vm_id: str = "V") -> Rig:
    """A rig whose plugin registered queues while it was configured."""
    hooks = {"proxy_on_configure": lambda rig: [rig.ask(REGISTER, name, WORD) for name in names]}
    return Rig(vm_id=vm_id, services=services, hooks=hooks)


def test_the_same_name_is_the_same_queue() -> None:
    rig = registered(Services(), b"q1", b"q1", b"q2")
    assert rig.results["proxy_on_configure"] == [(OK, 1), (OK, 1), (OK, 2)]


def test_resolving() -> None:
    services = Services()
    one, two = registered(services, b"q1"), Rig(vm_id="W", services=services)
    assert two.ask(RESOLVE, b"V", b"q1", WORD) == (OK, 1)
    assert one.ask(RESOLVE, b"", b"q1", WORD) == (OK, 1)
    for vm_id, name in ((b"", b"q1"), (b"V", b"none"), (b"NOVM", b"q1")):
        assert two.ask(RESOLVE, vm_id, name, WORD) == (MISSING, None)


def test_items_and_notifications_as_recorded() -> None:
    services = Services()
    one, two = registered(services, b"q1"), Rig(vm_id="W", services=services)
    answers: list[object] = []
    one.during("proxy_on_queue_ready", lambda: answers.extend(one.ask(DEQUEUE, 1, BYTES) for _ in range(2)))
    assert two.ask(ENQUEUE, 1, b"item1") == OK
    assert two.ask(ENQUEUE, 1, b"item2") == OK
    assert "proxy_on_queue_ready" not in one.called
    assert services.queues.deliver() == [one.plugin, one.plugin]
    assert one.called.count("proxy_on_queue_ready") == 2
    assert answers == [(OK, b"item1"), (OK, b"item2"), (EMPTY, None), (EMPTY, None)]
    assert services.queues.deliver() == []


@pytest.mark.parametrize("token", [0, 2, 999])
def test_unknown_tokens(token: int) -> None:
    rig = registered(Services(), b"q1")
    assert rig.ask(ENQUEUE, token, b"x") == MISSING
    assert rig.ask(DEQUEUE, token, BYTES) == (MISSING, None)


def test_anybody_with_the_token_takes_items_out() -> None:
    services = Services()
    one, two = registered(services, b"q1"), Rig(vm_id="W", services=services)
    one.ask(ENQUEUE, 1, b"")
    assert two.ask(DEQUEUE, 1, BYTES) == (OK, b"")


def test_the_last_one_that_registered_is_notified() -> None:
    services = Services()
    one, two = registered(services, b"q"), registered(services, b"q")
    one.ask(ENQUEUE, 1, b"x")
    assert services.queues.deliver() == [two.plugin]
    assert two.plugin is not one.plugin


def test_what_is_in_a_queue_stays_when_it_is_registered_again() -> None:
    services = Services()
    registered(services, b"q").ask(ENQUEUE, 1, b"kept")
    again = registered(services, b"q")
    assert again.results["proxy_on_configure"] == [(OK, 1)]
    assert again.ask(DEQUEUE, 1, BYTES) == (OK, b"kept")


def test_no_vm_id_is_a_scope_of_its_own() -> None:
    services = Services()
    registered(services, b"q")
    one, two = registered(services, b"q", vm_id=""), registered(services, b"q", vm_id="")
    assert [rig.results["proxy_on_configure"] for rig in (one, two)] == [[(OK, 2)]] * 2
    assert one.ask(RESOLVE, b"", b"q", WORD) == (OK, 2)
    assert one.ask(RESOLVE, b"V", b"q", WORD) == (OK, 1)


def test_items_put_in_while_notifying_wait_for_the_next_time() -> None:
    services = Services()
    rig = registered(services, b"q")
    rig.during("proxy_on_queue_ready", lambda: rig.ask(ENQUEUE, 1, b"again"))
    rig.ask(ENQUEUE, 1, b"x")
    assert len(services.queues.deliver()) == 1
    assert services.queues.pending


def test_dead_and_closed_listeners_are_left_out() -> None:
    services = Services()
    rig = registered(services, b"q")

    def fail() -> None:
        raise Trap(TrapKind.UNREACHABLE)

    rig.during("proxy_on_queue_ready", fail)
    rig.ask(ENQUEUE, 1, b"x")
    rig.ask(ENQUEUE, 1, b"y")
    assert services.queues.deliver() == [rig.plugin]
    assert rig.plugin.failed
    assert rig.called.count("proxy_on_queue_ready") == 1
    other = registered(services, b"other")
    other.ask(ENQUEUE, 2, b"x")
    other.plugin.close()
    assert services.queues.deliver() == []


def test_only_a_plugin_can_register() -> None:
    assert Rig().ask(REGISTER, b"q", WORD) == (Status.INTERNAL_FAILURE, None)


def test_a_shared_vm_notifies_the_plugin_that_registered() -> None:
    rig = Rig(vm_id="V")
    rig.during("proxy_on_configure", lambda: rig.ask(REGISTER, b"q", WORD))
    second = Plugin(rig.vm, name="second")
    rig.ask(ENQUEUE, 1, b"x")
    assert rig.vm.services.queues.deliver() == [second]
