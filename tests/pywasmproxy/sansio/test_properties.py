"""Random filters, random events, random deaths: an exchange always ends, once, and in one of two ways.

`Promises` (driver.py) checks every single command. On top of that: as long as an exchange is not over, some
filter holds a message or the driver still owes an event; and once nobody holds anything back, it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from abi.proxy_wasm.deferred import CloseStream, ContinueStream, LocalResponse
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, StreamType
from pywasmproxy.config.model import FailurePolicy
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.wasm import WasmFilterFactory
from tests.pywasmproxy.sansio.driver import SVC, Clock, Exchange, manager, request

ACTIONS: dict[str, list[Action]] = {
    "headers": [
        Action.CONTINUE,
        Action.STOP_ITERATION,
        Action.STOP_ALL_AND_BUFFER,
        Action.STOP_ALL_AND_WATERMARK,
    ],
    "body": [Action.CONTINUE, Action.STOP_AND_BUFFER, Action.STOP_AND_WATERMARK, Action.STOP_NO_BUFFER],
    "trailers": [Action.CONTINUE, Action.STOP_ITERATION],
    "log": [Action.CONTINUE],
    "done": [Action.CONTINUE],
    "delete": [Action.CONTINUE],
}
DEEDS = ["nothing"] * 8 + [
    "continue request",
    "continue response",
    "reply",
    "close",
    "die",
    "trailers",
    "edit",
]

Choose = Callable[[list[Any]], Any]


class FakeVm:
    """As much of a `Vm` as filters and dispatcher need."""

    def __init__(self) -> None:
        self.deferred: deque[Any] = deque()
        self.failure: PluginFailure | None = None
        self.host = Clock()

    def check_alive(self) -> None:
        if self.failure is not None:
            raise self.failure


class FakePlugin:
    """As much of a `Plugin` as filters and dispatcher need. Its contexts do whatever `choose` says."""

    def __init__(self, vm: FakeVm, choose: Choose) -> None:
        self.vm, self.choose = vm, choose
        self.contexts: list[FakeContext] = []

    @property
    def failed(self) -> bool:
        return self.vm.failure is not None

    def http_stream(self, info: StreamInfo) -> FakeContext:
        self.contexts.append(FakeContext(self, info))
        return self.contexts[-1]


class FakeContext:
    """A guest's context with a will of its own."""

    def __init__(self, plugin: FakePlugin, info: StreamInfo) -> None:
        self.plugin, self.vm, self.info = plugin, plugin.vm, info
        self.order: list[str] = []
        self.seen = {"request": bytearray(), "response": bytearray()}
        self.waiting = {"request": 0, "response": 0}
        self.gathers = {"request": False, "response": False}

    def __getattr__(self, name: str) -> Callable[..., Action]:
        if not name.startswith("on_"):
            raise AttributeError(name)

        def callback(*arguments: Any) -> Action:
            return self._callback(name, *arguments)

        return callback

    def request_phase_over(self) -> None:
        self.order.append("request goes on")
        self._went_on("request")

    def response_phase_over(self) -> None:
        self.order.append("response goes on")
        self._went_on("response")

    def _callback(self, name: str, *arguments: Any) -> Action:
        self.vm.check_alive()
        self.order.append(name)
        choose = self.plugin.choose
        self._deed(choose(DEEDS), name, *arguments)
        action: Action = choose(ACTIONS[name.rpartition("_")[2]])
        if name.endswith("body"):
            self._note_body(name.split("_")[1], bytes(arguments[0]), action)
        return action

    def _note_body(self, side: str, body: bytes, action: Action) -> None:
        """Keep what was seen, once: after STOP_AND_BUFFER, all that waits is shown again."""
        waiting = self.waiting[side]
        if self.gathers[side]:
            del self.seen[side][len(self.seen[side]) - waiting :]
            waiting = 0
        self.seen[side] += body
        self.gathers[side] = action is Action.STOP_AND_BUFFER
        self.waiting[side] = waiting + len(body) if action.paused else 0

    def _went_on(self, side: str) -> None:
        self.gathers[side], self.waiting[side] = False, 0

    def _deed(self, deed: str, name: str, *arguments: Any) -> None:
        context: Any = self
        match deed:
            case "continue request":
                self.vm.deferred.append(ContinueStream(context, StreamType.HTTP_REQUEST))
            case "continue response":
                self.vm.deferred.append(ContinueStream(context, StreamType.HTTP_RESPONSE))
            case "reply":
                status, body = self.plugin.choose([403, 204, 1000]), self.plugin.choose([b"", b"no"])
                self.vm.deferred.append(LocalResponse(context, status, b"", body, HeaderMap(), None))
            case "close":
                self.vm.deferred.append(CloseStream(context, StreamType.HTTP_REQUEST))
            case "die":
                self.vm.failure = PluginFailure("died", name, None)
                raise self.vm.failure
            case "trailers" if name.endswith("body") and arguments[1]:
                made = HeaderMap([("x-made", "1")])
                if name == "on_request_body":
                    self.info.request_trailers = made
                else:
                    self.info.response_trailers = made
            case "edit" if name.endswith("body"):
                arguments[0][:] = self.plugin.choose([b"", b"edited", b"x" * 20])
            case "edit" if name.endswith("headers"):
                removed = self.plugin.choose([":status", ":method", ":path", "x-forwarded-proto"])
                arguments[0].remove(removed)


