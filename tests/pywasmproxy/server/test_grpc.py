"""gRPC calls of guests on real sockets: beside a real gRPC server, and an upstream that says each frame."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from h2.settings import SettingCodes

from abi.proxy_wasm import callouts
from pywasmproxy.server import grpc as server_grpc
from pywasmproxy.server import http2
from pywasmproxy.server.http2 import Pool
from pywasmproxy.server.proxy import Server
from tests.abi.rig import WORD
from tests.pywasmproxy.server.h2_upstream import Script, Visit, h2_upstream
from tests.pywasmproxy.server.scripted import Scripted
from tests.pywasmproxy.server.support import bootstrap, cluster, hello, listener, proxy, upstream

DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200}}'
INITIAL, RECEIVE = "proxy_on_grpc_receive_initial_metadata", "proxy_on_grpc_receive"
TRAILING, CLOSED = "proxy_on_grpc_receive_trailing_metadata", "proxy_on_grpc_close"
CONFIGURE = "proxy_on_configure"
NO_HEAD = b"upstream connect error or disconnect/reset before headers. reset reason: "


class Client(Scripted):
    """A guest that begins with what `first` does, and notes all it is told until something ends."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, first: Callable[[Client], object], ends: int = 1
    ) -> None:
        super().__init__(monkeypatch)
        self.told: list[Any] = []
        #: What a test wants to do with a message.
        self.received: Callable[[int, bytes], object] = lambda token, message: None
        self.over = asyncio.Event()
        self._left = ends
        self.on(CONFIGURE, lambda *_: first(self))
        self.on(INITIAL, lambda root, token, n: self.told.append((token, "initial", n)))
        self.on(TRAILING, lambda root, token, n: self.told.append((token, "trailing", n)))
        self.on(RECEIVE, self._received)
        self.on(CLOSED, self._closed)

    def _received(self, root: int, token: int, size: int) -> None:
        answer = self.plugin.answer
        assert answer is not None
        message = answer.buffers[5]
        assert len(message) == size
        self.told.append((token, message))
        self.received(token, message)
        if token & 3 == 1:
            self._ended()

    def _closed(self, root: int, token: int, status: int) -> None:
        code, message = self.result()
        assert code == status
        self.told.append((token, status, message))
        self._ended()

    def _ended(self) -> None:
        self._left -= 1
        if not self._left:
            self.over.set()

    @property
    def messages(self) -> list[bytes]:
        return [one[1] for one in self.told if len(one) == 2]

    @property
    def ends(self) -> list[tuple[int, int, bytes]]:
        return [one for one in self.told if len(one) == 3 and isinstance(one[1], int)]


@contextlib.asynccontextmanager
async def serving(
    guest: Scripted, port: int, options: str = "", timeout: str = "1s"
) -> AsyncIterator[Server]:
    """The proxy with the guest; afterwards no call and no connection may be left."""
    text = bootstrap(
        listener(DIRECT, filters=guest.config()),
        clusters=cluster(port, options=options, connect_timeout=timeout),
    )
    async with proxy(text, log=guest.log()) as server:
        yield server
        calls = server.filters.call_outs
        assert calls.collected == 0
        assert not [line for line in guest.lines if "failed: Traceback" in line]
    assert not len(calls)


def pool_of(server: Server) -> Pool:
    pool = server.filters.call_outs._kept[Pool]
    assert isinstance(pool, Pool)
    return pool


async def played(guest: Client, script: Script, settings: dict[int, int] | None = None) -> None:
    """Run the guest beside a scripted upstream until something has ended."""
    async with h2_upstream(script, settings) as up, serving(guest, up.port):
        await asyncio.wait_for(guest.over.wait(), 20)


