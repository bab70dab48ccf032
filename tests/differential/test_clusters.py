"""Load balancing, health checks and ejection side by side: which hosts clients reach, and which not.

Where a policy is a calculation, both must come to the same host for each key; where it is chance, both must
stay close to what is expected (some five standard deviations, so that no run fails by chance).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.beside import Answer, Host, ask, beside, bootstrap, cluster, hosts, listener, manager

pytestmark = pytest.mark.envoy

KEYS = [f"key-{number}" for number in range(24)]


def routed(port: int, to: dict[str, Any], **action: Any) -> dict[str, Any]:
    """A configuration whose one route leads to a cluster."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": to["name"], **action}}
    return bootstrap([listener(port, manager([route]))], [to])


def ports(found: list[Host]) -> list[int]:
    return [one.port for one in found]


def by_path(port: int, clusters: dict[str, dict[str, Any]], **action: Any) -> dict[str, Any]:
    """One whose routes lead to the clusters by paths, which become their names."""
    routes = [{"match": {"path": f"/{name}"}, "route": {"cluster": name, **action}} for name in clusters]
    return bootstrap(
        [listener(port, manager(routes))], [one | {"name": name} for name, one in clusters.items()]
    )


async def spread(port: int, path: str, count: int) -> Counter[str]:
    """How many of so many requests came to each host."""
    return Counter([(await ask(port, path)).host for _ in range(count)])


# --- by a key -------------------------------------------------------------------------------------------


HASHING: dict[str, dict[str, Any]] = {
    "ring": {"lb_policy": "RING_HASH"},
    "murmur": {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}},
    "maglev": {"lb_policy": "MAGLEV"},
}


async def test_a_key_leads_to_the_same_host(tmp_path: Path) -> None:
    by_key = [{"header": {"header_name": "x-key"}, "terminal": True}, {"cookie": {"name": "c"}}]
    async with hosts("a", "b", "c") as found:
        clusters = {
            f"{name}{'-weighted' * bool(weights)}": cluster(name, *ports(found), weights=weights, **policy)
            for name, policy in HASHING.items()
            for weights in ((), (1, 2, 5))
        }

        def configuration(port: int) -> dict[str, Any]:
            return by_path(port, clusters, hash_policy=by_key)

        async def talk(port: int) -> dict[str, list[str]]:
            seen = {}
            for name in clusters:
                for what, prefix in (("x-key", ""), ("cookie", "o=1; c=")):
                    asked = [await ask(port, f"/{name}", {what: prefix + key}) for key in KEYS]
                    seen[f"{name} {what}"] = [one.host for one in asked]
            return seen

        envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy
    for came_to in envoy.values():
        assert len(set(came_to)) > 1  # where ports fall so, the host of weight 1 gets none of these keys


async def test_a_cookie_is_given_and_leads_back(tmp_path: Path) -> None:
    cookie = {"cookie": {"name": "stick", "ttl": "3600s", "path": "/p"}}
    async with hosts("a", "b", "c") as found:

        def configuration(port: int) -> dict[str, Any]:
            return routed(port, cluster("up", *ports(found), lb_policy="MAGLEV"), hash_policy=[cookie])

        async def talk(port: int) -> list[Any]:
            seen: list[Any] = []
            for _ in range(3):
                first = await ask(port)
                given = first.headers["set-cookie"]
                value, _, rest = given.partition(";")
                back = [await ask(port, fields={"cookie": value}) for _ in range(4)]
                assert {one.host for one in back} == {first.host}
                assert not any("set-cookie" in one.headers for one in back)
                seen.append((value.partition("=")[0], rest))
            return seen

        envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy


# --- by chance, or in turn ------------------------------------------------------------------------------


async def test_shares(tmp_path: Path) -> None:
    count = 120
    cases = [
        ("ROUND_ROBIN", (1, 1, 1)),
        ("ROUND_ROBIN", (1, 2, 3)),
        ("RANDOM", (1, 1, 1)),
        ("LEAST_REQUEST", (1, 1, 1)),
        ("LEAST_REQUEST", (1, 2, 3)),
    ]
    async with hosts("a", "b", "c") as found:
        clusters = {
            f"{policy}-{weights[2]}": cluster("up", *ports(found), weights=weights, lb_policy=policy)
            for policy, weights in cases
        }

        async def talk(port: int) -> list[Counter[str]]:
            return [await spread(port, f"/{name}", count) for name in clusters]

        both = await beside(lambda port: by_path(port, clusters), talk, tmp_path)
    for proxy in both:
        for (_, weights), seen in zip(cases, proxy, strict=True):
            for one, weight in zip(found, weights, strict=True):
                share = weight / sum(weights)
                assert abs(seen[one.name] - count * share) <= 5 * (count * share * (1 - share)) ** 0.5, seen


async def test_a_busy_host_gets_less(tmp_path: Path) -> None:
    """Requests that are not answered count: only who names the busy host twice comes to it."""
    async with hosts("busy", "idle") as found:
        busy = found[0]
        busy.holds = True

        def configuration(port: int) -> dict[str, Any]:
            return routed(port, cluster("up", *ports(found), lb_policy="LEAST_REQUEST"))

        async def talk(port: int) -> Counter[str]:
            tasks: list[asyncio.Task[Answer]] = []

            async def send(count: int) -> None:
                tasks.extend(asyncio.create_task(ask(port)) for _ in range(count))
                async with asyncio.timeout(20):
                    while sum(task.done() for task in tasks) + busy.held < len(tasks):
                        await asyncio.sleep(0.01)

            while busy.held < 3:
                await send(1)
            before = busy.held
            for _ in range(60):  # one by one: the idle host must not look busy
                await send(1)
            seen = Counter(idle=60 - busy.held + before, busy=busy.held - before)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return seen

        both = await beside(configuration, talk, tmp_path)
    for seen in both:  # a quarter of them, by chance
        assert seen["idle"] > seen["busy"], seen


