"""A driver without sockets for the core of TCP connections: feeds events, obeys commands, and checks them."""

from __future__ import annotations

from collections.abc import Iterable

from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, PeerType
from pywasmproxy.config.model import TcpProxy
from pywasmproxy.sansio import tcp_messages as do
from pywasmproxy.sansio import tcp_messages as ev
from pywasmproxy.sansio.events import IdleTimeout, Resumed, UpstreamConnected, UpstreamFailed, UpstreamFailure
from pywasmproxy.sansio.tcp import TcpChain, TcpStream
from pywasmproxy.sansio.tcp_filter import NativeTcpFilter, TcpFilterCallbacks, TcpFilterFactory
from tests.pywasmproxy.sansio.driver import Broken, Clock

GO, STOP = Action.CONTINUE, Action.STOP_ITERATION


class Recorder(NativeTcpFilter):
    """A filter that notes its calls; `answers` are what its callbacks return, CONTINUE when they run out."""

    def __init__(self, callbacks: TcpFilterCallbacks, info: StreamInfo, calls: list[str], name: str) -> None:
        super().__init__(callbacks, info)
        self.calls, self.name = calls, name
        self.answers: dict[str, list[Action]] = {}

    def _note(self, what: str, text: str = "") -> Action:
        self.calls.append(f"{self.name} {what}{text}")
        waiting = self.answers.get(what, [])
        return waiting.pop(0) if waiting else GO

    def on_new_connection(self) -> Action:
        return self._note("new")

    def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        return self._note("down", f" {data.decode()}{'.' if end_of_stream else ''}")

    def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        return self._note("up", f" {data.decode()}{'.' if end_of_stream else ''}")

    def on_downstream_connection_close(self, peer: PeerType) -> None:
        self._note("close", f" {peer.name}")

    def on_done(self) -> None:
        self._note("done")

    def on_log(self) -> None:
        self._note("log")

    def on_delete(self) -> None:
        self._note("delete")


class World:
    """One connection with both its ends. `sent_up` and `sent_down` are what reached them."""

    def __init__(
        self,
        filters: Iterable[TcpFilterFactory | Plugin] = (),
        proxy: TcpProxy | None = None,
        *,
        limit: int = 1 << 20,
        chain: TcpChain | None = None,
        connects: bool = True,
    ) -> None:
        self.clock = Clock()
        self.chain = chain or TcpChain(
            filters,
            proxy or TcpProxy("s", (("svc", 1),)),
            buffer_limit=limit,
            surroundings=self.clock,
        )
        self.info = StreamInfo()
        self.woken = 0
        self.stream: TcpStream = self.chain.open(self.info, wake=self._wake)
        self.sent_up, self.sent_down = bytearray(), bytearray()
        self.up_ended = self.down_ended = False
        self.reading_down, self.reading_up = False, True
        self.clusters: list[str] = []
        self.closed: dict[str, bool] = {}  # side -> by a reset
        self.done = False
        self.feed(ev.NewConnection())
        if connects and self.clusters and not self.done:
            self.connect()

    def _wake(self, stream: TcpStream) -> None:
        self.woken += 1

    def feed(self, event: ev.TcpEvent) -> None:
        for command in self.stream.feed(event):
            self._obey(command)

    def connect(self) -> None:
        self.feed(UpstreamConnected("10.0.0.2:80", "10.0.0.3:999"))

    def fail(self, reason: UpstreamFailure = UpstreamFailure.CONNECT_FAILURE) -> None:
        self.feed(UpstreamFailed(reason, "why"))

    def client(self, data: str = "", end: bool = False) -> None:
        self.feed(ev.DownstreamData(data.encode(), end))

    def upstream(self, data: str = "", end: bool = False) -> None:
        self.feed(ev.UpstreamData(data.encode(), end))

    def idle(self) -> None:
        self.feed(IdleTimeout())

    def resume(self) -> None:
        """Feed `Resumed` as often as the core asked for it."""
        while self.woken:
            self.woken -= 1
            self.feed(Resumed())

    def _obey(self, command: do.TcpCommand) -> None:
        self._check(not self.done, "a command after the last", command)
        match command:
            case do.ConnectUpstream(cluster):
                self.clusters.append(cluster)
            case do.SendUpstream(data, end):
                self._check(not self.up_ended and "up" not in self.closed, "bytes after the end", command)
                self._check(bool(data) or end, "nothing to send", command)
                self.sent_up += data
                self.up_ended = end
            case do.SendDownstream(data, end):
                self._check(not self.down_ended and "down" not in self.closed, "bytes after the end", command)
                self._check(bool(data) or end, "nothing to send", command)
                self.sent_down += data
                self.down_ended = end
            case do.PauseDownstream() | do.ResumeDownstream():
                reading = isinstance(command, do.ResumeDownstream)
                self._check(self.reading_down is not reading, "said twice", command)
                self.reading_down = reading
            case do.PauseUpstream() | do.ResumeUpstream():
                reading = isinstance(command, do.ResumeUpstream)
                self._check(self.reading_up is not reading, "said twice", command)
                self.reading_up = reading
            case do.CloseUpstream(reset):
                self._check("up" not in self.closed, "closed twice", command)
                self.closed["up"] = reset
            case do.CloseDownstream(reset):
                self._check("down" not in self.closed, "closed twice", command)
                self.closed["down"] = reset
            case do.ConnectionDone():
                self._check(self.closed.keys() == {"up", "down"}, "both are to be closed before", command)
                self.done = True

    @staticmethod
    def _check(kept: bool, what: str, command: do.TcpCommand) -> None:
        if not kept:
            raise Broken(f"{what}: {command}")


def recorders(*names: str) -> tuple[list[TcpFilterFactory], list[Recorder], list[str]]:
    """Factories of recording filters, the filters once they are made, and the calls of all of them."""
    made: list[Recorder] = []
    calls: list[str] = []

    def factory(name: str) -> TcpFilterFactory:
        def make(callbacks: TcpFilterCallbacks, info: StreamInfo) -> Recorder:
            made.append(Recorder(callbacks, info, calls, name))
            return made[-1]

        return make

    return [factory(name) for name in names], made, calls
