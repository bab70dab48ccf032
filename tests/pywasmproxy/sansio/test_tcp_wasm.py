"""Guests as filters of TCP connections: what they ask for, and what their death means under each policy."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.plugin import Plugin
from pywasmproxy.config.model import FailurePolicy, TcpProxy
from pywasmproxy.sansio import tcp_messages as ev
from pywasmproxy.sansio.tcp import TcpChain
from pywasmproxy.sansio.tcp_filter import WasmTcpFilterFactory
from tests.abi.rig import Rig
from tests.pywasmproxy.sansio.tcp_driver import World, recorders

NEW, DOWN, UP = "proxy_on_new_connection", "proxy_on_downstream_data", "proxy_on_upstream_data"
CLOSED = "proxy_on_downstream_connection_close"
END = [CLOSED, "proxy_on_done", "proxy_on_log", "proxy_on_delete"]


def boom() -> None:
    raise ZeroDivisionError("a host function failed")


def guests(*rigs: Rig | Plugin, behind: Any = (), **policy: Any) -> TcpChain:
    """A chain of these guests (which share what the policy says), and native filters behind them."""
    chain = TcpChain([], TcpProxy("s", (("svc", 1),)))
    for one in rigs:
        plugin = one.plugin if isinstance(one, Rig) else one
        chain.factories.append(WasmTcpFilterFactory(plugin, chain.dispatcher, **policy))
    chain.factories.extend(behind)
    return chain


def in_tick(rig: Rig, chain: TcpChain, *questions: tuple[Any, ...]) -> None:
    """Let the guest ask this in its next tick, and tick."""
    rig.during("proxy_on_tick", lambda: [rig.ask(*question) for question in questions])
    chain.dispatcher.tick(rig.plugin)


def test_a_guest_sees_a_connection() -> None:
    rig = Rig()
    rig.called.clear()
    world = World(chain=guests(rig))
    world.client("hello", end=True)
    world.upstream("world", end=True)
    assert world.done
    assert (world.sent_up, world.sent_down) == (b"hello", b"world")
    assert rig.called == [
        "proxy_on_context_create",
        NEW,
        DOWN,
        UP,
        "proxy_on_upstream_connection_close",
        *END,
    ]
    assert rig.vm.contexts.keys() == {1}
    assert world.chain.dispatcher.in_flight(rig.vm) == 0


def test_a_plugin_is_a_filter() -> None:
    rig = Rig()
    world = World([rig.plugin])
    world.client("x")
    assert DOWN in rig.called


def test_continue_and_close_from_a_tick() -> None:
    rig = Rig()
    rig.returns(DOWN, 1)
    world = World(chain=guests(rig))
    world.client("held")
    here = ("proxy_set_effective_context", 2)
    in_tick(rig, world.chain, here, ("proxy_continue_stream", 2))
    assert world.sent_up == b""
    world.resume()
    assert world.sent_up == b"held"
    in_tick(rig, world.chain, here, ("proxy_close_stream", 3))
    world.resume()
    assert world.done
    assert rig.called[-4:] == END


def test_one_connection_closes_another() -> None:
    rig = Rig()
    chain = guests(rig)
    first, second = World(chain=chain), World(chain=chain)
    rig.during(DOWN, lambda: (rig.ask("proxy_set_effective_context", 2), rig.ask("proxy_close_stream", 2)))
    second.client("close the other one")
    assert not first.done
    assert not second.done
    first.resume()
    assert first.done


def test_a_guest_that_closes_as_it_is_told_of_the_connection_sees_its_end() -> None:
    rig = Rig()
    rig.called.clear()
    rig.during("proxy_on_context_create", lambda: rig.ask("proxy_close_stream", 2))
    world = World(chain=guests(rig))
    assert world.done
    assert world.clusters == []
    assert rig.called == ["proxy_on_context_create", NEW, *END]
    assert rig.vm.contexts.keys() == {1}


def test_no_callback_follows_the_last_one() -> None:
    rig = Rig()
    world = World(chain=guests(rig))
    rig.called.clear()
    rig.during(UP, lambda: rig.ask("proxy_close_stream", 3))
    world.upstream("x", end=True)
    assert rig.called == [UP, "proxy_on_upstream_connection_close", *END]
    assert world.sent_down == b""


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(FailurePolicy))
@pytest.mark.parametrize("callback", [NEW, DOWN, UP, "proxy_on_context_create"])
def test_a_trap_closes_the_connection(policy: FailurePolicy, callback: str) -> None:
    rig = Rig()
    rig.during(callback, boom)
    factories, _, calls = recorders("behind")
    world = World(chain=guests(rig, policy=policy, behind=factories))
    if not world.done:
        world.client("x")
    if not world.done:
        world.upstream("y")
    assert world.done
    assert world.closed == {"up": False, "down": False}
    assert world.sent_down == b""
    assert CLOSED not in rig.called
    if calls:
        assert calls[-4:] == ["behind close LOCAL", "behind done", "behind log", "behind delete"]


@pytest.mark.parametrize("callback", [NEW, DOWN, UP, CLOSED, "proxy_on_log"])
def test_the_old_fail_open_lets_the_connection_go_on(callback: str) -> None:
    rig = Rig()
    rig.during(callback, boom)
    world = World(chain=guests(rig, fail_open=True))
    world.client("x", end=True)
    world.upstream("y", end=True)
    assert world.done
    assert (world.sent_up, world.sent_down) == (b"x", b"y")
    later = World(chain=world.chain)
    later.client("z")
    assert later.sent_up == b"z"


@pytest.mark.parametrize(
    ("policy", "serves"),
    [
        (FailurePolicy.FAIL_CLOSED, False),
        (FailurePolicy.FAIL_OPEN, True),
        (FailurePolicy.FAIL_RELOAD, False),
    ],
)
def test_later_connections(policy: FailurePolicy, serves: bool) -> None:
    rig = Rig()
    chain = guests(rig, policy=policy)
    rig.during(DOWN, boom)
    World(chain=chain).client("x")
    rig.called.clear()
    later = World(chain=chain)
    assert rig.called == []
    assert later.done is not serves
    if serves:
        later.client("y")
        assert later.sent_up == b"y"


def test_reload_after_the_back_off() -> None:
    rigs = [Rig(), Rig()]
    chain = TcpChain([], TcpProxy("s", (("svc", 1),)))
    current = [rigs[0].plugin]

    def restart() -> None:
        current[0] = rigs[1].plugin

    chain.factories.append(
        WasmTcpFilterFactory(
            lambda: current[0],
            chain.dispatcher,
            policy=FailurePolicy.FAIL_RELOAD,
            restart=restart,
            reload_after=0.0,
        )
    )
    rigs[0].during(DOWN, boom)
    World(chain=chain).client("x")
    later = World(chain=chain)
    later.client("y")
    assert later.sent_up == b"y"
    assert DOWN in rigs[1].called


def test_a_guest_that_dies_in_a_tick_is_noticed_at_the_next_callback() -> None:
    rig = Rig()
    world = World(chain=guests(rig))
    rig.during("proxy_on_tick", boom)
    world.chain.dispatcher.tick(rig.plugin)
    world.resume()
    assert not world.done
    world.client("x")
    assert world.done
    assert world.sent_up == b""


def test_what_waits_for_a_dead_guest_does_not_wait_for_ever() -> None:
    for fail_open in (False, True):
        rig = Rig()
        rig.returns(DOWN, 1)
        rig.returns(UP, 1)
        world = World(chain=guests(rig, fail_open=fail_open))
        world.client("held")
        world.upstream("too")
        rig.during("proxy_on_tick", boom)
        world.chain.dispatcher.tick(rig.plugin)
        world.resume()
        assert world.done is not fail_open
        if fail_open:
            assert (world.sent_up, world.sent_down) == (b"held", b"too")


def test_the_others_callbacks_go_on_when_one_vm_dies() -> None:
    first, second = Rig(), Rig()
    second.during(DOWN, boom)
    world = World(chain=guests(first, second))
    world.client("x")
    assert world.done
    assert first.called[-4:] == END
    assert CLOSED not in second.called
    assert first.vm.contexts.keys() == {1}


def test_a_trap_at_the_end_does_not_keep_the_connection() -> None:
    rig = Rig()
    rig.during("proxy_on_done", boom)
    world = World(chain=guests(rig))
    world.feed(ev.DownstreamReset())
    assert world.done
    assert world.chain.dispatcher.in_flight(rig.vm) == 0