# --- health ---------------------------------------------------------------------------------------------


def checked(found: list[Host], **fields: Any) -> dict[str, Any]:
    check = {
        "timeout": "1s",
        "interval": "0.1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/health"},
        "no_traffic_interval": "0.1s",
    }
    return cluster("up", *ports(found), health_checks=[check], **fields)


async def until(port: int, settled: Callable[[list[Answer]], bool]) -> list[Answer]:
    """Answers to a dozen requests, once they are what they shall be."""
    async with asyncio.timeout(20):
        while True:
            seen = [await ask(port) for _ in range(12)]
            if settled(seen):
                return seen
            await asyncio.sleep(0.05)


def reach(*names: str) -> Callable[[list[Answer]], bool]:
    return lambda seen: {one.host for one in seen} == set(names)


async def test_an_unhealthy_host_leaves_and_comes_back(tmp_path: Path) -> None:
    async with hosts("a", "b", "c") as found:
        sick = found[1]

        def well() -> None:
            for one in found:
                one.health = 200

        async def talk(port: int) -> list[set[str]]:
            steps = [await until(port, reach("a", "b", "c"))]
            sick.health = 503
            steps.append(await until(port, reach("a", "c")))
            sick.health = 200
            steps.append(await until(port, reach("a", "b", "c")))
            return [{f"{one.status}" for one in seen} for seen in steps]

        def configuration(port: int) -> dict[str, Any]:
            return routed(port, checked(found))

        envoy, ours = await beside(configuration, talk, tmp_path, before=well)
    assert ours == envoy == [{"200"}] * 3


@pytest.mark.parametrize(
    ("threshold", "reached"), [(None, {"a", "b", "c"}), (20.0, {"a"})], ids=["half", "a fifth"]
)
async def test_panic(tmp_path: Path, threshold: float | None, reached: set[str]) -> None:
    """When too few hosts are healthy, all are used: by default below a half."""
    common = {"common_lb_config": {"healthy_panic_threshold": {"value": threshold}}} if threshold else {}
    async with hosts("a", "b", "c") as found:

        def sick() -> None:
            for one in found:
                one.health, one.checks = 200 if one.name == "a" else 503, 0

        async def talk(port: int) -> set[str]:
            # By then everybody has been looked at, more than once.
            async with asyncio.timeout(20):
                while min(one.checks for one in found) < 3:
                    await asyncio.sleep(0.02)
            return {one.host for one in await until(port, reach(*reached))}

        def configuration(port: int) -> dict[str, Any]:
            return routed(port, checked(found, **common))

        envoy, ours = await beside(configuration, talk, tmp_path, before=sick)
    assert ours == envoy == reached


async def test_nobody_is_healthy_and_there_is_no_panic(tmp_path: Path) -> None:
    common = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
    async with hosts("a", "b") as found:
        for one in found:
            one.health = 503

        async def talk(port: int) -> set[tuple[int, bytes]]:
            seen = await until(port, lambda answers: {one.status for one in answers} == {503})
            return {(one.status, one.body) for one in seen}

        def configuration(port: int) -> dict[str, Any]:
            return routed(port, checked(found, **common))

        envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy == {(503, b"no healthy upstream")}


ENFORCED = {"enforcing_consecutive_gateway_failure": 100}


@pytest.mark.parametrize(
    ("detection", "status"),
    [
        ({"consecutive_5xx": 3}, 500),
        ({"consecutive_5xx": 9, "consecutive_gateway_failure": 2, **ENFORCED}, 503),
    ],
    ids=["5xx", "gateway"],
)
async def test_a_host_that_fails_is_ejected(tmp_path: Path, detection: dict[str, Any], status: int) -> None:
    """As many failures reach the client as it takes, and no more."""
    outliers = {"base_ejection_time": "600s", "max_ejection_percent": 100, **detection}
    async with hosts("a", "b", "c") as found:
        found[2].status = status

        async def talk(port: int) -> Counter[int]:
            return Counter([(await ask(port)).status for _ in range(40)])

        def configuration(port: int) -> dict[str, Any]:
            return routed(port, cluster("up", *ports(found), outlier_detection=outliers))

        envoy, ours = await beside(configuration, talk, tmp_path)
    wanted = next(count for count in detection.values() if count < 9)
    assert ours == {200: 40 - wanted, status: wanted}
    # Envoy's main thread decides, and its workers hear of that a moment later.
    assert envoy.keys() == ours.keys()
    assert wanted <= envoy[status] <= wanted + 3


async def test_not_all_are_ejected(tmp_path: Path) -> None:
    """`max_ejection_percent`: of four bad hosts two stay in."""
    outliers = {"base_ejection_time": "600s", "max_ejection_percent": 50, "consecutive_5xx": 1}
    # Envoy puts off what becomes of several changes within a second unless it is told not to.
    common = {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}
    async with hosts("a", "b", "c", "d") as found:
        for one in found:
            one.status = 500

        async def talk(port: int) -> int:
            for _ in range(24):
                await ask(port)
            return len({(await ask(port)).host for _ in range(24)})

        def configuration(port: int) -> dict[str, Any]:
            to = cluster("up", *ports(found), outlier_detection=outliers, common_lb_config=common)
            return routed(port, to)

        envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy == 2
