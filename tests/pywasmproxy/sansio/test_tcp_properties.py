"""Random chunks, half-closes, pauses and breaks: no byte is lost, doubled or out of order, and every filter's
callbacks come in an order that a connection can have.

`World` (tcp_driver.py) checks every command. What a connection that broke, or that a filter closed, has not
delivered is a gap at the end, never in the middle.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, PeerType
from pywasmproxy.sansio import tcp_messages as ev
from pywasmproxy.sansio.tcp_filter import NativeTcpFilter, TcpFilterCallbacks
from tests.pywasmproxy.sansio.tcp_driver import GO, STOP, World

LEGAL = re.compile(r"N[DdUu]*CoLx")
"""N new connection, D down, U up (small: with the end), C close, o done, L log, x delete."""


class Whimsical(NativeTcpFilter):
    """Stops, continues and closes as it likes, until it is told to behave."""

    def __init__(self, callbacks: TcpFilterCallbacks, info: StreamInfo, data: Any, may_close: bool) -> None:
        super().__init__(callbacks, info)
        self.story = ""
        self.behaves = False
        self._draw = data.draw
        self._may_close = may_close

    def _whim(self) -> Action:
        if self.behaves:
            return GO
        deeds = ["go"] * 6 + ["stop"] * 3 + ["stop and continue", "continue"]
        deed = self._draw(st.sampled_from([*deeds, "close"] if self._may_close else deeds))
        if "continue" in deed:
            self.callbacks.continue_downstream()
        if deed == "close":
            self.callbacks.close()
        return STOP if deed.startswith("stop") else GO

    def on_new_connection(self) -> Action:
        self.story += "N"
        return self._whim()

    def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        assert data or end_of_stream
        self.story += "d" if end_of_stream else "D"
        return self._whim()

    def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        assert data or end_of_stream
        self.story += "u" if end_of_stream else "U"
        return self._whim()

    def on_downstream_connection_close(self, peer: PeerType) -> None:
        self.story += "C"

    def on_done(self) -> None:
        self.story += "o"

    def on_log(self) -> None:
        self.story += "L"

    def on_delete(self) -> None:
        self.story += "x"


class Ends:
    """What both ends send: bytes that say where they stand."""

    def __init__(self, world: World, data: Any) -> None:
        self.world, self.draw = world, data.draw
        self.sent = {"client": b"", "upstream": b""}
        self.ended = {"client": False, "upstream": False}

    def send(self, who: str, end: bool) -> None:
        size = self.draw(st.integers(0 if end else 1, 7))
        start = len(self.sent[who])
        chunk = bytes(97 + (start + n) % 26 for n in range(size))
        self.sent[who] += chunk
        self.ended[who] = end
        kind = ev.DownstreamData if who == "client" else ev.UpstreamData
        self.world.feed(kind(chunk, end))

    def may_send(self, who: str) -> bool:
        world = self.world
        reads = world.reading_down if who == "client" else world.reading_up
        return reads and not world.done and not self.ended[who]


def check_stories(filters: list[Whimsical]) -> None:
    for filter in filters:
        story = filter.story
        assert not story or LEGAL.fullmatch(story), story
        # After an end nothing but that end comes again (while it waits somewhere).
        assert not re.search("d.*D|u.*U", story), story


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_byte_is_lost_or_doubled(data: Any) -> None:
    filters: list[Whimsical] = []

    def factory(callbacks: TcpFilterCallbacks, info: StreamInfo) -> Whimsical:
        filters.append(Whimsical(callbacks, info, data, may_close=False))
        return filters[-1]

    count = data.draw(st.integers(0, 3))
    world = World([factory] * count, limit=data.draw(st.sampled_from([1, 5, 100])), connects=False)
    ends = Ends(world, data)
    connected = False
    for _ in range(data.draw(st.integers(0, 20))):
        deed = data.draw(st.sampled_from(["client", "upstream", "continue"]))
        if world.clusters and not connected:
            connected = True
            world.connect()
        elif deed == "continue" and filters:
            data.draw(st.sampled_from(filters)).callbacks.continue_downstream()
        elif deed in ends.sent and connected and ends.may_send(deed):
            ends.send(deed, end=False)
        world.resume()
    for filter in filters:
        filter.behaves = True
    for filter in filters:
        filter.callbacks.continue_downstream()
        filter.callbacks.continue_upstream()
    world.resume()
    if not connected:
        assert world.clusters == ["svc"]
        world.connect()
    world.resume()
    order = data.draw(st.permutations(["client", "upstream"]))
    for who in order:
        for _ in range(data.draw(st.integers(0, 2))):
            assert ends.may_send(who)
            ends.send(who, end=False)
        ends.send(who, end=True)
        world.resume()
    assert world.done
    assert world.sent_up == ends.sent["client"]
    assert world.sent_down == ends.sent["upstream"]
    assert (world.up_ended, world.down_ended) == (True, True)
    assert world.closed == {"up": False, "down": False}
    check_stories(filters)
    assert all(filter.story for filter in filters)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_connection_that_breaks_off_ends_for_everybody(data: Any) -> None:
    filters: list[Whimsical] = []

    def factory(callbacks: TcpFilterCallbacks, info: StreamInfo) -> Whimsical:
        filters.append(Whimsical(callbacks, info, data, may_close=True))
        return filters[-1]

    world = World([factory] * data.draw(st.integers(0, 3)), limit=20, connects=False)
    ends = Ends(world, data)
    connected = False
    deeds = ["client", "upstream"] * 4 + ["client end", "upstream end", "continue", "break", "connect"] * 2
    deeds += ["client reset", "upstream reset", "idle", "stop", "close"]
    for _ in range(data.draw(st.integers(0, 25))):
        deed = data.draw(st.sampled_from(deeds))
        who = deed.partition(" ")[0]
        if deed == "connect" and world.clusters and not connected and not world.done:
            connected = True
            world.connect()
        elif deed == "continue" and filters:
            data.draw(st.sampled_from(filters)).callbacks.continue_downstream()
        elif deed == "close" and filters:
            data.draw(st.sampled_from(filters)).callbacks.close()
        elif deed == "client reset":
            world.feed(ev.DownstreamReset())
        elif deed == "upstream reset" and connected:
            world.feed(ev.UpstreamReset())
        elif deed == "idle":
            world.idle()
        elif deed == "stop":
            world.feed(ev.ProxyStops())
        elif who in ends.sent and connected and ends.may_send(who):
            ends.send(who, end=deed.endswith("end"))
        if data.draw(st.booleans()):
            world.resume()
    world.resume()
    event("ended by itself" if world.done else "stopped")
    world.feed(ev.ProxyStops())
    assert world.done
    assert ends.sent["client"].startswith(bytes(world.sent_up))
    assert ends.sent["upstream"].startswith(bytes(world.sent_down))
    check_stories(filters)
