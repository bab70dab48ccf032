"""Which host a request gets: policies, weights, hashes of requests; circuit breakers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from pywasmproxy.config.model import Address, Cluster, Endpoint
from pywasmproxy.config.model_clusters import LbPolicy, LoadBalancing
from pywasmproxy.sansio.hashing import murmur64, xxh64
from pywasmproxy.server.balancers import balancer
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.proxy import Server
from pywasmproxy.server.resolver import HostSet
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
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


def hosts(*ports: int, weights: tuple[int, ...] = ()) -> list[Host]:
    found = []
    for index, port in enumerate(ports):
        where = Address("127.0.0.1", port)
        found.append(Host(where, Endpoint(where, weight=weights[index] if weights else 1)))
    return found


def picked(policy: LbPolicy, among: list[Host], count: int) -> Counter[int]:
    one = balancer(LoadBalancing(policy), among)
    return Counter(one.pick(None) for _ in range(count))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        # XXH64 with seed 0, from the algorithm's own test vectors
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_xxh64(data: bytes, wanted: int) -> None:
    assert xxh64(data) == wanted


@pytest.mark.parametrize(
    ("data", "wanted"), [(b"hello", 2762169579135187400), (b"world", 8751027807033337960)]
)
def test_murmur64(data: bytes, wanted: int) -> None:
    """As `std::hash` of GNU's library has it, and the rings of the real Envoy (tests/differential)."""
    assert murmur64(data) == wanted


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        # what Envoy 1.40 did with these hosts and keys k0 ... k23: the first host is 2, the second one 5
        (LbPolicy.RING_HASH, "555552555525555525252222"),
        (LbPolicy.MAGLEV, "222522222222555525552252"),
    ],
)
def test_the_same_host_as_in_envoy(policy: LbPolicy, wanted: str) -> None:
    one = balancer(LoadBalancing(policy), hosts(18501, 18502))
    assert "".join("25"[one.pick(xxh64(b"k%d" % number))] for number in range(24)) == wanted


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_few_keys_move_when_a_host_goes(policy: LbPolicy) -> None:
    ports = (1001, 1002, 1003, 1004)
    before = balancer(LoadBalancing(policy), hosts(*ports))
    after = balancer(LoadBalancing(policy), hosts(*ports[:3]))
    keys = [xxh64(b"%d" % number) for number in range(500)]
    stayed = [key for key in keys if before.pick(key) < 3]
    assert 250 < len(stayed) < 480
    assert sum(before.pick(key) == after.pick(key) for key in stayed) > len(stayed) * 0.8


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST])
def test_weights_are_shares(policy: LbPolicy) -> None:
    assert picked(policy, hosts(1, 2, 3, weights=(1, 2, 5)), 800) == {0: 100, 1: 200, 2: 500}


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_weights_of_hashes(policy: LbPolicy) -> None:
    one = balancer(LoadBalancing(policy), hosts(1, 2, weights=(1, 3)))
    found = Counter(one.pick(xxh64(b"%d" % number)) for number in range(2000))
    assert 0.6 < found[1] / 2000 < 0.9


def test_random_takes_all() -> None:
    found = picked(LbPolicy.RANDOM, hosts(1, 2, 3), 3000)
    assert min(found.values()) > 800


def test_the_least_busy_of_two() -> None:
    among = hosts(1, 2)
    among[0].active = 10
    found = picked(LbPolicy.LEAST_REQUEST, among, 1000)
    assert 650 < found[1] < 850  # only who is compared with itself is taken though it is busy


def test_priorities_share_when_not_enough_is_healthy() -> None:
    endpoints = tuple(
        Endpoint(Address("127.0.0.1", port), priority=priority, healthy=port != 1)
        for port, priority in ((1, 0), (2, 0), (3, 1), (4, 1))
    )
    found = HostSet(Cluster("c", endpoints=endpoints), Lines().log()["upstream"])
    # Half of the first priority, with 40 % more than its share, takes 70 %.
    ports = Counter(host.port for _ in range(4000) if (host := found.pick()) is not None)
    assert ports[1] == 0
    assert 0.63 < ports[2] / 4000 < 0.77
    assert 0.1 < ports[3] / 4000 < 0.2


