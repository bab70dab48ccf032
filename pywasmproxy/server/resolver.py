"""Hosts of a cluster: fixed addresses, or names looked up again and again (STATIC, STRICT_DNS, LOGICAL_DNS).

Look-ups run in the event loop's executor; addresses written as numbers need neither a look-up nor a thread.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from pywasmproxy.config.model import Address, Cluster, ClusterType, DnsLookupFamily, Endpoint
from pywasmproxy.server.hosts import Choice, Host
from pywasmproxy.server.log import Logger

DNS_REFRESH = 5.0
"""Seconds between look-ups of a name (Envoy's default `dns_refresh_rate`)."""


def is_literal(host: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def select(found: list[tuple[int, str]], family: DnsLookupFamily) -> list[str]:
    """Addresses of (socket family, address) pairs that a cluster wants, without repeats, in order."""
    v4 = [address for kind, address in found if kind == socket.AF_INET]
    v6 = [address for kind, address in found if kind == socket.AF_INET6]
    wanted = {
        DnsLookupFamily.V4_ONLY: v4,
        DnsLookupFamily.V6_ONLY: v6,
        DnsLookupFamily.AUTO: v6 or v4,
        DnsLookupFamily.V4_PREFERRED: v4 or v6,
        DnsLookupFamily.ALL: [*v6, *v4],
    }[family]
    return list(dict.fromkeys(wanted))


class HostSet:
    """The hosts of one cluster in configuration order; `pick` chooses one by the cluster's policy."""

    def __init__(self, config: Cluster, logger: Logger) -> None:
        self._config = config
        self._logger = logger
        self._choice = Choice(config.load_balancing)
        self._found: dict[Endpoint, list[Address]] = {}
        self._known: dict[tuple[Endpoint, Address], Host] = {}
        self._task: asyncio.Task[None] | None = None
        self.hosts: list[Host] = []
        self.on_change: Callable[[], None] | None = None
        """Called when hosts have come or gone."""
        self.pick = self._choice.pick
        """The host for the next request, by its hash if it has one; None when there is none."""
        for endpoint in config.endpoints:
            if is_literal(endpoint.address.host):
                self._found[endpoint] = [endpoint.address]
            elif config.type is ClusterType.STATIC:
                logger.warning(
                    f"cluster {config.name}: {endpoint.address.host!r} is a name, STATIC needs addresses"
                )
        self._rebuild()

    @property
    def _names(self) -> list[Endpoint]:
        if self._config.type is ClusterType.STATIC:
            return []
        return [one for one in self._config.endpoints if not is_literal(one.address.host)]

    def _rebuild(self) -> None:
        wanted = [
            (endpoint, one) for endpoint in self._config.endpoints for one in self._found.get(endpoint, ())
        ]
        if wanted == list(self._known) and wanted:
            return
        checked = bool(self._config.health_checks)
        fresh = [
            (endpoint, address) for endpoint, address in wanted if (endpoint, address) not in self._known
        ]
        known = {key: self._known.get(key) or Host(key[1], key[0]) for key in wanted}
        for key in fresh:
            known[key].check_failed = checked  # until the first check has said otherwise
        self._known, self.hosts = known, list(known.values())
        self.reconsider()
        if self.on_change is not None:
            self.on_change()

    def reconsider(self) -> None:
        """Something is known about a host that was not known before."""
        self._choice.rebuild(self.hosts)

    @property
    def panics(self) -> bool:
        """Whether so few hosts are healthy that all are used."""
        return self._choice.panics

    def find(self, address: str) -> Host | None:
        """The host with this address (`ip:port`); None when there is none."""
        return next((host for host in self.hosts if str(host) == address), None)

    async def start(self) -> None:
        """Look every name up once, then again in the background until `close`."""
        if self._names:
            await self.refresh()
            self._task = asyncio.create_task(self._refresh_forever())

    async def close(self) -> None:
        """Stop looking names up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(DNS_REFRESH)
            await self.refresh()

    async def refresh(self) -> None:
        """Look every name up; a name that cannot be found keeps the addresses it had."""
        loop = asyncio.get_running_loop()
        for endpoint in self._names:
            address = endpoint.address
            try:
                answers = await loop.getaddrinfo(
                    address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
            except OSError as error:
                self._logger.warning(f"cluster {self._config.name}: cannot resolve {address.host!r}: {error}")
                continue
            found = [(int(kind), str(where[0])) for kind, *_, where in answers]
            hosts = select(found, self._config.dns_lookup_family)
            if self._config.type is ClusterType.LOGICAL_DNS:
                hosts = hosts[:1]
            self._found[endpoint] = [Address(host, address.port) for host in hosts]
        self._rebuild()
