"""Redis calls of Higress' guests on real sockets: a real Redis, and servers that do not behave like one.

Injected bodies and preferred hosts go the whole way here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from abi.higress import VERSION
from pywasmproxy.server import downstream, higress, resp
from pywasmproxy.server.higress import command
from tests.abi.rig import BYTES, WORD
from tests.pywasmproxy.server.redis_server import redis
from tests.pywasmproxy.server.scripted import REQUEST, RESPONSE, Scripted
from tests.pywasmproxy.server.support import (
    Client,
    Visit,
    answer,
    bootstrap,
    cluster,
    listener,
    port_of,
    proxy,
    telling,
    upstream,
)

DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: main}}}'
ANSWERED = "proxy_on_redis_call_response"
PING = command(b"PING")


class RedisGuest(Scripted):
    """A guest that sends the same commands for each request, and answers the client with all replies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *queries: bytes) -> None:
        super().__init__(monkeypatch, VERSION)
        self.queries: Iterable[bytes] = queries or (PING,)
        self.waiting: dict[int, tuple[int, list[int]]] = {}
        self.replies: dict[int, bytes] = {}
        self.init: tuple[Any, ...] | None = None
        self.on("proxy_on_configure", self._configure)
        self.on(REQUEST, self._request)
        self.on(ANSWERED, self._answered)

    def set_up(
        self, target: bytes = b"up", user: bytes = b"", password: bytes = b"", timeout: int = 2000
    ) -> None:
        """What `proxy_on_configure` says of the server."""
        self.init = target, user, password, timeout

    def _configure(self, *_: int) -> None:
        if self.init is not None:
            assert self.ask("proxy_redis_init", *self.init) == 0

    def redis_call(self, query: bytes = PING, target: bytes = b"up") -> int:
        status, token = self.ask("proxy_redis_call", target, query, WORD)
        assert status == 0
        return int(token)

    def _request(self, context: int, *_: int) -> None:
        tokens = [self.redis_call(query) for query in self.queries]
        self.waiting |= {token: (context, tokens) for token in tokens}
        self.pause()

    def _answered(self, root: int, token: int, status: int, size: int) -> None:
        got, reply = self.ask("proxy_get_buffer_bytes", 9, 0, size, BYTES)
        assert (got, len(reply)) == (0, size)
        self.replies[token] = reply if status == 0 else b"!%d %d %b" % (status, *self.result())
        context, tokens = self.waiting.pop(token)
        if all(one in self.replies for one in tokens):
            self.reply(context, 200, b"|".join(self.replies.pop(one) for one in tokens))


Guest = Callable[..., RedisGuest]


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    return functools.partial(RedisGuest, monkeypatch)


FAILED = b"!1 11 reset"


def config(made: Scripted, *ports: int, node: str = "") -> str:
    return bootstrap(listener(DIRECT, filters=made.config()), clusters=cluster(*ports), node=node)


async def get(server: Any) -> bytes:
    client = await Client.open(port_of(server))
    response = await client.get()
    client.close()
    return response.body


async def one_request(made: RedisGuest, handler: Callable[[Visit], Awaitable[None]]) -> bytes:
    """What a client gets whose request waits for the calls."""
    async with upstream(handler) as up, proxy(config(made, up.port), log=made.log()) as server:
        return await get(server)


def saying(*pieces: bytes, pause: float = 0) -> Callable[[Visit], Awaitable[None]]:
    """A server that waits for bytes, says these, and waits for the end."""

    async def handler(visit: Visit) -> None:
        await visit.reader.read(1)
        for piece in pieces:
            visit.writer.write(piece)
            await asyncio.sleep(pause)
        await visit.reader.read()

    return handler


# --- servers that are scripted ----------------------------------------------------------------------------


async def test_what_is_sent(guest: Guest) -> None:
    made = guest(PING, command(b"GET", b"\r\n\xff"))
    made.set_up(b"up?db=5", b"user", b"pass\r\nword")
    seen, (_, last) = bytearray(), made.queries

    async def handler(visit: Visit) -> None:
        while data := await visit.reader.read(4096):
            seen.extend(data)
            if seen.endswith(last):
                visit.writer.write(b"+OK\r\n+OK\r\n+PONG\r\n$-1\r\n")

    assert await one_request(made, handler) == b"+PONG\r\n|$-1\r\n"
    login = command(b"AUTH", b"user", b"pass\r\nword") + command(b"SELECT", b"5")
    assert bytes(seen) == login + PING + command(b"GET", b"\r\n\xff")


