"""Hosts of a cluster: turns, address families, names that change or cannot be found."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from pywasmproxy.config.model import Address, Cluster, ClusterType, DnsLookupFamily, Endpoint
from pywasmproxy.server import resolver
from pywasmproxy.server.resolver import HostSet, is_literal, select
from tests.pywasmproxy.server.support import Lines

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)
FOUND = [(V6, "::2"), (V4, "10.0.0.1"), (V4, "10.0.0.2"), (V6, "::1"), (V4, "10.0.0.1")]


def make(
    kind: ClusterType, *hosts: str, family: DnsLookupFamily = DnsLookupFamily.V4_ONLY
) -> tuple[HostSet, Lines]:
    lines = Lines()
    endpoints = tuple(Endpoint(Address(host, 80)) for host in hosts)
    config = Cluster("c", kind, endpoints, dns_lookup_family=family)
    return HostSet(config, lines.log()["upstream"]), lines


def answers(monkeypatch: pytest.MonkeyPatch, found: dict[str, list[tuple[int, str]] | OSError]) -> None:
    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        result = found[host]
        if isinstance(result, OSError):
            raise result
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for kind, address in result]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        (DnsLookupFamily.V4_ONLY, ["10.0.0.1", "10.0.0.2"]),
        (DnsLookupFamily.V6_ONLY, ["::2", "::1"]),
        (DnsLookupFamily.AUTO, ["::2", "::1"]),
        (DnsLookupFamily.V4_PREFERRED, ["10.0.0.1", "10.0.0.2"]),
        (DnsLookupFamily.ALL, ["::2", "::1", "10.0.0.1", "10.0.0.2"]),
    ],
)
def test_families(family: DnsLookupFamily, wanted: list[str]) -> None:
    assert select(FOUND, family) == wanted


def test_auto_takes_what_there_is() -> None:
    assert select([(V4, "10.0.0.1")], DnsLookupFamily.AUTO) == ["10.0.0.1"]
    assert select([(V6, "::1")], DnsLookupFamily.V4_PREFERRED) == ["::1"]


def test_literals() -> None:
    assert is_literal("127.0.0.1")
    assert is_literal("::1")
    assert not is_literal("localhost")


def test_hosts_take_turns() -> None:
    hosts, _ = make(ClusterType.STATIC, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    picked = [hosts.pick() for _ in range(7)]
    assert [one.host for one in picked if one] == [f"10.0.0.{n}" for n in (1, 2, 3, 1, 2, 3, 1)]
    for gone, left in ((hosts.hosts[1:], "10.0.0.1:80"), (hosts.hosts[:1], "None")):
        for one in gone:
            hosts.hosts.remove(one)
        hosts.reconsider()
        assert str(hosts.pick()) == left


def test_static_clusters_know_no_names() -> None:
    hosts, lines = make(ClusterType.STATIC, "localhost")
    assert hosts.pick() is None
    assert "'localhost' is a name" in lines


async def test_strict_dns_uses_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, _ = make(ClusterType.STRICT_DNS, "a.test", "10.9.9.9")
    answers(monkeypatch, {"a.test": [(V4, "10.0.0.1"), (V4, "10.0.0.2")]})
    await hosts.start()
    assert [one.host for one in hosts.hosts] == ["10.0.0.1", "10.0.0.2", "10.9.9.9"]
    await hosts.close()


async def test_logical_dns_uses_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, _ = make(ClusterType.LOGICAL_DNS, "a.test")
    answers(monkeypatch, {"a.test": [(V4, "10.0.0.1"), (V4, "10.0.0.2")]})
    await hosts.start()
    assert [str(one) for one in hosts.hosts] == ["10.0.0.1:80"]
    await hosts.close()


async def test_names_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "DNS_REFRESH", 0.01)
    hosts, lines = make(ClusterType.STRICT_DNS, "a.test")
    found: dict[str, list[tuple[int, str]] | OSError] = {"a.test": OSError("no such name")}
    answers(monkeypatch, found)
    await hosts.start()
    assert hosts.hosts == []
    assert "cannot resolve 'a.test'" in lines
    for address in "10.0.0.1", "10.0.0.2":
        found["a.test"] = [(V4, address)]
        async with asyncio.timeout(20):
            while [one.host for one in hosts.hosts] != [address]:
                await asyncio.sleep(0.01)
    found["a.test"] = OSError("gone")
    await asyncio.sleep(0.05)
    assert [str(one) for one in hosts.hosts] == ["10.0.0.2:80"]  # the last known address serves on
    await hosts.close()