# --- requests -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def three(route: str, options: str) -> AsyncIterator[Server]:
    routes = f'- {{match: {{prefix: "/"}}, route: {{cluster: up, {route}}}}}'
    async with (
        upstream(telling(b"1")) as one,
        upstream(telling(b"2")) as two,
        upstream(telling(b"3")) as last,
    ):
        ports = one.port, two.port, last.port
        text = bootstrap(listener(routes), clusters=cluster(*ports, options=options))
        async with proxy(text) as server:
            yield server


@pytest.mark.parametrize("policy", ["RING_HASH", "MAGLEV"])
@pytest.mark.parametrize(
    ("rule", "path", "field"),
    [
        ("header: {header_name: x-k}", "/", b"x-k: %d\r\n"),
        ("query_parameter: {name: q}", "/?p=1&q=%d", b""),
        ("cookie: {name: c}", "/", b'cookie: a=b; c="%d"\r\n'),
    ],
)
async def test_requests_stay_with_a_host(policy: str, rule: str, path: str, field: bytes) -> None:
    async with three(f"hash_policy: [{{{rule}}}]", f"lb_policy: {policy}") as server:
        client = await Client.open(port_of(server))
        found: list[bytes] = []
        for number in (*range(12), *range(12)):
            where = path % number if "%" in path else path
            found.append((await client.get(where, field % number if field else b"")).body)
        assert found[:12] == found[12:]
        assert len(set(found)) > 1
        client.close()


async def test_the_clients_address_and_what_ends_the_list() -> None:
    rules = "[{connection_properties: {source_ip: true}, terminal: true}, {header: {header_name: x-k}}]"
    async with three(f"hash_policy: {rules}", "lb_policy: MAGLEV") as server:
        client = await Client.open(port_of(server))
        found = {(await client.get("/", b"x-k: %d\r\n" % number)).body for number in range(12)}
        assert len(found) == 1
        client.close()


async def test_a_cookie_is_given_and_comes_back() -> None:
    rule = "hash_policy: [{cookie: {name: sess, ttl: 5s, path: /p}}]"
    async with three(rule, "lb_policy: RING_HASH") as server:
        client = await Client.open(port_of(server))
        seen = set()
        for _ in range(8):
            first = await client.get()
            given = re.fullmatch(
                r'(sess="[0-9a-f]{16}"); Max-Age=5; Path=/p; HttpOnly', first.one("set-cookie") or ""
            )
            assert given is not None
            again = await client.get("/", b"cookie: %b\r\n" % given[1].encode())
            assert (again.body, again.one("set-cookie")) == (first.body, None)
            seen.add(first.body)
        assert len(seen) > 1
        client.close()


@pytest.mark.parametrize(
    "limit", ["max_requests: 2", "max_pending_requests: 2", "max_connections: 2, max_pending_requests: 2"]
)
async def test_what_is_too_much_is_not_tried(limit: str) -> None:
    release = asyncio.Event()

    async def handler(visit: Visit) -> None:
        await visit.request()
        await release.wait()
        visit.send(answer())

    options = f"circuit_breakers: {{thresholds: [{{{limit}}}]}}"
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port, options=options))) as server,
    ):
        clients = [await Client.open(port_of(server)) for _ in range(8)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        await asyncio.sleep(0.1)
        release.set()
        responses = [await client.response() for client in clients]
        for client in clients:
            client.close()
    refused = [one for one in responses if one.status == 503]
    assert 0 < len(refused) < 8
    assert {one.one("x-envoy-overloaded") for one in refused} == {"true"}
    assert {one.body.rpartition(b": ")[2] for one in refused} == {b"overflow"}
    if "max_requests" in limit:
        assert up.visits == 2