async def test_a_password_without_a_user(guest: Guest) -> None:
    made = guest()
    made.set_up(password=b"secret")
    seen = bytearray()

    async def handler(visit: Visit) -> None:
        while data := await visit.reader.read(4096):
            seen.extend(data)
            if seen.endswith(PING):
                visit.writer.write(b"-ERR wrong\r\n-NOAUTH\r\n")

    assert await one_request(made, handler) == b"-NOAUTH\r\n"
    assert bytes(seen) == command(b"AUTH", b"secret") + PING
    assert any("redis cluster up: ERR wrong" in line for line in made.lines)
    assert not any("secret" in line for line in made.lines)


@pytest.mark.parametrize("reply", [b"+OK\r\n", b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", b"$4\r\n\r\n\r\n\r\n"])
async def test_a_reply_byte_by_byte(guest: Guest, reply: bytes) -> None:
    pieces = [bytes((byte,)) for byte in reply]
    assert await one_request(guest(), saying(*pieces, pause=0.001)) == reply


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"$5\r\nhello??",
        b":12a\r\n",
        b"*1\r\n" * (resp.MAX_NESTING + 2),
        b"$99999999999\r\n",
        b"+" + b"x" * (resp.MAX_LINE + 10),
        b"%1\r\n+a\r\n+b\r\n",
    ],
    ids=lambda said: repr(said[:8]),
)
async def test_a_server_that_talks_nonsense(guest: Guest, said: bytes) -> None:
    made = guest(PING, PING)
    assert await one_request(made, saying(said)) == FAILED + b"|" + FAILED


async def test_a_reply_that_nobody_asked_for(guest: Guest) -> None:
    made = guest()
    async with (
        upstream(saying(b"+PONG\r\n+EXTRA\r\n")) as up,
        proxy(config(made, up.port), log=made.log()) as server,
    ):
        assert await get(server) == b"+PONG\r\n"
        assert await get(server) == b"+PONG\r\n"  # over a new connection: the old one is not trusted
        assert up.visits == 2


async def test_a_reply_that_is_too_long(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "MAX_REPLY", 10_000)
    assert await one_request(guest(), saying(b"*1000000\r\n", *[b":1\r\n" * 500] * 10)) == FAILED
    assert await one_request(
        guest(), saying(b"$9980\r\n" + bytes(9980) + b"\r\n")
    ) == b"$9980\r\n%b\r\n" % bytes(9980)


