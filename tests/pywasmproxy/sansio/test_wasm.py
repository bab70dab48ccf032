"""Real guests in the chain: what they ask for reaches the right exchange, and what their death means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from abi.proxy_wasm.failures import LOAD_FAILED, PluginFailure, PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, MapType, StreamType
from abi.proxy_wasm.versions import AbiVersion
from abi.proxy_wasm.wire import encode_map
from pywasmproxy.config.model import FailurePolicy
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.filter import FilterCallbacks
from pywasmproxy.sansio.native import NativeFilter
from pywasmproxy.sansio.wasm import WasmFilterFactory
from tests.abi.rig import Rig
from tests.pywasmproxy.sansio.driver import MS, SVC, Clock, Exchange, manager

REQUEST, RESPONSE = int(StreamType.HTTP_REQUEST), int(StreamType.HTTP_RESPONSE)
PAUSE = 1


class World:
    """One guest, a chain with it (several times, if asked), and open exchanges."""

    def __init__(self, *, times: int = 1, rig: Rig | None = None, **policy: Any) -> None:
        self.rig = rig or Rig(name="p")
        self.clock = Clock()
        self.dispatcher = Dispatcher()
        factories = [WasmFilterFactory(self.rig.plugin, self.dispatcher, **policy) for _ in range(times)]
        self.chain = FilterChain(factories, http=manager(SVC), surroundings=self.clock)

    def open(self) -> Exchange:
        return Exchange(self.chain)

    @property
    def calls(self) -> list[str]:
        return [name.removeprefix("proxy_on_") for name in self.rig.called]


def trap() -> None:
    raise RuntimeError("trap")


def local(rig: Rig, status: int = 403, body: bytes = b"no", details: bytes = b"not you") -> Callable[[], Any]:
    headers = encode_map([(b"x-l", b"1")])
    return lambda: rig.ask("proxy_send_local_response", status, details, body, headers, 0xFFFF_FFFF)


# --- the ordinary way -----------------------------------------------------------------------------------


def test_a_plugin_is_a_filter() -> None:
    rig = Rig()
    rig.during(
        "proxy_on_response_headers",
        lambda: rig.ask("proxy_add_header_map_value", int(MapType.HTTP_RESPONSE_HEADERS), b"hi", b"there"),
    )
    exchange = Exchange(FilterChain([rig.plugin]))
    exchange.get()
    exchange.respond(b"x")
    assert exchange.response["hi"] == "there"
    assert [name.removeprefix("proxy_on_") for name in rig.called[3:]] == [
        "context_create",
        "request_headers",
        "response_headers",
        "response_body",
        "response_body",
        "log",
        "done",
        "delete",
    ]


def test_pause_then_continue_from_a_tick() -> None:
    world = World()
    rig = world.rig
    rig.returns("proxy_on_request_headers", PAUSE)
    exchange = world.open()
    exchange.post(b"abc")
    assert exchange.commands == []
    stream = max(rig.vm.contexts)

    def resume() -> None:
        assert rig.ask("proxy_set_effective_context", stream) == 0
        assert rig.ask("proxy_replace_header_map_value", 0, b"x-late", b"1") == 0
        assert rig.ask("proxy_continue_stream", REQUEST) == 0

    rig.during("proxy_on_tick", resume)
    world.dispatcher.tick(rig.plugin)
    assert exchange.woken == [exchange.stream]
    exchange.wake()
    assert exchange.only(do.SendUpstreamHeaders).headers["x-late"] == "1"
    assert exchange.uploaded == b"abc"


def test_a_response_can_be_changed_until_it_continues() -> None:
    world = World()
    rig = world.rig
    rig.returns("proxy_on_response_headers", PAUSE)
    exchange = world.open()
    exchange.get()
    exchange.respond(b"abc")
    stream = max(rig.vm.contexts)

    def resume() -> None:
        rig.ask("proxy_set_effective_context", stream)
        assert rig.ask("proxy_add_header_map_value", 2, b"x-late", b"1") == 0
        rig.ask("proxy_continue_stream", RESPONSE)

    rig.during("proxy_on_tick", resume)
    world.dispatcher.tick(rig.plugin)
    exchange.wake()
    assert exchange.response["x-late"] == "1"
    assert exchange.body == b"abc"


def test_guest_code_of_one_exchange_acts_on_another() -> None:
    world = World()
    rig = world.rig
    rig.returns("proxy_on_request_headers", PAUSE)
    first, second = world.open(), world.open()
    first.get("/1")
    number = max(rig.vm.contexts)

    def answer_the_other() -> None:
        rig.ask("proxy_set_effective_context", number)
        local(rig)()

    rig.during("proxy_on_request_headers", answer_the_other)
    second.get("/2")
    assert first.commands == []  # not within the other one's callback
    first.wake()
    assert (first.status, first.info.response_code_details) == ("403", "not_you")
    assert second.commands == []


def test_local_response_and_close_from_a_tick() -> None:
    for ask in ("local", "close"):
        world = World()
        rig = world.rig
        rig.returns("proxy_on_request_headers", PAUSE)
        exchange = world.open()
        exchange.get()
        stream = max(rig.vm.contexts)

        def act(ask: str = ask, rig: Rig = rig, stream: int = stream) -> None:
            rig.ask("proxy_set_effective_context", stream)
            _ = local(rig)() if ask == "local" else rig.ask("proxy_close_stream", REQUEST)

        rig.during("proxy_on_tick", act)
        world.dispatcher.tick(rig.plugin)
        exchange.wake()
        assert exchange.promises.client == ("complete" if ask == "local" else "reset")


def test_asks_for_an_exchange_that_is_over_go_nowhere() -> None:
    world = World()
    rig = world.rig
    rig.during("proxy_on_log", local(rig))
    exchange = world.open()
    exchange.get()
    exchange.respond()
    assert exchange.status == "200"
    assert not rig.vm.deferred
    assert world.dispatcher.in_flight(rig.vm) == 0


def test_a_tick_without_exchanges() -> None:
    world = World()
    world.rig.during("proxy_on_tick", local(world.rig))
    world.dispatcher.tick(world.rig.plugin)
    assert world.calls[-1] == "tick"


def test_the_route_cache_can_be_cleared() -> None:
    rig = Rig(AbiVersion.V0_1_0)
    world = World(rig=rig)

    def move() -> None:
        rig.ask("proxy_replace_header_map_value", 0, b"x-forwarded-proto", b"")
        rig.ask("proxy_clear_route_cache")

    rig.during("proxy_on_request_headers", move)
    rig.returns("proxy_on_request_headers", PAUSE)
    exchange = world.open()
    exchange.get()
    assert exchange.info.route_name is None


def test_guests_that_did_not_see_the_request_only_log() -> None:
    world = World(times=2)
    rig = world.rig
    rig.during("proxy_on_request_headers", local(rig))
    exchange = world.open()
    exchange.get()
    assert exchange.status == "403"
    assert world.calls[3:] == [
        "context_create",
        "request_headers",
        "response_headers",
        "response_body",
        "log",
        "context_create",
        "log",
        "done",
        "delete",
        "done",
        "delete",
    ]


def test_trailers_reach_guests_that_saw_the_request() -> None:
    world = World()
    exchange = world.open()
    exchange.get()
    exchange.respond(b"x", trailers=[("x-t", "1")])
    assert "response_trailers" in world.calls


@pytest.mark.parametrize("callback", ["response_body", "response_trailers"])
def test_no_part_of_a_response_reaches_a_guest_that_did_not_see_the_request(callback: str) -> None:
    world = World()
    filter = world.chain.factories[0](_NoCallbacks(), Exchange(world.chain).info)
    assert filter is not None
    call = getattr(filter, f"on_{callback}")
    action = call(bytearray(), True) if callback == "response_body" else call(None)
    assert not action.paused
    assert callback not in world.calls


class _NoCallbacks:
    waiting = False

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


# --- death ----------------------------------------------------------------------------------------------

CALLBACKS_BEFORE_THE_HEAD = ["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_response_headers"]


def run(world: World) -> Exchange:
    exchange = world.open()
    exchange.post(b"abc")
    if exchange.promises.upstream == "complete" and not exchange.promises.done:
        exchange.respond(b"Hello", end=False)
    if not exchange.promises.done:
        exchange.feed(ev.ResponseBody(b"", True))
    return exchange


@pytest.mark.parametrize("callback", CALLBACKS_BEFORE_THE_HEAD)
@pytest.mark.parametrize(
    ("policy", "this", "later"),
    [
        ({}, "503", "503"),
        ({"policy": FailurePolicy.FAIL_OPEN}, "503", "200"),
        ({"policy": FailurePolicy.FAIL_RELOAD}, "503", "503"),
        ({"fail_open": True}, "200", "200"),
    ],
)
def test_policies(callback: str, policy: dict[str, Any], this: str, later: str) -> None:
    world = World(**policy)
    world.rig.during(callback, trap)
    exchange = run(world)
    assert exchange.status == this
    if this == "503":
        assert exchange.info.response_code_details == "wasm_fail_stream"
        assert exchange.body == b""
    called = len(world.calls)
    assert world.calls[-1] == callback.removeprefix("proxy_on_")  # nothing after it, not even log
    following = run(world)
    assert following.status == later
    assert len(world.calls) == called
    assert world.dispatcher.in_flight(world.rig.vm) == 0


@pytest.mark.parametrize(("fail_open", "client"), [(False, "reset"), (True, "complete")])
def test_death_behind_the_head(fail_open: bool, client: str) -> None:
    world = World(fail_open=fail_open)
    world.rig.during("proxy_on_response_body", trap)
    exchange = run(world)
    assert exchange.status == "200"
    assert exchange.promises.client == client
    assert exchange.body == (b"Hello" if fail_open else b"")


@pytest.mark.parametrize("callback", ["log", "done", "delete"])
def test_death_at_the_end_costs_only_later_exchanges(callback: str) -> None:
    world = World()
    world.rig.during(f"proxy_on_{callback}", trap)
    assert run(world).promises.client == "complete"
    assert world.calls[-1] == callback
    assert run(world).status == "503"


def test_what_a_dying_guest_asked_for_is_void() -> None:
    world = World()
    rig = world.rig

    def answer_and_die() -> None:
        local(rig)()
        trap()

    rig.during("proxy_on_request_headers", answer_and_die)
    assert run(world).status == "503"
    assert not rig.vm.deferred


@pytest.mark.parametrize(("fail_open", "status"), [(False, "503"), (True, "200")])
@pytest.mark.parametrize("killer", ["tick", "exchange"])
def test_nobody_waits_for_a_dead_guest(fail_open: bool, status: str, killer: str) -> None:
    world = World(fail_open=fail_open)
    rig = world.rig
    rig.returns("proxy_on_request_headers", PAUSE)
    waiting = world.open()
    waiting.get()
    if killer == "tick":
        rig.during("proxy_on_tick", trap)
        world.dispatcher.tick(rig.plugin)
        world.dispatcher.tick(rig.plugin)  # dead already: nothing to do
    else:
        rig.during("proxy_on_request_headers", trap)
        world.open().get()
    waiting.wake()
    if status == "200":
        waiting.respond()
    assert waiting.status == status


def test_a_request_that_was_answered_waits_no_more() -> None:
    world = World(rig=Rig(name="p"))
    rig = world.rig
    rig.returns("proxy_on_request_headers", PAUSE)
    world.chain.factories.insert(0, HoldsResponse)
    exchange = world.open()
    exchange.get()
    stream = max(rig.vm.contexts)

    def answer() -> None:
        rig.ask("proxy_set_effective_context", stream)
        local(rig)()

    rig.during("proxy_on_tick", answer)
    world.dispatcher.tick(rig.plugin)
    exchange.wake()
    rig.during("proxy_on_tick", trap)
    world.dispatcher.tick(rig.plugin)  # the answer is under way in another filter: no reason to cut it off
    assert exchange.woken == []
    HoldsResponse.made[-1].continue_response()
    exchange.wake()
    assert (exchange.status, exchange.body) == ("403", b"no")


class HoldsResponse(NativeFilter):
    """Holds every response until somebody lets it go."""

    made: ClassVar[list[HoldsResponse]] = []

    def __init__(self, callbacks: FilterCallbacks, info: StreamInfo) -> None:
        super().__init__(callbacks, info)
        self.made.append(self)

    def on_response_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action:
        return Action.STOP_ALL_AND_BUFFER


def test_a_dead_vm_is_noticed_when_it_is_drained() -> None:
    world = World()
    rig = world.rig
    rig.returns("proxy_on_request_headers", PAUSE)
    waiting = world.open()
    waiting.get()
    rig.during("proxy_on_done", trap)
    with pytest.raises(PluginFailure):
        rig.plugin.close()
    world.dispatcher.drain(rig.vm)
    waiting.wake()
    assert waiting.status == "503"


def test_an_exchange_in_between_fails_at_its_next_callback() -> None:
    world = World()
    between = world.open()
    between.get()
    world.rig.during("proxy_on_request_headers", trap)
    world.open().get()
    assert between.woken == []
    between.respond(b"x")
    assert between.status == "503"


def test_plugins_that_share_a_vm_die_together_and_follow_their_own_policies() -> None:
    rig = Rig(name="a")
    other = Plugin(rig.vm, name="b")
    dispatcher = Dispatcher()
    chains = {
        plugin.name: FilterChain(
            [WasmFilterFactory(plugin, dispatcher, policy=policy)], http=manager(SVC), surroundings=Clock()
        )
        for plugin, policy in ((rig.plugin, FailurePolicy.FAIL_CLOSED), (other, FailurePolicy.FAIL_OPEN))
    }
    rig.during("proxy_on_request_headers", trap)
    for name, status in (("a", "503"), ("a", "503"), ("b", "200")):
        exchange = Exchange(chains[name])
        exchange.get()
        if status == "200":
            exchange.respond()
        assert exchange.status == status


def test_reload_after_the_back_off() -> None:
    clock = Clock()
    rigs = [Rig(name="p")]
    rigs[0].host.monotonic_ns = clock.monotonic_ns  # type: ignore[method-assign]
    attempts: list[str] = ["refused", "ok"]

    def restart() -> None:
        if attempts.pop(0) == "refused":
            raise PluginStartError(LOAD_FAILED, [])
        rigs.append(Rig(name="p"))

    factory = WasmFilterFactory(
        lambda: rigs[-1].plugin,
        Dispatcher(),
        policy=FailurePolicy.FAIL_RELOAD,
        restart=restart,
        reload_after=1.0,
    )
    chain = FilterChain([factory], http=manager(SVC), surroundings=clock)
    rigs[0].during("proxy_on_request_headers", trap)

    def status() -> str:
        exchange = Exchange(chain)
        exchange.get()
        if exchange.promises.upstream == "complete":
            exchange.respond()
        return exchange.status

    assert status() == "503"  # dies
    clock.advance(999)
    assert (status(), attempts) == ("503", ["refused", "ok"])
    clock.advance(1)
    assert (status(), attempts) == ("503", ["ok"])  # did not start: once more after another back-off
    clock.advance(999)
    assert (status(), attempts) == ("503", ["ok"])
    clock.advance(1)
    assert (status(), attempts) == ("200", [])
    assert clock.now == 2000 * MS


def test_restart_is_for_the_reload_policy_only() -> None:
    world = World(restart=trap, reload_after=0.0)
    world.rig.during("proxy_on_request_headers", trap)
    assert [run(world).status, run(world).status] == ["503", "503"]


def test_a_plugin_can_be_replaced_while_exchanges_are_in_flight() -> None:
    rigs = [Rig(name="p")]
    dispatcher = Dispatcher()
    factory = WasmFilterFactory(lambda: rigs[-1].plugin, dispatcher)
    chain = FilterChain([factory], http=manager(SVC), surroundings=Clock())
    old = Exchange(chain)
    old.get()
    rigs.append(Rig(name="p"))
    new = Exchange(chain)
    new.get()
    assert [dispatcher.in_flight(rig.vm) for rig in rigs] == [1, 1]
    old.respond()
    new.respond()
    assert [rig.called[-1] for rig in rigs] == ["proxy_on_delete", "proxy_on_delete"]
    assert [dispatcher.in_flight(rig.vm) for rig in rigs] == [0, 0]
