"""The core of TCP connections: order of filters, pauses, half-closes, ends. No sockets."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action
from pywasmproxy.config.model import TcpProxy
from pywasmproxy.sansio import tcp_messages as ev
from pywasmproxy.sansio.events import Resumed, UpstreamConnected, UpstreamFailure
from pywasmproxy.sansio.local_reply import Flags
from pywasmproxy.sansio.states import StreamStateError
from pywasmproxy.sansio.tcp import TcpChain
from pywasmproxy.sansio.tcp_filter import NativeTcpFilter, TcpFilter, TcpFilterCallbacks
from tests.pywasmproxy.sansio.tcp_driver import GO, STOP, Recorder, World, recorders

END = ["one close LOCAL", "one done", "one log", "one delete"]


def one(**answers: list[Action]) -> tuple[World, Recorder, list[str]]:
    """A connection through one filter whose callbacks (`new`, `down`, `up`) return these."""
    factories, made, calls = recorders("one")

    def prepared(callbacks: TcpFilterCallbacks, info: StreamInfo) -> TcpFilter | None:
        filter = factories[0](callbacks, info)
        made[0].answers = answers
        return filter

    world = World([prepared])
    return world, made[0], calls


# --- no filter --------------------------------------------------------------------------------------------


def test_bytes_go_through_without_a_filter() -> None:
    world = World()
    assert world.clusters == ["svc"]
    assert world.reading_down
    world.client("hello")
    world.upstream("world")
    world.client("!", end=True)
    world.upstream("?", end=True)
    assert (world.sent_up, world.sent_down) == (b"hello!", b"world?")
    assert (world.up_ended, world.down_ended, world.done) == (True, True, True)
    assert world.closed == {"up": False, "down": False}


def test_nothing_is_read_before_the_upstream_is_there() -> None:
    world = World(connects=False)
    assert not world.reading_down
    world.connect()
    assert world.reading_down


def test_bytes_that_come_all_the_same_wait() -> None:
    world = World(connects=False)
    world.client("early", end=True)
    assert world.sent_up == b""
    world.connect()
    assert world.sent_up == b"early"
    assert world.up_ended


def test_properties_of_a_connection() -> None:
    world = World(connects=False)
    world.clock.advance(7)
    world.connect()
    world.client("hello")
    world.upstream("hi")
    info = world.info
    assert (info.upstream_address, info.upstream_local_address) == ("10.0.0.2:80", "10.0.0.3:999")
    assert (info.cluster_name, info.upstream_attempt_count) == ("svc", 1)
    assert (info.request_body_size, info.response_body_size) == (5, 2)
    assert info.upstream_pool_ready_duration == 7_000_000
    assert info.upstream_transport_failure_reason == ""
    assert info.start_time is not None


# --- connecting -------------------------------------------------------------------------------------------


def test_an_upstream_that_refuses_is_tried_as_often_as_configured() -> None:
    world = World(proxy=TcpProxy("s", (("svc", 1),), max_connect_attempts=3), connects=False)
    world.fail()
    world.fail()
    assert not world.done
    assert world.info.upstream_attempt_count == 3
    world.fail()
    assert world.done
    assert world.clusters == ["svc"] * 3
    assert world.closed == {"up": False, "down": False}
    assert world.info.response_flags == (
        Flags.UPSTREAM_CONNECTION_FAILURE | Flags.UPSTREAM_RETRY_LIMIT_EXCEEDED
    )
    assert world.info.upstream_transport_failure_reason == "why"


def test_a_cluster_without_hosts_is_not_asked_again() -> None:
    world = World(proxy=TcpProxy("s", (("svc", 1),), max_connect_attempts=3), connects=False)
    world.fail(UpstreamFailure.NO_HEALTHY_UPSTREAM)
    assert world.done
    assert world.clusters == ["svc"]
    assert world.info.response_flags == Flags.NO_HEALTHY_UPSTREAM


def test_a_cluster_that_does_not_exist() -> None:
    factories, _, calls = recorders("one")
    chain = TcpChain(factories, TcpProxy("s", (("nope", 1),)), known=("svc",))
    world = World(chain=chain)
    assert world.done
    assert (world.clusters, calls) == ([], ["one new", *END])
    assert world.info.response_flags == Flags.NO_CLUSTER_FOUND
    assert world.info.upstream_attempt_count == 0


def test_weights_of_clusters() -> None:
    chain = TcpChain([], TcpProxy("s", (("a", 3), ("b", 1))), surroundings=MemoryHost())
    taken = [chain.pick_cluster() for _ in range(2000)]
    assert 1350 < taken.count("a") < 1650
    assert taken.count("a") + taken.count("b") == 2000


# --- one filter -------------------------------------------------------------------------------------------


def test_the_life_of_a_connection() -> None:
    world, _, calls = one()
    world.client("hello")
    world.upstream("world")
    world.client(end=True)
    world.upstream(end=True)
    assert calls == ["one new", "one down hello", "one up world", "one down .", "one up .", *END]


def test_the_client_ends_last() -> None:
    world, _, calls = one()
    world.upstream("bye", end=True)
    assert not world.done
    world.client("more", end=True)
    assert world.done
    assert calls[-4:] == ["one close REMOTE", *END[1:]]
    assert (world.sent_up, world.sent_down) == (b"more", b"bye")


def test_a_reset_of_the_client_is_passed_on() -> None:
    world, _, calls = one()
    world.client("hello")
    world.feed(ev.DownstreamReset())
    assert world.closed["up"] is True
    assert calls[-4:] == ["one close REMOTE", *END[1:]]
    assert world.info.response_flags == Flags.DOWNSTREAM_CONNECTION_TERMINATION


def test_a_reset_of_the_upstream_is_passed_on() -> None:
    world, _, calls = one()
    world.feed(ev.UpstreamReset())
    assert world.closed == {"down": True, "up": False}
    assert calls == ["one new", *END]


def test_stopped_data_comes_again_with_what_follows() -> None:
    world, _, calls = one(down=[STOP, STOP])
    world.client("a")
    world.client("b")
    assert world.sent_up == b""
    world.client("c")
    assert calls[1:] == ["one down a", "one down ab", "one down abc"]
    assert world.sent_up == b"abc"
    world.client("d")
    assert calls[-1] == "one down d"


def test_data_that_is_continued_from_elsewhere() -> None:
    world, filter, calls = one(down=[STOP])
    world.client("a", end=True)
    filter.callbacks.continue_downstream()
    assert world.woken == 1
    assert filter.callbacks.waiting
    world.resume()
    assert (world.sent_up, world.up_ended) == (b"a", True)
    assert not filter.callbacks.waiting
    filter.callbacks.continue_downstream()
    world.resume()
    assert calls[1:] == ["one down a."]
    assert world.sent_up == b"a"


def test_a_new_connection_that_is_held() -> None:
    world, filter, _ = one(new=[STOP])
    assert world.clusters == []
    assert not world.reading_down
    filter.callbacks.continue_downstream()
    world.resume()
    assert world.clusters == ["svc"]


def test_upstream_data_cannot_be_continued_but_goes_on_with_more() -> None:
    world, filter, calls = one(up=[STOP])
    world.upstream("a")
    filter.callbacks.continue_downstream()
    world.resume()
    assert world.sent_down == b""
    world.upstream("b", end=True)
    assert calls[1:] == ["one up a", "one up ab."]
    assert world.sent_down == b"ab"


def test_ends_that_a_filter_holds_end_the_connection_all_the_same() -> None:
    world, _, calls = one(down=[STOP])
    world.client("a", end=True)
    world.upstream("b", end=True)  # both sides of the client's connection have ended
    assert world.done
    assert world.sent_up == b""
    assert calls[-4:] == END
    world, _, calls = one(up=[STOP])
    world.upstream("b", end=True)
    world.client("a", end=True)  # ... of the upstream's
    assert world.done
    assert (world.sent_up, world.sent_down) == (b"a", b"")
    assert calls[-4:] == END


@pytest.mark.parametrize("what", ["new", "down", "up"])
@pytest.mark.parametrize("result", [GO, STOP])
def test_close_from_a_callback(what: str, result: Action) -> None:
    class Closer(NativeTcpFilter):
        def on_new_connection(self) -> Action:
            return self._perhaps("new")

        def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
            return self._perhaps("down")

        def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
            return self._perhaps("up")

        def _perhaps(self, now: str) -> Action:
            if now != what:
                return GO
            self.callbacks.close()
            return result

    later, _, calls = recorders("one")
    world = World([Closer, *later] if what != "up" else [*later, Closer])
    if what == "down":
        world.client("x")
    elif what == "up":
        world.upstream("x")
    assert world.done
    assert (world.sent_up, world.sent_down) == (b"", b"")
    assert world.closed == {"up": False, "down": False}
    assert calls == ([] if what == "new" else ["one new", *END])


def test_close_from_elsewhere_comes_before_further_data() -> None:
    world, filter, calls = one()
    filter.callbacks.close()
    world.client("too late")
    assert world.done
    assert calls == ["one new", *END]
    world.resume()


def test_what_is_asked_at_the_end_means_nothing() -> None:
    class Late(NativeTcpFilter):
        def on_log(self) -> None:
            self.callbacks.close()
            self.callbacks.continue_downstream()

    world = World([Late])
    world.feed(ev.DownstreamReset())
    assert world.done
    assert world.woken == 0
    assert world.stream.feed(ev.DownstreamReset()) == []
    assert world.stream.feed(ev.UpstreamData(b"x")) == []


def test_idle_and_stop() -> None:
    for event in (None, ev.ProxyStops()):
        world, _, calls = one()
        if event is None:
            world.idle()
        else:
            world.feed(event)
        assert calls == ["one new", *END]
        assert world.closed == {"up": False, "down": False}


# --- several filters --------------------------------------------------------------------------------------


def test_the_upstreams_data_goes_the_other_way() -> None:
    factories, _, calls = recorders("a", "b", "c")
    world = World(factories)
    world.client("x")
    world.upstream("y", end=True)
    world.client(end=True)
    life = [f"{name} {what}" for name in "abc" for what in ("close REMOTE", "done", "log", "delete")]
    assert calls == [
        *("a new", "b new", "c new"),
        *("a down x", "b down x", "c down x"),
        *("c up y.", "b up y.", "a up y."),
        *("a down .", "b down .", "c down ."),
        *life,
    ]


def test_what_a_later_filter_stops_comes_to_the_first_one_again() -> None:
    factories, made, calls = recorders("a", "b")
    world = World(factories)
    made[1].answers = {"down": [STOP], "up": [STOP]}
    made[0].answers = {"up": [STOP]}
    world.client("x")
    world.client("y")
    assert calls[2:] == ["a down x", "b down x", "a down xy", "b down xy"]
    calls.clear()
    world.upstream("1")
    world.upstream("2")
    world.upstream("3")
    assert calls == ["b up 1", "b up 12", "a up 12", "b up 123", "a up 123"]
    assert world.sent_down == b"123"


def test_filters_that_have_not_heard_of_the_connection_do_not_hear_of_its_end() -> None:
    factories, made, calls = recorders("one", "two")

    def holds(callbacks: TcpFilterCallbacks, info: StreamInfo) -> TcpFilter | None:
        filter = factories[0](callbacks, info)
        made[0].answers = {"new": [STOP]}
        return filter

    world = World([holds, factories[1]])
    world.idle()
    assert calls == ["one new", *END]


def test_a_factory_may_leave_its_filter_out() -> None:
    factories, _, calls = recorders("one")
    world = World([lambda callbacks, info: None, *factories])
    world.client("x")
    assert calls == ["one new", "one down x"]


# --- flow control -----------------------------------------------------------------------------------------


def test_reading_stops_while_enough_waits() -> None:
    factories, made, _ = recorders("one")
    world = World(factories, limit=4)
    made[0].answers = {"down": [STOP, STOP], "up": [STOP, STOP]}
    world.client("abc")
    assert world.reading_down
    world.client("d")
    assert not world.reading_down
    made[0].callbacks.continue_downstream()
    world.resume()
    assert world.reading_down
    assert world.sent_up == b"abcd"
    world.upstream("1234")
    assert not world.reading_up
    made[0].callbacks.continue_upstream()
    world.resume()
    assert world.reading_up
    assert world.sent_down == b"1234"


# --- drivers' mistakes ------------------------------------------------------------------------------------


def test_events_that_cannot_happen() -> None:
    chain = TcpChain([], TcpProxy("s", (("svc", 1),)))
    stream = chain.open()
    connected = UpstreamConnected("a:1")
    with pytest.raises(StreamStateError, match="DownstreamData cannot happen now"):
        stream.feed(ev.DownstreamData(b"x"))
    stream.feed(ev.NewConnection())
    for event in (ev.NewConnection(), ev.UpstreamData(b"x"), ev.UpstreamReset()):
        with pytest.raises(StreamStateError):
            stream.feed(event)
    stream.feed(connected)
    stream.feed(ev.DownstreamData(b"", True))
    for again in (connected, ev.DownstreamData(b"x")):
        with pytest.raises(StreamStateError):
            stream.feed(again)
    assert stream.feed(Resumed()) == []


def test_events_are_not_fed_from_within_a_filter() -> None:
    seen: list[type[Exception]] = []

    class Feeds(NativeTcpFilter):
        def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> None:
            try:
                world.stream.feed(Resumed())
            except StreamStateError as error:
                seen.append(type(error))

    world = World([Feeds])
    world.client("x")
    assert seen == [StreamStateError]
    assert world.sent_up == b"x"


def test_a_filter_chooses_the_cluster() -> None:
    """Envoy's filter state `envoy.tcp_proxy.cluster`, set before the upstream is connected."""
    factories, made, _ = recorders("one")

    def prepared(callbacks: TcpFilterCallbacks, info: StreamInfo) -> TcpFilter | None:
        assert info.filter_state.put(b"envoy.tcp_proxy.cluster", b"chosen")
        return factories[0](callbacks, info)

    world = World([prepared])
    assert made
    assert world.clusters == ["chosen"]
    assert world.info.cluster_name == "chosen"