# --- beside a real gRPC server --------------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[Any]:
    """A server of the grpcio package; `.port`, and `.seen` with metadata and time left of every call."""
    import grpc

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
        def service(self, details: Any) -> Any:
            method = details.method.rpartition("/")[2]
            seen.append((method, dict(details.invocation_metadata)))
            kind = (
                grpc.unary_unary_rpc_method_handler
                if method in UNARY
                else grpc.stream_stream_rpc_method_handler
            )
            return kind(METHODS[method]) if method in METHODS else None

    def fail(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        return b""

    def late(request: bytes, context: Any) -> bytes:
        seen.append(("left", context.time_remaining()))
        gone.wait(3)
        return b"late"

    def bidi(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.send_initial_metadata((("x-init", "1"),))
        context.set_trailing_metadata((("x-trail", "2"),))
        for request in requests:
            yield b"got:" + request
        yield b"bye"

    def failing(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield b"got:" + next(requests)
        context.abort(grpc.StatusCode.ABORTED, "enough")

    def waiting(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.add_callback(gone.set)
        yield b"here"
        gone.wait(5)

    import threading
    from concurrent.futures import ThreadPoolExecutor

    seen: list[Any] = []
    gone = threading.Event()
    UNARY = {"unary": lambda request, context: b"echo:" + request, "fail": fail, "late": late}
    METHODS: dict[str, Any] = {**UNARY, "bidi": bidi, "failing": failing, "waiting": waiting}
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Handlers()], options=options)
    server.port, server.seen, server.gone = server.add_insecure_port("127.0.0.1:0"), seen, gone
    server.start()
    yield server
    gone.set()
    server.stop(0).wait(5)


needs_grpcio = pytest.mark.grpcio


@needs_grpcio
async def test_a_call(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    guest = Client(monkeypatch, Client.grpc_call)
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told == [(5, b"echo:hi")]  # and nothing else
    assert real.seen[0][1]["x-envoy-expected-rq-timeout-ms"] == "5000"


@needs_grpcio
async def test_a_stream_both_ways(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_stream("bidi", b"one"))

    def received(token: int, message: bytes) -> None:
        if message == b"got:one":
            guest.grpc_send(token, b"two")
        elif message == b"got:two":
            guest.grpc_send(token, b"", end=True)

    guest.received = received
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told[1:-2] == [(6, b"got:one"), (6, b"got:two"), (6, b"got:"), (6, b"bye")]
    assert guest.told[0][:2] == (6, "initial")
    assert guest.told[-2:] == [(6, "trailing", 3), (6, 0, b"via_upstream")]


@needs_grpcio
async def test_half_a_close(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    def first(guest: Client) -> None:
        token = guest.grpc_stream("bidi", b"one")
        assert guest.ask("proxy_grpc_close", token) == 0

    guest = Client(monkeypatch, first)
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.messages == [b"got:one", b"bye"]


@needs_grpcio
@pytest.mark.parametrize(
    ("method", "status", "text"),
    [("fail", 7, b"not you{via_upstream}"), ("nothing", 12, b"Method not found!{via_upstream}")],
)
async def test_a_call_that_fails(
    monkeypatch: pytest.MonkeyPatch, real: Any, method: str, status: int, text: bytes
) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_call(method))
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told == [(5, status, text)]


@needs_grpcio
async def test_a_stream_that_fails(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_stream("failing", b"one"))
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told[1:] == [(6, b"got:one"), (6, "trailing", 2), (6, 10, b"enough{via_upstream}")]


@needs_grpcio
async def test_a_deadline(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_call("late", timeout=100))
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    [(token, status, text)] = guest.told
    assert token == 5
    # Ours or the server's, whichever is first.
    assert (status, text) in (
        (14, b"upstream request timeout{response_timeout}"),
        (4, b"Deadline Exceeded{via_upstream}"),
    )
    [left] = [rest for name, rest in real.seen if name == "left"]
    assert 0 < left <= 0.1


@needs_grpcio
async def test_cancelling_reaches_the_server(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_stream("waiting", b"one"))
    cancelled = asyncio.Event()

    def received(token: int, message: bytes) -> None:
        guest.results["cancel"] = guest.ask("proxy_grpc_cancel", token)
        cancelled.set()

    guest.received = received
    async with serving(guest, real.port) as server:
        await asyncio.wait_for(cancelled.wait(), 20)
        assert await asyncio.to_thread(real.gone.wait, 5)
        assert not len(server.filters.call_outs)
    assert guest.results["cancel"] == 0
    assert not guest.ends  # no callback follows


@needs_grpcio
async def test_large_messages(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    # Far beyond the windows of both sides. The guest's memory holds no such message, so one is put in here.
    large = bytes(range(256)) * 20_000

    def first(guest: Client) -> None:
        token = guest.grpc_stream("bidi")
        from abi.proxy_wasm.deferred import GrpcSend

        guest.vm.deferred.append(GrpcSend(guest.plugin, token, large, True))

    guest = Client(monkeypatch, first)
    async with serving(guest, real.port):
        await asyncio.wait_for(guest.over.wait(), 10)
    assert guest.messages == [b"got:" + large, b"bye"]
    assert guest.ends == [(6, 0, b"via_upstream")]


@needs_grpcio
async def test_the_server_is_killed(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_stream("waiting", b"one"))
    async with serving(guest, real.port):
        async with asyncio.timeout(20):
            while not guest.messages:
                await asyncio.sleep(0.01)
        real.stop(0)
        await asyncio.wait_for(guest.over.wait(), 20)
    [(token, status, _)] = guest.ends
    assert token == 6
    assert status in (1, 13, 14)  # the server may still say that it cancels


@needs_grpcio
async def test_many_at_a_time_on_one_connection(monkeypatch: pytest.MonkeyPatch, real: Any) -> None:
    def first(guest: Client) -> None:
        for number in range(60):
            guest.grpc_call("unary", b"%d" % number)

    guest = Client(monkeypatch, first, ends=60)
    async with serving(guest, real.port) as server:
        await asyncio.wait_for(guest.over.wait(), 10)
        assert len(pool_of(server)) == 1
    assert {token: text for token, text in guest.told} == {
        4 * number + 5: b"echo:%d" % number for number in range(60)
    }


# --- each frame -----------------------------------------------------------------------------------------


def echo(visit: Visit, number: int, what: str) -> None:
    if what == "end":
        visit.answer(number, visit.bodies[number][5:])


async def test_connections_are_kept_and_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Client(monkeypatch, Client.grpc_call, ends=3)
    guest.received = lambda *_: len(guest.told) < 3 and guest.grpc_call()
    options = "common_http_protocol_options: {idle_timeout: 0.05s}"
    async with h2_upstream(echo) as up, serving(guest, up.port, options):
        await asyncio.wait_for(guest.over.wait(), 20)
        [visit] = up.visits
        await asyncio.wait_for(visit.closed.wait(), 20)
        assert not up.resets  # what has ended on both sides is not reset


async def test_an_upstream_that_wants_few_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[Visit, int]] = []

    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            held.append((visit, number))
            if len(held) > 1:
                for one, stream in held:
                    one.answer(stream, b"x")
                held.clear()

    guest = Client(monkeypatch, lambda one: one.grpc_call(), ends=3)

    def received(token: int, message: bytes) -> None:
        if token == 5:
            for _ in range(2):
                guest.grpc_call()

    guest.received = received
    first = [True]

    def opening(visit: Visit, number: int, what: str) -> None:
        if what == "end" and first:
            first.clear()
            visit.answer(number, b"x")
        else:
            script(visit, number, what)

    async with (
        h2_upstream(opening, {SettingCodes.MAX_CONCURRENT_STREAMS: 1}) as up,
        serving(guest, up.port),
    ):
        await asyncio.wait_for(guest.over.wait(), 20)
        assert len(up.visits) == 2


@pytest.mark.parametrize("reads", [True, False])
async def test_windows_of_the_upstream(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    # The first call is there for the upstream's settings to be known with the second.
    sizes: list[int] = []

    def script(visit: Visit, number: int, what: str) -> None:
        visit.reads = reads or number == 1
        if number == 3:
            sizes.append(len(visit.bodies[number]))
        if what == "end":
            visit.answer(number, visit.bodies[number][5:])
        elif not reads and what == "data" and len(visit.bodies[number]) == 1000:
            # Nothing more comes until the window is opened by hand.
            visit.protocol.increment_flow_control_window(100_000, number)

    guest = Client(monkeypatch, Client.grpc_call, ends=2)

    def received(token: int, message: bytes) -> None:
        if token == 5:
            guest.grpc_call("unary", b"x" * 20_000)

    guest.received = received
    await played(guest, script, {SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    assert guest.told == [(5, b"hi"), (9, b"x" * 20_000)]
    assert sizes[1] == 1000


async def test_an_upstream_that_sends_more_than_the_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    total = 5 << 20

    def script(visit: Visit, number: int, what: str) -> None:
        if what == "head":
            visit.head(number)
            asyncio.get_running_loop().create_task(send(visit, number))

    async def send(visit: Visit, number: int) -> None:
        left = total.to_bytes(4, "big").rjust(5, b"\0") + bytes(total)
        while left:
            size = min(visit.protocol.local_flow_control_window(number), 16384, len(left))
            if size:
                visit.protocol.send_data(number, left[:size])
                visit.flush()
                left = left[size:]
            await asyncio.sleep(0)
        visit.end(number)
        visit.flush()

    guest = Client(monkeypatch, Client.grpc_call)
    await played(guest, script)
    assert guest.told == [(5, bytes(total))]


async def test_too_long_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_grpc, "MAX_MESSAGE", 1000)

    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            visit.head(number)
            visit.protocol.send_data(number, b"\0" + (1001).to_bytes(4, "big") + b"x")

    guest = Client(monkeypatch, Client.grpc_call)
    async with h2_upstream(script) as up, serving(guest, up.port):
        await asyncio.wait_for(guest.over.wait(), 20)
        async with asyncio.timeout(20):
            while not up.resets:
                await asyncio.sleep(0.01)
        assert up.resets == [(1, 8)]  # CANCEL
    assert guest.told == [(5, 8, b"via_upstream")]


async def test_too_much_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_grpc, "MAX_COLLECTED", 1000)

    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            visit.head(number)
            visit.protocol.send_data(number, b"\0" + (5000).to_bytes(4, "big") + bytes(2000))

    guest = Client(monkeypatch, Client.grpc_call)
    await played(guest, script)
    assert guest.told == [(5, 13, b"upstream_reset_after_response_started{overflow}")]


@pytest.mark.parametrize(
    ("code", "head", "expected"),
    [
        (8, False, (14, NO_HEAD + b"remote reset{upstream_reset_before_response_started{remote_reset}}")),
        (
            7,
            False,
            (
                14,
                NO_HEAD + b"remote refused stream reset"
                b"{upstream_reset_before_response_started{remote_refused_stream_reset}}",
            ),
        ),
        (8, True, (13, b"upstream_reset_after_response_started{remote_reset}")),
    ],
)
async def test_resets(
    monkeypatch: pytest.MonkeyPatch, code: int, head: bool, expected: tuple[int, bytes]
) -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            if head:
                visit.head(number)
            visit.protocol.reset_stream(number, code)

    guest = Client(monkeypatch, Client.grpc_call)
    await played(guest, script)
    assert guest.told == [(5, *expected)]


async def test_a_reset_and_what_a_guest_sends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both come with one read; the guest writes to the stream that the library knows to be reset.
    def script(visit: Visit, number: int, what: str) -> None:
        if len(visit.heads) == 2 and number == 3:
            visit.head(1)
            visit.message(1, b"x")
            visit.protocol.reset_stream(3, 8)
            visit.end(1)

    def first(guest: Client) -> None:
        guest.grpc_stream("bidi", b"a")
        guest.grpc_stream("bidi")

    guest = Client(monkeypatch, first, ends=2)
    guest.received = lambda *_: guest.grpc_send(10, b"more")
    await played(guest, script)
    assert [(token, status) for token, status, _ in guest.ends] == [(10, 14), (6, 0)]


async def test_going_away_lets_streams_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        if what != "end":
            return
        if number == 1:
            visit.go_away(0x7FFF_FFFF)
            asyncio.get_running_loop().call_later(0.05, visit.answer, 1, b"after")
        elif number == 3:
            visit.go_away(1)

    def first(guest: Client) -> None:
        guest.grpc_call()
        guest.grpc_call()

    guest = Client(monkeypatch, first, ends=2)
    async with h2_upstream(script) as up, serving(guest, up.port) as server:
        await asyncio.wait_for(guest.over.wait(), 20)
        assert guest.told[0][:2] == (9, 14)
        assert b"remote refused stream reset" in guest.told[0][2]
        assert guest.told[1] == (5, b"after")
        await asyncio.wait_for(up.visits[0].closed.wait(), 20)
        assert len(pool_of(server)) == 0


async def test_after_going_away_a_new_connection_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            visit.answer(number, b"%d" % len(up.visits))
            visit.go_away(number)

    guest = Client(monkeypatch, Client.grpc_call, ends=2)
    guest.received = lambda *_: len(guest.told) < 2 and asyncio.get_running_loop().call_later(0.05, again)

    def again() -> None:
        server.filters.dispatcher.enter(plugin, plugin.tick)

    guest.on("proxy_on_tick", lambda *_: guest.grpc_call())
    async with h2_upstream(script) as up, serving(guest, up.port) as server:
        plugin = server.filters.slots[0].plugin
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.messages == [b"1", b"2"]


@pytest.mark.parametrize("head", [False, True])
async def test_the_connection_breaks(monkeypatch: pytest.MonkeyPatch, head: bool) -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end" and len(visit.heads) == 3:
            if head:
                visit.head(1)
                visit.flush()
            asyncio.get_running_loop().call_later(0.05, visit.transport.abort)

    guest = Client(monkeypatch, lambda one: [one.grpc_call() for _ in range(3)], ends=3)
    await played(guest, script)
    early = (
        NO_HEAD + b"connection termination{upstream_reset_before_response_started{connection_termination}}"
    )
    late = b"upstream_reset_after_response_started{connection_termination}"
    assert sorted(guest.told) == [(5, 13, late) if head else (5, 14, early), (9, 14, early), (13, 14, early)]


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        guest = Client(monkeypatch, lambda one: one.grpc_stream("bidi", b"x"))
        async with serving(guest, closed.getsockname()[1]):
            await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told == [
        (6, "initial", 0),
        (6, "trailing", 4),
        (
            6,
            14,
            NO_HEAD + b"remote connection failure"
            b"{upstream_reset_before_response_started{remote_connection_failure}}",
        ),
    ]


async def test_an_upstream_that_speaks_http_1(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Client(monkeypatch, Client.grpc_call)
    async with upstream(hello) as up, serving(guest, up.port):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told[0][:2] == (5, 14)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\5\1\4\0\0\0\1\xff\xff\xff\xff\xff",
        b"\xff" * 100,
        b"\0\0\0\7\0\0\0\0\0",
    ],
)
async def test_frames_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, garbage: bytes) -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            visit.flush()
            visit.transport.write(garbage)

    guest = Client(monkeypatch, Client.grpc_call)
    await played(guest, script)
    text = NO_HEAD + b"protocol error{upstream_reset_before_response_started{protocol_error}}"
    assert guest.told == [(5, 14, text)]


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_call(timeout=50))
    async with h2_upstream(lambda *_: None) as up, serving(guest, up.port):
        await asyncio.wait_for(guest.over.wait(), 20)
        async with asyncio.timeout(20):
            while not up.resets:
                await asyncio.sleep(0.01)
    assert guest.told == [(5, 14, b"upstream request timeout{response_timeout}")]


async def test_a_head_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_call("unary", cluster="up"))
    monkeypatch.setattr(
        "pywasmproxy.sansio.grpc.request_headers", lambda effect: [(b":method", b"POST"), (b"Bad Name", b"x")]
    )
    await played(guest, echo)
    assert guest.told[0][:2] == (5, 14)


