"""Hosts that leave and come back: active checks, panic, outlier detection. On real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from pywasmproxy.config import load
from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.support import (
    ON_DEMAND,
    Client,
    Handler,
    Lines,
    Visit,
    answer,
    bootstrap,
    cluster,
    interval_ends,
    listener,
    port_of,
    proxy,
    telling,
    upstream,
)

CHECK = (
    "health_checks: [{{timeout: 0.5s, interval: 0.05s, no_traffic_interval: 0.05s, unhealthy_threshold: {}, "
    "healthy_threshold: {}, {}}}]"
)
HTTP = "http_health_check: {path: /healthz, host: checked.test}"
NO_PANIC = "\ncommon_lb_config: {healthy_panic_threshold: {value: 0}}"


class Flapping:
    """An upstream that answers checks with a status of its own."""

    def __init__(self, name: bytes) -> None:
        self.name, self.status, self.wanted = name, 200, 200
        self.checks: list[bytes] = []

    async def __call__(self, visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            if head.startswith(b"GET /healthz "):
                self.checks.append(head)
                visit.send(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
            else:
                visit.send(
                    b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b"
                    % (self.wanted, len(self.name), self.name)
                )


async def eventually(what: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


def healthy(server: Server) -> list[bool]:
    return [host.healthy for host in server.clusters["up"].hosts.hosts]


async def bodies(server: Server, count: int = 6) -> set[bytes]:
    client = await Client.open(port_of(server))
    found = {(await client.get()).body for _ in range(count)}
    client.close()
    return found


async def test_hosts_leave_and_come_back() -> None:
    one, two = Flapping(b"one"), Flapping(b"two")
    lines = Lines()
    async with upstream(one) as first, upstream(two) as second:
        options = CHECK.format(2, 2, HTTP)
        text = bootstrap(listener(), clusters=cluster(first.port, second.port, options=options))
        async with proxy(text, log=lines.log()) as server:
            assert await bodies(server) == {b"one", b"two"}  # the first check was before the first request
            head = one.checks[0].decode().split("\r\n")
            assert head == ["GET /healthz HTTP/1.1", "host: checked.test", "user-agent: Envoy/HC", "", ""]
            one.status = 500  # neither expected nor retriable: at once
            await eventually(lambda: healthy(server) == [False, True])
            assert await bodies(server) == {b"two"}
            one.status = 200
            before = len(one.checks)
            await eventually(lambda: healthy(server) == [True, True])
            assert len(one.checks) >= before + 2
            assert await bodies(server) == {b"one", b"two"}
    assert f"127.0.0.1:{first.port} is unhealthy" in lines


async def test_thresholds_and_statuses() -> None:
    one = Flapping(b"one")
    kind = (
        "http_health_check: {path: /healthz, expected_statuses: [{start: 200, end: 300}], "
        "retriable_statuses: [{start: 429, end: 430}]}"
    )
    async with upstream(one) as up:
        text = bootstrap(listener(), clusters=cluster(up.port, options=CHECK.format(3, 1, kind) + NO_PANIC))
        one.status = 204
        async with proxy(text) as server:
            assert healthy(server) == [True]
            one.checks.clear()
            one.status = 429
            await eventually(lambda: healthy(server) == [False])
            assert len(one.checks) >= 3
            client = await Client.open(port_of(server))
            response = await client.get()
            assert (response.status, response.body) == (503, b"no healthy upstream")
            client.close()


async def test_panic_uses_all_hosts() -> None:
    one, two = Flapping(b"one"), Flapping(b"two")
    one.status = two.status = 503
    async with upstream(one) as first, upstream(two) as second:
        text = bootstrap(
            listener(), clusters=cluster(first.port, second.port, options=CHECK.format(1, 1, HTTP))
        )
        async with proxy(text) as server:
            assert healthy(server) == [False, False]
            assert server.clusters["up"].hosts.panics
            assert await bodies(server) == {b"one", b"two"}


async def test_another_priority_takes_over() -> None:
    one, two = Flapping(b"one"), Flapping(b"two")
    async with upstream(one) as first, upstream(two) as second:
        text = bootstrap(
            listener(), clusters=cluster(first.port, second.port, options=CHECK.format(1, 1, HTTP))
        )
        before, entry, after = text.rpartition("        - endpoint: ")
        text = before + "      - priority: 1\n        lb_endpoints:\n" + entry + after
        async with proxy(text) as server:
            assert await bodies(server) == {b"one"}
            one.status = 500
            await eventually(lambda: healthy(server) == [False, True])
            assert await bodies(server) == {b"two"}


@pytest.mark.parametrize(("said", "good"), [(b"+PONG", True), (b"-ERR", False), (b"", False)])
async def test_tcp_checks(said: bytes, good: bool) -> None:
    async def handler(visit: Visit) -> None:
        assert await visit.reader.readexactly(4) == b"PING"
        visit.send(said)

    kind = "tcp_health_check: {send: {text: 50494e47}, receive: [{text: 2b}, {text: 4e47}]}"
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port, options=CHECK.format(1, 1, kind)))) as server,
    ):
        assert healthy(server) == [good]


async def test_nobody_there_and_nobody_answering() -> None:
    async def silent(visit: Visit) -> None:
        await visit.reader.read()

    async with upstream(silent) as up:
        gone = up.port + 1 if up.port < 65535 else up.port - 1
        kind = CHECK.format(1, 1, HTTP).replace("timeout: 0.5s", "timeout: 0.1s")
        begin = time.monotonic()
        async with proxy(bootstrap(listener(), clusters=cluster(up.port, gone, options=kind))) as server:
            assert healthy(server) == [False, False]
        assert time.monotonic() - begin < 3


async def test_checks_end_with_their_cluster() -> None:
    one = Flapping(b"one")
    async with upstream(one) as up:
        text = bootstrap(listener(), clusters=cluster(up.port, options=CHECK.format(1, 1, HTTP)))
        async with proxy(text) as server:
            old = server.clusters["up"]
            await server.reload(load(bootstrap(listener(), clusters=cluster(up.port))))
            assert server.clusters["up"] is not old
            await eventually(lambda: old.checker is not None and not old.checker.running)
            count = len(one.checks)
            await asyncio.sleep(0.2)
            assert len(one.checks) == count
            assert await bodies(server) == {b"one"}


# --- outlier detection ----------------------------------------------------------------------------------

OUTLIERS = (
    "outlier_detection: {{interval: 0.05s, base_ejection_time: 0.3s, max_ejection_percent: {}, {}}}"
    "\ncommon_lb_config: {{healthy_panic_threshold: {{value: 10}}}}"
)


@pytest.mark.parametrize(
    ("rule", "status", "percent", "out"),
    [
        ("consecutive_5xx: 2", 500, 50, True),
        ("consecutive_5xx: 2", 500, 49, False),  # of two hosts one is more than that
        ("consecutive_5xx: 2", 404, 50, False),
        ("consecutive_5xx: 2, enforcing_consecutive_5xx: 0", 500, 50, False),
        ("consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100", 502, 50, True),
        ("consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100", 501, 50, False),
    ],
)
async def test_hosts_that_fail_are_taken_out(rule: str, status: int, percent: int, out: bool) -> None:
    good, bad = Flapping(b"good"), Flapping(b"bad")
    bad.wanted = status
    async with upstream(good) as first, upstream(bad) as second:
        options = OUTLIERS.format(percent, rule)
        text = bootstrap(listener(), clusters=cluster(first.port, second.port, options=options))
        async with proxy(text) as server:
            await bodies(server)
            assert healthy(server) == [True, not out]
            if out:
                assert await bodies(server) == {b"good"}
                bad.wanted = 200
                await eventually(lambda: healthy(server) == [True, True])
                assert await bodies(server) == {b"good", b"bad"}


def refusing() -> Handler:
    async def handler(visit: Visit) -> None:
        await visit.head()
        visit.reset()

    return handler


async def test_hosts_that_do_not_answer_are_taken_out() -> None:
    async with upstream(telling(b"good")) as first, upstream(refusing()) as second:
        options = OUTLIERS.format(50, "consecutive_5xx: 2")
        text = bootstrap(listener(), clusters=cluster(first.port, second.port, options=options))
        async with proxy(text) as server:
            await bodies(server)
            assert healthy(server) == [True, False]
            assert await bodies(server) == {b"good"}


async def test_ejections_become_longer() -> None:
    bad = Flapping(b"bad")
    bad.wanted = 500
    async with upstream(bad) as up:
        options = OUTLIERS.format(100, "consecutive_5xx: 1").replace("value: 10", "value: 0")
        # Whoever stays for an interval comes back sooner the next time, so no interval ends by itself.
        options = options.replace("interval: 0.05s", f"interval: {ON_DEMAND}")
        text = bootstrap(listener(), clusters=cluster(up.port, options=options))
        async with proxy(text) as server:

            def is_back() -> bool:
                interval_ends(server)
                return healthy(server) == [True]

            times = []
            for _ in range(2):
                begin = time.monotonic()
                await bodies(server, 1)
                assert healthy(server) == [False]
                await eventually(is_back)
                times.append(time.monotonic() - begin)
            assert times[0] >= 0.3
            assert times[1] >= 0.6


@pytest.mark.parametrize(
    "limit", ["timeout: 0.1s", "retry_policy: {retry_on: 5xx, num_retries: 0, per_try_timeout: 0.1s}"]
)
async def test_a_response_that_takes_too_long_counts(limit: str) -> None:
    async def slow(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(5)
        visit.send(answer())

    route = f'- {{match: {{prefix: "/"}}, route: {{cluster: up, {limit}}}}}'
    async with upstream(slow) as up:
        options = OUTLIERS.format(100, "consecutive_5xx: 1")
        async with proxy(bootstrap(listener(route), clusters=cluster(up.port, options=options))) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).status == 504
            assert healthy(server) == [False]
            client.close()
