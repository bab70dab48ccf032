"""How many of a cluster's requests are sent once more at a time: `max_retries` and `retry_budget`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.beside import beside
from tests.pywasmproxy.server.support import (
    Client,
    Visit,
    answer,
    bootstrap,
    cluster,
    listener,
    port_of,
    proxy,
    upstream,
)

BAD = b"HTTP/1.1 503 X\r\ncontent-length: 3\r\n\r\nbad"
LONG = "retry_back_off: {base_interval: 0.4s}"
ROUTES = """
- {match: {prefix: "/dead"}, route: {cluster: dead, retry_policy: {retry_on: "5xx"}}}
- match: {prefix: "/slow"}
  route: {cluster: up, retry_policy: {retry_on: "5xx", per_try_timeout: 0.1s, num_retries: 2}}
- {match: {prefix: "/"}, route: {cluster: up, retry_policy: {retry_on: "5xx", num_retries: 2}}}
"""


def limits(thresholds: str) -> str:
    return f"circuit_breakers: {{thresholds: [{{{thresholds}}}]}}"


async def bad(visit: Visit) -> None:
    while True:
        head, _ = await visit.request()
        if b"/slow" in head:
            await asyncio.sleep(0.5)
        visit.send(BAD)


def stats(server: Server, part: str) -> dict[str, object]:
    """The cluster's statistics with this in their name that are not zero."""
    start = "cluster.up."
    return {
        one.name.removeprefix(start): one.value
        for one in server.measures.all()
        if one.name.startswith(start) and part in one.name and one.used
    }


WAYS = ["max_retries: 0", "max_retries: 1", "retry_budget: {}"] + [
    f"retry_budget: {{budget_percent: {{value: {percent}}}, min_retry_concurrency: {least}}}"
    for percent, least in ((100, 0), (50, 0), (50, 1))
]


@pytest.mark.envoy
@pytest.mark.parametrize("way", WAYS)
async def test_like_the_real_envoy(way: str, tmp_path: Path) -> None:
    async def observed(which: str) -> tuple[list[object], list[list[str]], dict[str, str]]:
        async with upstream(bad) as up:
            clusters = cluster(up.port, options=limits(way)) + cluster(1, name="dead", options=limits(way))
            async with beside(which, tmp_path, ROUTES, clusters) as one:
                answers: list[object] = [await one.get(path) for path in ("/bad", "/dead", "/slow")]
                lines = await one.logged(3)
                answers.append(len(up.heads))
                pattern = "cluster.(up|dead).*(retry|upstream_rq_total)"
                return answers, lines, await one.stats(pattern)

    theirs, ours = await observed("envoy"), await observed("ours")
    assert ours[0] == theirs[0]
    # Why a connection failed is not told in the words of the operating system.
    assert ours[1] == [
        [*line[:3], line[3].partition("|")[0].rstrip("}") + "}", line[4]] if "|" in line[3] else line
        for line in theirs[1]
    ]
    assert ours[2] == theirs[2]


