"""A driver without sockets for tests of the core: feeds events, collects commands, and checks each of them
against the promises in `commands.py`. Time stands still unless a test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action
from pywasmproxy.config.model import (
    HttpConnectionManager,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualHost,
)
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.native import NativeFilter
from pywasmproxy.sansio.stream import HttpStream

Lines = Iterable[tuple[str, str]]
MS = 1_000_000


class Clock:
    """Time and randomness as a test wants them."""

    def __init__(self) -> None:
        self.now = 0
        self.ids = 0

    def wall_clock_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.now

    def monotonic_ns(self) -> int:
        return 5_000_000_000 + self.now

    def random_bytes(self, count: int) -> bytes:
        self.ids += 1
        return self.ids.to_bytes(count, "big")

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds * MS


class Broken(AssertionError):
    """The core broke a promise."""


class Promises:
    """Follows the commands of one exchange; Broken as soon as one of them cannot be."""

    def __init__(self) -> None:
        self.upstream = self.client = "idle"  # idle, open, complete, reset; upstream: waiting (for a retry)
        self.done = False
        self.request_paused = self.response_paused = False

    def see(self, command: do.Command) -> None:
        self._check(not self.done, "a command after StreamDone", command)
        match command:
            case do.SendUpstreamHeaders():
                self._check(self.upstream in ("idle", "waiting"), "a second upstream request", command)
                self.upstream = "complete" if command.end_of_stream else "open"
            case do.SendUpstreamBody():
                self._check(self.upstream == "open", "body of no open upstream request", command)
                self.upstream = "complete" if command.end_of_stream else "open"
            case do.SendUpstreamTrailers():
                self._check(self.upstream == "open", "trailers of no open upstream request", command)
                self.upstream = "complete"
            case do.ResetUpstream():
                self._check(self.upstream in ("open", "complete"), "nothing to reset", command)
                self.upstream = "reset"
            case do.StartRouteTimeout():
                self._check(self.upstream == "complete", "time runs from the end of the request", command)
            case do.StartTryTimeout():
                self._check(self.upstream == "complete", "time runs from the end of the request", command)
            case do.WaitForRetry():
                self._check(self.upstream in ("complete", "reset"), "nothing to repeat", command)
                self.upstream = "waiting"
            case do.SendInformational():
                self._check(self.client == "idle", "an interim response after the final one", command)
            case do.SendDownstreamHeaders():
                self._check(self.client == "idle", "a second response", command)
                self.client = "complete" if command.end_of_stream else "open"
            case do.SendDownstreamBody():
                self._check(self.client == "open", "body of no open response", command)
                self.client = "complete" if command.end_of_stream else "open"
            case do.SendDownstreamTrailers():
                self._check(self.client == "open", "trailers of no open response", command)
                self.client = "complete"
            case do.ResetDownstream():
                self._check(self.client in ("idle", "open"), "a reset after the end", command)
                self.client = "reset"
            case do.PauseRequest():
                self._check(not self.request_paused, "paused twice", command)
                self.request_paused = True
            case do.ResumeRequest():
                self._check(self.request_paused, "not paused", command)
                self.request_paused = False
            case do.PauseResponse():
                self._check(not self.response_paused, "paused twice", command)
                self.response_paused = True
            case do.ResumeResponse():
                self._check(self.response_paused, "not paused", command)
                self.response_paused = False
            case do.StreamDone():
                self._check(self.client in ("complete", "reset", "gone"), "no end of the response", command)
                self.done = True

    @staticmethod
    def _check(promise: bool, what: str, command: do.Command) -> None:
        if not promise:
            raise Broken(f"{what}: {command}")


class Exchange:
    """One exchange and everything that came out of it."""

    def __init__(self, chain: FilterChain, info: StreamInfo | None = None) -> None:
        self.commands: list[do.Command] = []
        self.promises = Promises()
        self.woken: list[HttpStream] = []
        self.stream = chain.open(info, wake=self.woken.append)

    @property
    def info(self) -> StreamInfo:
        return self.stream.info

    def feed(self, *events: ev.Event) -> list[do.Command]:
        """Feed events; the commands they led to."""
        new: list[do.Command] = []
        for event in events:
            if isinstance(event, ev.DownstreamClosed) and not self.promises.done:
                self.promises.client = "gone"
            for command in self.stream.feed(event):
                self.promises.see(command)
                new.append(command)
            if self.promises.done is not self.stream.done:
                raise Broken("StreamDone and `done` disagree")
        self.commands += new
        return new

    def wake(self) -> list[do.Command]:
        """What a driver does when it was woken."""
        new = []
        while self.woken:
            self.woken.pop()
            new += self.feed(ev.Resumed())
        return new

    # --- events -------------------------------------------------------------------------------------------

    def get(self, path: str = "/", *lines: tuple[str, str], method: str = "GET") -> list[do.Command]:
        """A request without a body."""
        return self.feed(ev.RequestHeaders(request(path, *lines, method=method), True))

    def post(self, *pieces: bytes, lines: Lines = (), end: bool = True) -> list[do.Command]:
        """A request with a body in pieces, as the server feeds it."""
        new = self.feed(ev.RequestHeaders(request("/", *lines, method="POST"), False))
        for piece in pieces:
            new += self.feed(ev.RequestBody(piece))
        return new + (self.feed(ev.RequestBody(b"", True)) if end else [])

    def respond(
        self,
        *pieces: bytes,
        status: str = "200",
        lines: Lines = (),
        trailers: Lines | None = None,
        end: bool = True,
    ) -> list[do.Command]:
        """The upstream's response."""
        headers = HeaderMap([(":status", status), *lines])
        new = self.feed(ev.ResponseHeaders(headers, end and not pieces and trailers is None))
        for piece in pieces:
            new += self.feed(ev.ResponseBody(piece))
        if trailers is not None:
            return new + self.feed(ev.ResponseTrailers(HeaderMap(trailers)))
        return new + (self.feed(ev.ResponseBody(b"", True)) if end and pieces else [])

    # --- what came out ------------------------------------------------------------------------------------

    def kinds(self) -> list[str]:
        """The names of all commands."""
        return [type(command).__name__ for command in self.commands]

    def only(self, kind: type[Any]) -> Any:
        """The one command of a kind."""
        found = [command for command in self.commands if isinstance(command, kind)]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} of {kind.__name__} in {self.kinds()}")
        return found[0]

    @property
    def status(self) -> str:
        return str(self.only(do.SendDownstreamHeaders).headers[":status"])

    @property
    def response(self) -> HeaderMap:
        headers: HeaderMap = self.only(do.SendDownstreamHeaders).headers
        return headers

    @property
    def body(self) -> bytes:
        return b"".join(c.data for c in self.commands if isinstance(c, do.SendDownstreamBody))

    @property
    def uploaded(self) -> bytes:
        return b"".join(c.data for c in self.commands if isinstance(c, do.SendUpstreamBody))