def _same(plugin: Any) -> Any:
    return plugin


class Play:
    """One random exchange: which events are possible, and what the driver still owes."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.calm = False  # from now on filters only pass on
        self.dispatcher = Dispatcher()
        self.plugins: list[Any] = []
        factories = []
        vms = [FakeVm(), FakeVm()]
        for _ in range(choose([0, 1, 2, 3])):
            plugin: Any = FakePlugin(choose(vms), self._will)
            self.plugins.append(plugin)
            factories.append(
                WasmFilterFactory(
                    partial(_same, plugin),
                    self.dispatcher,
                    policy=choose(list(FailurePolicy)),
                    fail_open=choose([False, False, True]),
                )
            )
        self.chain = FilterChain(
            factories, http=manager(SVC), buffer_limit=choose([4, 1 << 20]), surroundings=Clock()
        )
        self.exchange = Exchange(self.chain)
        self.request = "idle"  # idle, open, complete
        self.response = "none"  # none, awaited, open, complete, failed

    def _will(self, choices: list[Any]) -> Any:
        return choices[0] if self.calm else self.choose(choices)

    # --- events -------------------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> None:
        exchange = self.exchange
        for command in exchange.feed(event):
            match command:
                case do.SendUpstreamHeaders():
                    self.response = "awaited"
                case do.ResetUpstream():
                    self.response = "failed"

    def possible(self) -> list[Callable[[], None]]:
        """What may happen next."""
        found: list[Callable[[], None]] = []
        if self.request == "idle":
            return [self.begin]
        if self.request == "open":
            found += [self.request_body, self.request_body, self.request_end]
        if self.response in ("awaited", "open"):
            found += [self.response_next, self.response_next, self.upstream_fails, self.route_timeout]
        if self.exchange.woken:
            found += [self.wake] * 2
        found += [self.someone_continues] * 3
        found += [self.client_leaves, self.idle]
        return found

    def begin(self) -> None:
        end = self.choose([False, True])
        self.request = "complete" if end else "open"
        self.feed(ev.RequestHeaders(request(method=self.choose(["GET", "HEAD", "POST"])), end))

    def request_body(self) -> None:
        self.feed(ev.RequestBody(self.choose([b"a", b"bcd", b""])))

    def request_end(self) -> None:
        self.request = "complete"
        self.feed(
            self.choose(
                [
                    ev.RequestBody(b"", True),
                    ev.RequestBody(b"end", True),
                    ev.RequestTrailers(HeaderMap([("x-t", "1")])),
                ]
            )
        )

    def response_next(self) -> None:
        if self.response == "awaited":
            end = self.choose([False, True])
            self.response = "complete" if end else "open"
            self.feed(ev.ResponseHeaders(HeaderMap([(":status", "200")]), end))
            return
        piece = self.choose(
            [
                ev.ResponseBody(b"abc"),
                ev.ResponseBody(b"", True),
                ev.ResponseBody(b"end", True),
                ev.ResponseTrailers(HeaderMap([("x-t", "1")])),
            ]
        )
        if isinstance(piece, ev.ResponseTrailers) or piece.end_of_stream:
            self.response = "complete"
        self.feed(piece)

    def upstream_fails(self) -> None:
        self.response = "failed"
        self.feed(ev.UpstreamFailed(self.choose(list(ev.UpstreamFailure))))

    def route_timeout(self) -> None:
        self.feed(ev.RouteTimeout())

    def idle(self) -> None:
        self.feed(ev.IdleTimeout())

    def client_leaves(self) -> None:
        self.feed(ev.DownstreamClosed())

    def wake(self) -> None:
        self.exchange.woken.pop()
        self.feed(ev.Resumed())

    def someone_continues(self) -> None:
        """Guest code somewhere else (a tick) lets one side of one filter go."""
        contexts: list[Any] = [context for plugin in self.plugins for context in plugin.contexts]
        if contexts:
            context = self.choose(contexts)
            context.vm.deferred.append(
                ContinueStream(context, self.choose([StreamType.HTTP_REQUEST, StreamType.HTTP_RESPONSE]))
            )
            self.dispatcher.drain(context.vm)

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """From now on nobody misbehaves: the driver pays what it owes, filters let go what they hold."""
        self.calm = True
        self.choose = lambda choices: choices[0]
        if self.request == "idle":
            self.begin()
        for _ in range(60):
            if self.exchange.stream.done:
                return
            while self.exchange.woken:
                self.wake()
            if self.request == "open":
                self.request_end()
            elif self.response in ("awaited", "open"):
                self.response = "complete" if self.response == "open" else "open"
                last = ev.ResponseBody(b"", True)
                self.feed(
                    last
                    if self.response == "complete"
                    else ev.ResponseHeaders(HeaderMap([(":status", "200")]))
                )
            elif not self.exchange.stream.done:
                self._check_somebody_holds()
                for plugin in self.plugins:
                    for context in plugin.contexts:
                        for kind in (StreamType.HTTP_REQUEST, StreamType.HTTP_RESPONSE):
                            context.vm.deferred.append(ContinueStream(context, kind))
                        self.dispatcher.drain(context.vm)

    def _check_somebody_holds(self) -> None:
        stream = self.exchange.stream
        assert any(stream._waits_at(filter) for filter in stream._filters), (
            "nobody holds it, yet it does not end"
        )


def check_order(context: FakeContext) -> None:
    """Callbacks of one context come in the order of an exchange, none after delete, log/done/delete once."""
    names = [name for name in context.order if name.startswith("on_")]
    for side in ("request", "response"):
        heads = [i for i, name in enumerate(names) if name == f"on_{side}_headers"]
        bodies = [i for i, name in enumerate(names) if name == f"on_{side}_body"]
        trailers = [i for i, name in enumerate(names) if name == f"on_{side}_trailers"]
        assert len(heads) <= 1
        assert len(trailers) <= 1
        assert not bodies or heads[0] < bodies[0]
        assert not trailers or not bodies or bodies[-1] < trailers[0]
    ends = [name for name in names if name in ("on_log", "on_done", "on_delete")]
    assert ends == ["on_log", "on_done", "on_delete"][: len(ends)]
    assert names[len(names) - len(ends) :] == ends


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_exchange_ends_once_whatever_happens(data: st.DataObject) -> None:
    play = Play(lambda choices: data.draw(st.sampled_from(choices)))
    for _ in range(data.draw(st.integers(0, 25))):
        if play.exchange.stream.done:
            break
        play.choose(play.possible())()
    play.finish()
    exchange = play.exchange
    assert exchange.stream.done
    assert exchange.kinds().count("StreamDone") == 1
    assert exchange.promises.client in ("complete", "reset", "gone")
    assert exchange.stream.feed(ev.DownstreamClosed()) == []
    for plugin in play.plugins:
        assert play.dispatcher.in_flight(plugin.vm) == 0
        for context in plugin.contexts:
            check_order(context)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_byte_is_lost_or_doubled(data: st.DataObject) -> None:
    """Filters that pause in any way but dropping, and continue at any time, change nothing."""

    def choose(choices: list[Any]) -> Any:
        kept = [one for one in choices if one not in (Action.STOP_NO_BUFFER, "reply", "close", "die", "edit")]
        return data.draw(st.sampled_from(kept))

    play = Play(choose)
    play.chain.buffer_limit = 1 << 20
    exchange = play.exchange = Exchange(play.chain)
    sent = received = b""
    play.request = "open"
    play.feed(ev.RequestHeaders(request(method="POST")))
    for number in range(data.draw(st.integers(0, 8))):
        action = choose(["request", "response", "continue"])
        piece = b"%d," % number
        if action == "request" and play.request == "open":
            sent += piece
            play.feed(ev.RequestBody(piece))
        elif action == "response" and play.response == "awaited":
            play.response = "open"
            play.feed(ev.ResponseHeaders(HeaderMap([(":status", "200")])))
        elif action == "response" and play.response == "open":
            received += piece
            play.feed(ev.ResponseBody(piece))
        else:
            play.someone_continues()
            while exchange.woken:
                play.wake()
    play.finish()
    assert exchange.stream.done
    assert exchange.uploaded == sent
    assert exchange.body == received
    for plugin in play.plugins:
        for context in plugin.contexts[1:]:  # the first ones are of the exchange that `Play` opened
            assert context.seen == {"request": sent, "response": received}