async def test_the_proxy_ends_and_vms_die_with_streams_open(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Client(monkeypatch, lambda one: one.grpc_stream("bidi", b"x"))

    def die(*_: int) -> None:
        raise RuntimeError("the guest traps")

    guest.on("proxy_on_tick", die)
    async with h2_upstream(lambda *_: None) as up:
        async with serving(guest, up.port):
            async with asyncio.timeout(20):
                while not (up.visits and up.visits[0].bodies):
                    await asyncio.sleep(0.01)
        await asyncio.wait_for(up.visits[0].closed.wait(), 20)
        async with serving(guest, up.port) as server:
            async with asyncio.timeout(20):
                while not (len(up.visits) == 2 and up.visits[1].bodies):
                    await asyncio.sleep(0.01)
            plugin = server.filters.slots[0].plugin
            server.filters.dispatcher.enter(plugin, plugin.tick)
            assert plugin.failed
            assert not len(server.filters.call_outs)
            async with asyncio.timeout(20):
                while not up.resets:
                    await asyncio.sleep(0.01)
    assert not guest.told


async def test_open_streams_do_not_keep_a_replaced_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.pywasmproxy.server.support import Client as HttpClient
    from tests.pywasmproxy.server.support import port_of

    guest = Client(monkeypatch, lambda one: one.grpc_stream("bidi", b"x"))
    async with h2_upstream(lambda *_: None) as up:
        text = bootstrap(
            listener(DIRECT, filters=guest.config()),
            clusters=cluster(up.port),
            node="{metadata: {pywasmvm: {recycle_streams: 1}}}",
        )
        async with proxy(text, log=guest.log()) as server:
            client = await HttpClient.open(port_of(server))
            assert (await client.get()).status == 200
            client.close()
            async with asyncio.timeout(20):
                while not up.resets:
                    await asyncio.sleep(0.01)
            assert not server.filters.successors.retired
            assert len(server.filters.call_outs) == 1  # the successor's


async def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "h2":
            raise ImportError("no module named h2")
        return imported(name, *rest)

    statuses: list[int] = []

    def first(guest: Client) -> None:
        statuses.append(guest.ask("proxy_grpc_stream", b"up", b"s", b"m", b"", WORD)[0])

    guest = Client(monkeypatch, first)
    monkeypatch.setattr(builtins, "__import__", without)
    async with serving(guest, 1):
        pass
    assert statuses == [10]
    assert any("pip install 'pywasmvm[h2]'" in line for line in guest.lines)


async def test_what_waits_for_a_slow_upstream_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callouts, "MAX_CALL_BYTES", 200_000)
    statuses: list[int] = []

    def first(guest: Client) -> None:
        token = guest.grpc_stream("bidi")
        statuses.extend(guest.grpc_send(token, bytes(40_000)) for _ in range(6))

    def script(visit: Visit, number: int, what: str) -> None:
        visit.reads = False
        if what == "data" and len(visit.bodies[number]) >= 65_535:
            visit.protocol.reset_stream(number, 8)

    guest = Client(monkeypatch, first)
    await played(guest, script)
    assert statuses == [0, 0, 0, 0, 10, 10]