def request(path: str = "/", *lines: tuple[str, str], method: str = "GET") -> HeaderMap:
    """A request head as a driver makes it."""
    return HeaderMap([(":authority", "test.local"), (":path", path), (":method", method), *lines])


def manager(*routes: Route, **settings: Any) -> HttpConnectionManager:
    """A connection manager with these routes for every host."""
    hosts = (VirtualHost("local_service", ("*",), routes),)
    return HttpConnectionManager("test", route_config=RouteConfig("local_route", hosts), **settings)


SVC = Route(RouteMatch(prefix="/"), RouteAction("svc", timeout=5.0), name="svc_route")


# --- filters --------------------------------------------------------------------------------------------

Step = Callable[["Scripted"], Action | None] | Action | None


class Scripted(NativeFilter):
    """Notes every callback in a shared list and does what its script says.

    The script maps callback names (`reqh reqb reqt resph respb respt log done delete`, with `0` or `1` behind
    to tell ends of stream apart) to an Action or a function of the filter.
    """

    name: str
    script: dict[str, Step]
    calls: list[str]
    filters: list[Scripted]

    body: bytearray
    headers: HeaderMap
    trailers: HeaderMap

    def _do(self, what: str, detail: str, end: bool | None = None) -> Action | None:
        self.calls.append(f"{self.name} {what} {detail}".rstrip())
        step = self.script.get(what)
        if step is None and end is not None:
            step = self.script.get(f"{what}{int(end)}")
        return step(self) if callable(step) else step

    def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action | None:
        self.headers = headers
        return self._do("reqh", f"{headers.line_count},{int(end_of_stream)}", end_of_stream)

    def on_request_body(self, body: bytearray, end_of_stream: bool) -> Action | None:
        self.body = body
        return self._do("reqb", f"{len(body)},{int(end_of_stream)}", end_of_stream)

    def on_request_trailers(self, trailers: HeaderMap) -> Action | None:
        self.trailers = trailers
        return self._do("reqt", str(trailers.line_count))

    def on_response_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action | None:
        self.headers = headers
        return self._do("resph", f"{headers.line_count},{int(end_of_stream)}", end_of_stream)

    def on_response_body(self, body: bytearray, end_of_stream: bool) -> Action | None:
        self.body = body
        return self._do("respb", f"{len(body)},{int(end_of_stream)}", end_of_stream)

    def on_response_trailers(self, trailers: HeaderMap) -> Action | None:
        self.trailers = trailers
        return self._do("respt", str(trailers.line_count))

    def on_log(self) -> None:
        self._do("log", "")

    def on_done(self) -> None:
        self._do("done", "")

    def on_delete(self) -> None:
        self._do("delete", "")


class Scene:
    """A chain of scripted filters `one`, `two`, ... and the list of their calls."""

    def __init__(
        self,
        *scripts: dict[str, Step],
        http: HttpConnectionManager | None = None,
        limit: int = 1024 * 1024,
    ) -> None:
        self.clock = Clock()
        self.calls: list[str] = []
        self.filters: list[Scripted] = []
        factories = [
            self._factory(name, script)
            for name, script in zip(("one", "two", "three"), scripts, strict=False)
        ]
        self.chain = FilterChain(
            factories, http=http or manager(SVC), buffer_limit=limit, surroundings=self.clock
        )

    def _factory(self, name: str, script: dict[str, Step]) -> Any:
        def make(callbacks: Any, info: StreamInfo) -> Scripted:
            made = Scripted(callbacks, info)
            made.name, made.script, made.calls = name, script, self.calls
            self.filters.append(made)
            return made

        return make

    def open(self, info: StreamInfo | None = None) -> Exchange:
        return Exchange(self.chain, info)
