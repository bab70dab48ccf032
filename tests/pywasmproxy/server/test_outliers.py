"""Outlier detection that compares hosts: the arithmetic, on real sockets, beside the real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.server.outliers import rate_threshold
from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.beside import PROXIES, Beside, beside
from tests.pywasmproxy.server.support import (
    ON_DEMAND,
    Client,
    Handler,
    Upstream,
    Visit,
    bootstrap,
    cluster,
    interval_ends,
    listener,
    port_of,
    proxy,
    upstream,
)

RATES = st.lists(st.integers(0, 1000).map(lambda tenths: tenths / 10), min_size=1, max_size=20)


@given(rates=RATES, factor=st.integers(0, 5000).map(lambda thousandths: thousandths / 1000))
def test_threshold(rates: list[float], factor: float) -> None:
    wanted = statistics.mean(rates) - statistics.pstdev(rates) * factor
    assert rate_threshold(rates, factor) == pytest.approx(wanted, abs=1e-9)


@given(rates=RATES, factor=st.integers(1000, 5000).map(lambda thousandths: thousandths / 1000))
def test_only_few_can_be_far_below(rates: list[float], factor: float) -> None:
    """Chebyshev's inequality, one-sided: at most 1 / (1 + factor²) of them; those that are alike, never."""
    below = sum(rate < rate_threshold(rates, factor) - 1e-9 for rate in rates)
    assert below <= len(rates) / (1 + factor**2) + 1e-9
    assert rate_threshold([rates[0]] * len(rates), factor) <= rates[0] + 1e-9


# --- rules ----------------------------------------------------------------------------------------------

SIZE = 5
VOLUME = 20
NEVER = (
    "consecutive_5xx: 100000, consecutive_gateway_failure: 100000, "
    "consecutive_local_origin_failure: 100000, base_ejection_time: 60s"
)


@dataclass(frozen=True)
class Rule:
    """Settings, what the first of the five hosts does, and the names that are counted."""

    name: str
    settings: str
    counted: str
    """Kinds that are found; those that also take the host out have a `!`."""
    first: str = "fails"
    percent: int = 100

    @property
    def wanted(self) -> set[str]:
        found = self.counted.split()
        names = {f"detected_{one.rstrip('!')}" for one in found}
        enforced = {f"enforced_{one[:-1]}" for one in found if one.endswith("!")}
        names |= enforced | ({"enforced_total", "active"} if enforced else set())
        if "success_rate" in self.counted:
            names.add("success_rate")
        if "detected_success_rate" in names:
            names.add("total")
        return names

    def options(self, interval: str) -> str:
        volumes = (f"{name}_request_volume: {VOLUME}" for name in ("success_rate", "failure_percentage"))
        small = (one for one in volumes if one.partition(":")[0] not in self.settings)
        rules = ", ".join(part for part in (NEVER, *small, self.settings) if part)
        return f"outlier_detection: {{interval: {interval}, max_ejection_percent: {self.percent}, {rules}}}"


# With one of five at 0 % and the others at 100 %: the mean is 80 %, the deviation 40 %.
RULES = [
    Rule("far", "", "success_rate! failure_percentage"),
    Rule("near", "success_rate_stdev_factor: 2001", "failure_percentage"),
    Rule("few", "success_rate_minimum_hosts: 6, failure_percentage_minimum_hosts: 6", ""),
    Rule("rare", "success_rate_request_volume: 100000", "failure_percentage"),
    Rule("seen", "enforcing_success_rate: 0", "success_rate failure_percentage"),
    Rule(
        "percentage",
        "enforcing_success_rate: 0, enforcing_failure_percentage: 100, failure_percentage_threshold: 100",
        "success_rate failure_percentage!",
    ),
    Rule("half", "success_rate_stdev_factor: 2001, failure_percentage_threshold: 60", "", first="sometimes"),
    Rule(
        "local",
        "split_external_local_origin_errors: true",
        "local_origin_success_rate! local_origin_failure_percentage",
        first="dead",
    ),
    Rule(
        "refused",
        "split_external_local_origin_errors: true, enforcing_local_origin_success_rate: 0, "
        "enforcing_failure_percentage_local_origin: 100",
        "local_origin_success_rate local_origin_failure_percentage!",
        first="dead",
    ),
    Rule("joined", "", "success_rate! failure_percentage", first="dead"),
]


def host(kind: str) -> Handler:
    """A host that answers well, with 500 always, or every other time."""

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            bad = kind == "fails" or (kind == "sometimes" and len(visit.upstream.heads) % 2 == 0)
            visit.send(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % (500 if bad else 200))

    return handler


@contextlib.asynccontextmanager
async def clusters(rules: list[Rule], interval: str) -> AsyncIterator[tuple[str, list[Upstream]]]:
    """A cluster for each rule; the hosts that are well are the same ones. Also the first hosts."""
    async with contextlib.AsyncExitStack() as stack:
        good = [await stack.enter_async_context(upstream(host("well"))) for _ in range(SIZE - 1)]
        first = [await stack.enter_async_context(upstream(host(rule.first))) for rule in rules]
        text = ""
        for rule, one in zip(rules, first, strict=True):
            port = 1 if rule.first == "dead" else one.port
            ports = (port, *(other.port for other in good))
            text += cluster(*ports, name=rule.name, options=rule.options(interval))
        yield text, first