class Again:
    """Bad answers; the second attempt of a request waits until it is let go."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.release = asyncio.Event()

    async def __call__(self, visit: Visit) -> None:
        while True:
            path = (await visit.request())[0].split(b" ")[1]
            self.seen.append(path)
            if self.seen.count(path) > 1:
                await self.release.wait()
            visit.send(BAD)


async def test_one_at_a_time() -> None:
    again = Again()
    async with upstream(again) as up:
        route = '- {match: {prefix: "/"}, route: {cluster: up, retry_policy: {retry_on: 5xx}}}'
        clusters = cluster(up.port, options=limits("max_retries: 1, track_remaining: true"))
        async with proxy(bootstrap(listener(route), clusters=clusters)) as server:
            first = await Client.open(port_of(server))
            first.send(b"GET /first HTTP/1.1\r\nhost: a.test\r\n\r\n")
            limit = server.clusters["up"].retry_limit
            async with asyncio.timeout(20):
                while not limit.active:
                    await asyncio.sleep(0.001)
            open_now = stats(server, "circuit_breakers.default")
            assert open_now["circuit_breakers.default.rq_retry_open"] == 1
            assert "circuit_breakers.default.remaining_retries" not in open_now
            second = await Client.open(port_of(server))
            assert (await second.get("/second")).body == b"bad"  # at once: there are enough
            assert limit.active == 1
            again.release.set()
            assert (await first.response()).body == b"bad"
            for client in (first, second):
                client.close()
            assert limit.active == 0
            assert stats(server, "retry") == {
                "upstream_rq_retry": 1,
                "upstream_rq_retry_backoff_exponential": 1,
                "upstream_rq_retry_limit_exceeded": 1,
                "upstream_rq_retry_overflow": 1,
                "retry.upstream_rq_503": 1,
                "retry.upstream_rq_5xx": 1,
                "retry.upstream_rq_completed": 1,
            }
            assert stats(server, "remaining_retries") == {"circuit_breakers.default.remaining_retries": 1}
            assert stats(server, "upstream_rq_503") == {"upstream_rq_503": 2, "retry.upstream_rq_503": 1}
    assert len(up.heads) == 3


async def test_a_place_is_given_back_when_the_client_leaves() -> None:
    async with upstream(bad) as up:
        route = (
            f'- {{match: {{prefix: "/"}}, route: {{cluster: up, retry_policy: {{retry_on: 5xx, {LONG}}}}}}}'
        )
        clusters = cluster(up.port, options=limits("max_retries: 1"))
        async with proxy(bootstrap(listener(route), clusters=clusters)) as server:
            limit = server.clusters["up"].retry_limit
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
            async with asyncio.timeout(20):
                while not limit.active:
                    await asyncio.sleep(0.001)
                client.abort()
                while limit.active:
                    await asyncio.sleep(0.001)


async def test_what_went_well_at_last() -> None:
    turns = iter([BAD, BAD, answer(b"good")])

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(next(turns))

    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(ROUTES), clusters=cluster(up.port) + cluster(1, name="dead"))) as server,
    ):
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"good"
        client.close()
        found = stats(server, "upstream_rq_retry")
        assert (found["upstream_rq_retry"], found["upstream_rq_retry_success"]) == (2, 1)
        assert stats(server, "upstream_rq_503") == {"retry.upstream_rq_503": 2}
        assert server.clusters["up"].retry_limit.active == 0


async def test_a_share_of_what_is_under_way() -> None:
    """Ten requests wait for their answers; so a tenth of them may be sent once more, which is one."""
    release = asyncio.Event()

    async def handler(visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            if b"/held" in head:
                await release.wait()
                visit.send(answer())
            else:
                visit.send(BAD)

    route = f'- {{match: {{prefix: "/"}}, route: {{cluster: up, retry_policy: {{retry_on: 5xx, {LONG}}}}}}}'
    budget = "retry_budget: {budget_percent: {value: 10}, min_retry_concurrency: 0}"
    async with upstream(handler) as up:
        clusters = cluster(up.port, options=limits(budget))
        async with proxy(bootstrap(listener(route), clusters=clusters)) as server:
            client = await Client.open(port_of(server))
            await client.get("/alone")
            assert stats(server, "upstream_rq_retry_overflow") == {"upstream_rq_retry_overflow": 1}
            held = [await Client.open(port_of(server)) for _ in range(9)]
            for one in held:
                one.send(b"GET /held HTTP/1.1\r\nhost: a.test\r\n\r\n")
            async with asyncio.timeout(20):
                while server.clusters["up"].active < 9:
                    await asyncio.sleep(0.001)
            await client.get("/tenth")
            assert stats(server, "upstream_rq_retry_overflow") == {"upstream_rq_retry_overflow": 1}
            assert stats(server, "upstream_rq_retry_limit") == {"upstream_rq_retry_limit_exceeded": 1}
            release.set()
            for one in held:
                assert (await one.response()).status == 200
            for one in (client, *held):
                one.close()