async def test_all_answers_together_have_a_bound(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(higress, "MAX_COLLECTED", 10_000)
    made = guest()
    handler = saying(b"$50000\r\n", *[bytes(5000)] * 4, pause=0.005)
    async with upstream(handler) as up, proxy(config(made, up.port), log=made.log()) as server:
        assert await get(server) == FAILED
        assert server.filters.call_outs.collected == 0


async def test_a_server_that_closes(guest: Guest) -> None:
    async def handler(visit: Visit) -> None:
        await visit.reader.read(1)
        visit.writer.write(b"+ONE\r\n$10\r\nhalf")
        await visit.writer.drain()
        visit.writer.close()

    assert await one_request(guest(PING, PING, PING), handler) == b"+ONE\r\n|" + FAILED + b"|" + FAILED


async def test_a_server_that_is_not_there(guest: Guest) -> None:
    made = guest()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        async with proxy(config(made, taken.getsockname()[1]), log=made.log()) as server:
            assert await get(server) == FAILED
            assert await get(server) == FAILED
    assert any("cannot connect" in line for line in made.lines)


async def test_a_server_that_says_nothing(guest: Guest) -> None:
    made = guest(PING, PING)
    made.set_up(timeout=60)
    assert await one_request(made, saying()) == FAILED + b"|" + FAILED
    assert any("no answer in time" in line for line in made.lines)


async def test_the_time_is_each_calls_own(guest: Guest) -> None:
    """A connection with calls on it all the time does not make one of them wait for ever."""
    made = guest()
    made.set_up(timeout=150)

    async def handler(visit: Visit) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            for number in range(3):
                await visit.reader.readexactly(len(PING))
                if number < 2:
                    await asyncio.sleep(0.1)
                    visit.writer.write(b"+%d\r\n" % number)
        await visit.reader.read()

    async with upstream(handler) as up, proxy(config(made, up.port), log=made.log()) as server:
        assert [await get(server) for _ in range(3)] == [b"+0\r\n", b"+1\r\n", FAILED]


async def test_no_limit_at_all(guest: Guest) -> None:
    made = guest()
    made.set_up(timeout=0)
    assert await one_request(made, saying(b"", b"+late\r\n", pause=0.2)) == b"+late\r\n"


async def test_setting_up_anew_breaks_off_what_runs(guest: Guest) -> None:
    made = guest()
    made.set_up()
    connections = 0

    async def handler(visit: Visit) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await visit.reader.read(1)
            visit.writer.write(b"+OK\r\n+PONG\r\n")
        await visit.reader.read()

    async with upstream(handler) as up, proxy(config(made, up.port), log=made.log()) as server:
        first = asyncio.create_task(get(server))
        while not connections:
            await asyncio.sleep(0.01)

        def again(context: int, *_: int) -> None:
            assert made.ask("proxy_redis_init", b"up", b"", b"new", 2000) == 0
            made._request(context)

        made.on(REQUEST, again)
        assert await get(server) == b"+PONG\r\n"
        assert await first == FAILED


async def test_plugins_do_not_share_connections(guest: Guest) -> None:
    """One's login and database are not the other's."""
    made = guest()
    text = bootstrap(
        listener(DIRECT, filters=made.config(vm_id="a"), name="main"),
        listener(DIRECT, filters=made.config(vm_id="b"), name="other"),
        clusters=cluster(0),
    )
    async with upstream(saying(b"+PONG\r\n")) as up:
        text = text.replace("port_value: 0}", f"port_value: {up.port}}}").replace(
            f"address: 127.0.0.1, port_value: {up.port}}}}}\n    filter_chains",
            "address: 127.0.0.1, port_value: 0}}\n    filter_chains",
        )
        async with proxy(text, log=made.log()) as server:
            for name in ("main", "other"):
                client = await Client.open(port_of(server, name))
                assert (await client.get()).body == b"+PONG\r\n"
                client.close()
        assert up.visits == 2


async def test_a_guest_that_dies_has_no_connection_left(guest: Guest) -> None:
    made = guest()
    gone = asyncio.Event()

    async def handler(visit: Visit) -> None:
        await visit.reader.read(1)
        visit.writer.write(b"+PONG\r\n")
        with contextlib.suppress(ConnectionError):
            await visit.reader.read()
        gone.set()

    def die(*_: int) -> None:
        from pywasmvm import Trap, TrapKind

        raise Trap(TrapKind.UNREACHABLE)

    async with upstream(handler) as up, proxy(config(made, up.port), log=made.log()) as server:
        made.on(ANSWERED, die)
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 503
        client.close()
        async with asyncio.timeout(3):
            await gone.wait()
        assert len(server.filters.call_outs) == 0


async def test_a_replaced_plugin_takes_its_connection_with_it(guest: Guest) -> None:
    made = guest()
    ended = 0

    async def handler(visit: Visit) -> None:
        nonlocal ended
        with contextlib.suppress(ConnectionError):
            while await visit.reader.read(100):
                visit.writer.write(b"+PONG\r\n")
        ended += 1

    node = "{id: me, metadata: {pywasmvm: {recycle_streams: 2}}}"
    async with upstream(handler) as up, proxy(config(made, up.port, node=node), log=made.log()) as server:
        for _ in range(7):
            assert await get(server) == b"+PONG\r\n"
        async with asyncio.timeout(3):
            while ended < up.visits - 1:
                await asyncio.sleep(0.01)
        assert up.visits >= 3


# --- the real one -----------------------------------------------------------------------------------------


@pytest.mark.redis
async def test_real_values(guest: Guest, tmp_path: Path) -> None:
    made = guest(
        command(b"SET", b"k", b"\r\n\0\xff"),
        command(b"GET", b"k"),
        command(b"GET", b"nosuch"),
        command(b"RPUSH", b"l", b"a", b"b"),
        command(b"LRANGE", b"l", b"0", b"-1"),
        command(b"NOSUCH"),
        command(b"EVAL", b"return {1, {2, {'three', {}}}, redis.status_reply('fine')}", b"0"),
        command(b"SET", b"big", bytes(1 << 20)),
        command(b"STRLEN", b"big"),
    )
    async with redis(tmp_path) as real, proxy(config(made, real.port), log=made.log()) as server:
        body = await get(server)
    assert body.split(b"|") == [
        b"+OK\r\n",
        b"$4\r\n\r\n\0\xff\r\n",
        b"$-1\r\n",
        b":2\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n",
        b"*3\r\n:1\r\n*2\r\n:2\r\n*2\r\n$5\r\nthree\r\n*0\r\n+fine\r\n",
        b"+OK\r\n",
        b":1048576\r\n",
    ]


@pytest.mark.redis
async def test_real_logins_and_databases(guest: Guest, tmp_path: Path) -> None:
    users = ("--requirepass", "main", "--user", "guest", "on", ">word", "~*", "+@all")
    async with redis(tmp_path, *users) as real:
        for given, answers in (
            ((b"up?db=2", b"guest", b"word"), b"+OK\r\n|:1\r\n"),
            ((b"up?db=3", b"", b"main"), b"+OK\r\n|:1\r\n"),
            (
                (b"up", b"guest", b"wrong"),
                b"-NOAUTH Authentication required.\r\n|-NOAUTH Authentication required.\r\n",
            ),
            ((b"up", b"", b""), b"-NOAUTH Authentication required.\r\n|-NOAUTH Authentication required.\r\n"),
        ):
            made = guest(command(b"SET", b"k", b"1"), command(b"DBSIZE"))
            made.set_up(*given)
            async with proxy(config(made, real.port), log=made.log()) as server:
                assert await get(server) == answers, given
            refused = any("WRONGPASS" in line for line in made.lines)
            assert refused is (given[2] == b"wrong")


@pytest.mark.redis
async def test_many_real_calls_at_once_come_back_in_order(guest: Guest, tmp_path: Path) -> None:
    made = guest()
    made.queries = [command(b"ECHO", b"%d" % number) for number in range(30)]
    expected = b"|".join(b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(30))
    async with redis(tmp_path) as real, proxy(config(made, real.port), log=made.log()) as server:
        assert await asyncio.gather(*(get(server) for _ in range(30))) == [expected] * 30
        assert len(made.vm.calls) == 1  # the session


@pytest.mark.redis
async def test_a_real_server_that_is_killed_and_comes_back(guest: Guest, tmp_path: Path) -> None:
    made = guest(command(b"BLPOP", b"nothing", b"0"), PING)
    made.set_up(timeout=5000)
    async with redis(tmp_path) as real, proxy(config(made, real.port), log=made.log()) as server:
        waiting = asyncio.create_task(get(server))
        while not made.waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        real.stop()
        assert await waiting == FAILED + b"|" + FAILED
        made.queries = [PING]
        assert await get(server) == FAILED
        real.start()
        await real.ready()
        assert await get(server) == b"+PONG\r\n"


# --- bodies and hosts -------------------------------------------------------------------------------------


async def test_a_body_from_the_answer_to_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an AI guard does: the response waits, a call decides what the client gets of it."""
    made = Scripted(monkeypatch, VERSION)
    streams: dict[int, int] = {}

    def response(context: int, *_: int) -> None:
        made.ask("proxy_remove_header_map_value", 2, b"content-length")

    def body(context: int, size: int, end: int) -> None:
        if size:
            status, token = made.ask("proxy_redis_call", b"redis", PING, WORD)
            assert status == 0
            streams[int(token)] = context
        made.returns("proxy_on_response_body", 3)

    def decided(root: int, token: int, *_: int) -> None:
        made.act_on(streams.pop(token))
        for number in range(3):
            assert made.ask("proxy_inject_encoded_data_to_filter_chain", b"part %d " % number, 0) == 0
        assert made.ask("proxy_inject_encoded_data_to_filter_chain", b"end", 1) == 0

    made.on(RESPONSE, response)
    made.on("proxy_on_response_body", body)
    made.on(ANSWERED, decided)

    async def main(visit: Visit) -> None:
        await visit.request()
        visit.writer.write(answer(b"secret"))
        await visit.reader.read()

    async with upstream(main) as up, upstream(saying(b"+PONG\r\n")) as server_of_redis:
        clusters = cluster(up.port) + cluster(server_of_redis.port, name="redis")
        text = bootstrap(listener(filters=made.config()), clusters=clusters)
        async with proxy(text, log=made.log()) as server:
            client = await Client.open(port_of(server))
            got = await client.get()
            client.close()
    assert (got.status, got.body, got.complete) == (200, b"part 0 part 1 part 2 end", True)


async def test_the_host_that_a_guest_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Scripted(monkeypatch, VERSION)
    seen: list[bytes] = []
    wanted = [b""]

    def request(context: int, *_: int) -> None:
        status, hosts = made.ask("proxy_get_upstream_hosts", BYTES)
        assert status == 0
        seen.append(hosts)
        assert made.ask("proxy_set_upstream_override_host", wanted[0]) == 0

    made.on(REQUEST, request)

    async with upstream(telling(b"one")) as one, upstream(telling(b"two")) as two:
        text = bootstrap(listener(filters=made.config()), clusters=cluster(one.port, two.port))
        async with proxy(text, log=made.log()) as server:
            for port, name in ((one.port, b"one"), (two.port, b"two")):
                wanted[0] = b"127.0.0.1:%d" % port
                assert [await get(server) for _ in range(4)] == [name] * 4
            wanted[0] = b"127.0.0.1:1"  # no such host: any
            assert {await get(server) for _ in range(4)} == {b"one", b"two"}
        assert b"127.0.0.1:%d" % one.port in seen[0]
        assert b"127.0.0.1:%d" % two.port in seen[0]


@pytest.mark.parametrize(("limit", "status"), [(b"3000000", 200), (b"", 413)])
async def test_a_guest_lets_a_large_body_wait(
    monkeypatch: pytest.MonkeyPatch, limit: bytes, status: int
) -> None:
    """More than the listener's limit, if the guest says so; its headers stop, and the body comes."""
    made = Scripted(monkeypatch, VERSION)

    def request(*_: int) -> None:
        if limit:
            assert made.ask("proxy_set_property", b"set_decoder_buffer_limit", limit) == 0
        made.returns(REQUEST, 1)

    made.on(REQUEST, request)
    made.on("proxy_on_request_body", lambda *call: made.returns("proxy_on_request_body", 1 - call[2]))
    async with upstream() as up:
        text = bootstrap(listener(filters=made.config()), clusters=cluster(up.port))
        async with proxy(text, log=made.log()) as server:
            client = await Client.open(port_of(server))
            got = await client.post("/", bytes(2_000_000))
            client.close()
    assert (got.status, [len(body) for body in up.bodies]) == (status, [2_000_000] if limit else [])


async def test_a_guest_cannot_fill_memory_for_a_client_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downstream, "MAX_UNSENT", 1 << 22)
    made = Scripted(monkeypatch, VERSION)
    contexts: list[int] = []

    def response(context: int, *_: int) -> None:
        contexts.append(context)
        made.ask("proxy_remove_header_map_value", 2, b"content-length")
        made.ask("proxy_set_tick_period_milliseconds", 5)

    def tick(*_: int) -> None:
        if contexts and made.act_on(contexts[0]):
            made.ask("proxy_inject_encoded_data_to_filter_chain", bytes(50_000), 0)

    made.on(RESPONSE, response)
    made.on("proxy_on_response_body", lambda *_: made.returns("proxy_on_response_body", 3))
    made.on("proxy_on_tick", tick)

    async def main(visit: Visit) -> None:
        await visit.request()
        visit.writer.write(answer(b"x"))
        await visit.reader.read()

    async with upstream(main) as up:
        text = bootstrap(listener(filters=made.config()), clusters=cluster(up.port))
        async with proxy(text, log=made.log()) as server:
            client = await Client.open(port_of(server))
            cast(asyncio.Transport, client.writer.transport).pause_reading()
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            async with asyncio.timeout(20):
                while not server.streams:
                    await asyncio.sleep(0.01)
                while server.streams:
                    await asyncio.sleep(0.01)
            client.abort()