def routes(rules: list[Rule]) -> str:
    return "\n".join(
        f'- {{match: {{prefix: "/{one.name}"}}, route: {{cluster: {one.name}}}}}' for one in rules
    )


async def requests(port: int, path: str, count: int) -> None:
    client = await Client.open(port)
    for _ in range(count):
        await client.get(path)
    client.close()


def names(stats: dict[str, str], rule: str) -> set[str]:
    start = f"cluster.{rule}.outlier_detection.ejections_"
    return {name.removeprefix(start) for name in stats if name.startswith(start)}


@pytest.mark.envoy
async def test_like_the_real_envoy(tmp_path: Path) -> None:
    """All rules in one configuration; an interval may end between requests, so there are enough for two."""

    async def found(one: Beside, rule: str) -> set[str]:
        return names(await one.stats(f"cluster.{rule}.outlier_detection"), rule)

    async with clusters(RULES, "1s") as (text, _):
        for which in PROXIES:
            async with beside(which, tmp_path, routes(RULES), text) as one:
                for rule in RULES:
                    await requests(one.port, f"/{rule.name}", 3 * VOLUME * SIZE)
                await asyncio.sleep(1.5)
                assert {rule.name: await found(one, rule.name) for rule in RULES} == {
                    rule.name: rule.wanted for rule in RULES
                }, which


def counted(server: Server, rule: Rule) -> set[str]:
    stats = {one.name: str(one.value) for one in server.measures.all() if one.used}
    return names(stats, rule.name)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
async def test_rules(rule: Rule) -> None:
    async with (
        clusters([rule], ON_DEMAND) as (text, (first,)),
        proxy(bootstrap(listener(routes([rule])), clusters=text)) as server,
    ):
        await requests(port_of(server), f"/{rule.name}", 2 * VOLUME * SIZE)
        interval_ends(server, rule.name)
        assert counted(server, rule) == rule.wanted
        out = any(one.endswith("!") for one in rule.counted.split())
        hosts = server.clusters[rule.name].hosts.hosts
        assert [one.ejected for one in hosts] == [out, False, False, False, False]
        before = len(first.heads)
        await requests(port_of(server), f"/{rule.name}", SIZE)
        if rule.first != "dead":
            assert (len(first.heads) == before) is out


async def test_only_so_many_may_be_out() -> None:
    rule = Rule("far", "", "success_rate failure_percentage", percent=19)
    async with (
        clusters([rule], ON_DEMAND) as (text, _),
        proxy(bootstrap(listener(routes([rule])), clusters=text)) as server,
    ):
        await requests(port_of(server), "/far", 2 * VOLUME * SIZE)
        interval_ends(server, "far")
        assert "overflow" in counted(server, rule)
        assert not any(one.ejected for one in server.clusters["far"].hosts.hosts)


async def test_the_longest_rest() -> None:
    """`max_ejection_time` bounds what grows, and a random part comes on top."""
    settings = (
        "outlier_detection: {interval: 0.05s, base_ejection_time: 0.1s, max_ejection_time: 0.15s, "
        "max_ejection_time_jitter: 0.05s, max_ejection_percent: 100, consecutive_5xx: 1}"
        "\ncommon_lb_config: {healthy_panic_threshold: {value: 0}}"
    )
    async with (
        upstream(host("fails")) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port, options=settings))) as server,
    ):
        loop, rests = asyncio.get_running_loop(), []
        outliers = server.clusters["up"].outliers
        assert outliers is not None
        for _ in range(5):
            await requests(port_of(server), "/", 1)
            begin = loop.time()
            assert outliers.ejected == 1
            async with asyncio.timeout(20):
                while outliers.ejected:
                    await asyncio.sleep(0.005)
            rests.append(loop.time() - begin)
        assert rests[0] >= 0.1
        assert min(rests[1:]) >= 0.14
        (record,) = outliers._records.values()
        assert record.ejections <= 4  # it stops growing when more of it makes no difference


async def test_a_good_check_ends_the_rest() -> None:
    checks = (
        "health_checks: [{timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, unhealthy_threshold: 1, "
        "healthy_threshold: 1, http_health_check: {path: /healthz}}]"
        "\noutlier_detection: {consecutive_5xx: 1, base_ejection_time: 60s, max_ejection_percent: 100%s}"
    )

    async def handler(visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            status = 200 if b"/healthz" in head else 500
            visit.send(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)

    for more, back in (("", True), (", successful_active_health_check_uneject_host: false", False)):
        async with upstream(handler) as up:
            text = bootstrap(listener(), clusters=cluster(up.port, options=checks % more))
            async with proxy(text) as server:
                outliers = server.clusters["up"].outliers
                assert outliers is not None
                await requests(port_of(server), "/", 1)
                await asyncio.sleep(0.3)
                assert outliers.counts.ejections_enforced_total == 1
                assert outliers.ejected == int(not back)