def test_what_is_missing_is_said() -> None:
    assert http2.missing() == ""


@pytest.mark.parametrize("how", ["timeout", "cancelled", "the proxy ends"])
async def test_a_connection_that_does_not_come(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection
    tried, dropped = asyncio.Event(), asyncio.Event()

    async def never(make: Any, *rest: Any, **more: Any) -> Any:
        if not isinstance(make(), http2.Connection):
            return await connect(make, *rest, **more)
        tried.set()
        try:
            await asyncio.sleep(60)
        finally:
            dropped.set()

    monkeypatch.setattr(loop, "create_connection", never)
    guest = Client(monkeypatch, lambda one: one.grpc_stream("bidi", b"x"))
    guest.on("proxy_on_tick", lambda *_: guest.ask("proxy_grpc_cancel", 6))
    async with serving(guest, 1, timeout="0.1s" if how == "timeout" else "5s") as server:
        await asyncio.wait_for(tried.wait(), 20)
        if how == "timeout":
            await asyncio.wait_for(guest.over.wait(), 20)
            assert len(pool_of(server)) == 0
        elif how == "cancelled":
            plugin = server.filters.slots[0].plugin
            server.filters.dispatcher.enter(plugin, plugin.tick)
            assert guest.results["proxy_on_tick"] == 0
            assert not len(server.filters.call_outs)
    await asyncio.wait_for(dropped.wait(), 20)
    if how == "timeout":
        [(token, status, text)] = guest.ends
        assert (token, status) == (6, 14)
        assert b"reset reason: connection timeout" in text
    else:
        assert not guest.told


async def test_no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Client(monkeypatch, Client.grpc_call)
    text = bootstrap(
        listener(DIRECT, filters=guest.config()), clusters=cluster().replace("lb_endpoints:", "{}")
    )
    async with proxy(text, log=guest.log()):
        await asyncio.wait_for(guest.over.wait(), 20)
    assert guest.told == [(5, 14, b"no healthy upstream{no_healthy_upstream}")]


async def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(http2, "STREAMS", 2)
    guest = Client(monkeypatch, lambda one: [one.grpc_call() for _ in range(3)], ends=3)
    await played(guest, echo)
    assert guest.told[0][:2] == (13, 14)
    assert b"reset reason: overflow" in guest.told[0][2]
    assert guest.told[1:] == [(5, b"hi"), (9, b"hi")]
