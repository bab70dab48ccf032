"""Requests of high priority: the same hosts, with connections and circuit breakers of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.pywasmproxy.server.beside import PROXIES, beside
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

ROUTES = """
- {match: {prefix: "/high"}, route: {cluster: up, priority: HIGH}}
- {match: {prefix: "/"}, route: {cluster: up}}
"""
LIMITS = (
    "circuit_breakers: {thresholds: [{max_requests: 1, track_remaining: true}, "
    "{priority: HIGH, max_requests: 2, max_retries: 7, track_remaining: true}]}"
)


REFUSED = 5
"""Of eight requests."""


class Held:
    """Answers nobody until it is let go."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, visit: Visit) -> None:
        while True:
            await visit.request()
            await self.release.wait()
            visit.send(answer())


async def crowd(port: int, held: Held) -> dict[str, list[int]]:
    """Statuses of four requests of each priority at once."""
    clients = {path: [await Client.open(port) for _ in range(4)] for path in ("/low", "/high")}
    tasks = {path: [asyncio.create_task(one.get(path)) for one in some] for path, some in clients.items()}
    everyone = [task for some in tasks.values() for task in some]
    async with asyncio.timeout(Client.LIMIT):  # who is not let in is told at once
        while sum(task.done() for task in everyone) < REFUSED:
            await asyncio.sleep(0.01)
    held.release.set()
    found = {path: sorted([(await task).status for task in some]) for path, some in tasks.items()}
    for client in (one for some in clients.values() for one in some):
        client.close()
    return found


WANTED = {"/low": [200, 503, 503, 503], "/high": [200, 200, 503, 503]}


@pytest.mark.envoy
async def test_like_the_real_envoy(tmp_path: Path) -> None:
    seen = {}
    for which in PROXIES:
        held = Held()
        async with (
            upstream(held) as up,
            beside(which, tmp_path, ROUTES, cluster(up.port, options=LIMITS)) as one,
        ):
            assert await crowd(one.port, held) == WANTED, which
            await one.logged(8)
            names = "remaining_(rq|retries|pending)|upstream_rq_(total|pending_overflow|active_overflow)"
            seen[which] = await one.stats(f"^cluster.up.*({names})$")
    assert seen["ours"] == seen["envoy"]


@pytest.mark.parametrize("http2", [False, True])
async def test_apart(http2: bool) -> None:
    if http2:
        from tests.pywasmproxy.server.h2_upstream import h2_upstream
        from tests.pywasmproxy.server.test_http2_requests import HTTP2, echo

        async with h2_upstream(echo) as up:
            text = bootstrap(listener(ROUTES), clusters=cluster(up.port, options=HTTP2))
            async with proxy(text) as server:
                client = await Client.open(port_of(server))
                for path in ("/low", "/high", "/low", "/high"):
                    assert (await client.get(path)).body == path.encode() + b" 0"
                client.close()
                assert [len(visit.heads) for visit in up.visits] == [2, 2]
        return
    held = Held()
    async with upstream(held) as up:
        async with proxy(bootstrap(listener(ROUTES), clusters=cluster(up.port, options=LIMITS))) as server:
            assert await crowd(port_of(server), held) == WANTED
            one = server.clusters["up"]
            assert [len(part.connections) for part in one.parts] == [1, 2]
            stats = {stat.name: stat.value for stat in server.measures.all()}
            assert stats["cluster.up.upstream_cx_active"] == 3
            assert stats["cluster.up.circuit_breakers.high.remaining_retries"] == 7
        assert all(not part.connections and not part.active for part in one.parts)
