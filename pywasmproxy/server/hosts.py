"""Hosts of a cluster as they are now: who is healthy, and who gets the next request.

Source: Envoy's documentation of priority levels and panic thresholds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate

from pywasmproxy.config.model import Address, Endpoint
from pywasmproxy.config.model_clusters import LoadBalancing
from pywasmproxy.sansio.format_parts import Attempt, Wire
from pywasmproxy.server.balancers import Balancer, balancer


class Host:
    """One address of a cluster, for as long as the cluster has it."""

    __slots__ = ("active", "address", "check_failed", "checked", "ejected", "endpoint", "weight")

    def __init__(self, address: Address, endpoint: Endpoint) -> None:
        self.address, self.endpoint = address, endpoint
        self.weight = endpoint.weight
        self.active = 0  # requests on their way to it
        self.check_failed = False  # an active health check has said so
        self.checked = False  # ... has said anything
        self.ejected = False  # by outlier detection

    @property
    def host(self) -> str:
        return self.address.host

    @property
    def port(self) -> int:
        return self.address.port

    @property
    def hostname(self) -> str:
        """The name it was found by, or was given; "" for neither."""
        return self.endpoint.hostname

    @property
    def healthy(self) -> bool:
        """Whether it should get requests."""
        return self.endpoint.healthy and not self.check_failed and not self.ejected

    def hash_key(self, by_name: bool) -> str:
        """What stands for it in rings and tables."""
        return self.hostname if by_name and self.hostname else str(self.address)

    def __str__(self) -> str:
        return str(self.address)


def attempt(host: Host, connection: int | None = None, wire: Wire | None = None) -> Attempt:
    """What access logs are told of an attempt with a host; `connection` None: there was none."""
    return Attempt(str(host), host.hostname, host.endpoint.metadata, connection, wire or Wire())


class Choice:
    """Picks among hosts by their priorities, their health and the cluster's policy."""

    def __init__(self, settings: LoadBalancing) -> None:
        self._settings = settings
        self._levels: list[tuple[int, list[Host], Balancer]] = []  # percent up to it, who, how
        self._only: tuple[list[Host], Balancer] | None = None
        self.panics = False
        """Whether hosts are used that are known not to be healthy."""

    def rebuild(self, hosts: Iterable[Host]) -> None:
        """Hosts, or what is known about them, have changed."""
        by_priority: dict[int, list[Host]] = {}
        for host in hosts:
            by_priority.setdefault(host.endpoint.priority, []).append(host)
        levels = [by_priority[priority] for priority in sorted(by_priority)]
        loads, in_panic = self._loads(levels)
        self.panics = any(in_panic)
        self._levels = []
        for level, load, panic, upto in zip(levels, loads, in_panic, accumulate(loads), strict=True):
            usable = level if panic else [host for host in level if host.healthy]
            if load and usable:
                self._levels.append((upto, usable, balancer(self._settings, usable)))
        self._only = self._levels[0][1:] if len(self._levels) == 1 else None

    def _loads(self, levels: list[list[Host]]) -> tuple[list[int], list[bool]]:
        """Percent of the requests for each priority, and whether it uses all of its hosts."""
        settings = self._settings
        healthy = [100 * sum(host.healthy for host in level) / len(level) for level in levels]
        available = [min(100, int(settings.overprovisioning * share / 100)) for share in healthy]
        total = min(100, sum(available))
        threshold = settings.panic_threshold
        panic = [total < 100 and share < threshold for share in healthy]
        if not total:
            # Nobody is healthy: by how many there are, if they are used at all.
            count = sum(map(len, levels)) or 1
            ends = [100 * end // count for end in accumulate(map(len, levels))]
            return [end - start for start, end in zip([0, *ends], ends, strict=False)], panic
        loads: list[int] = []
        for one in available:
            loads.append(min(100 - sum(loads), -(-one * 100 // total)))
        return loads, panic

    def pick(self, key: int | None = None) -> Host | None:
        """The host for the next request; `key` is its hash. None when there is none."""
        only = self._only
        if only is not None:
            return only[0][only[1].pick(key)]
        if not self._levels:
            return None
        place = (random.getrandbits(32) if key is None else key) % self._levels[-1][0]
        for upto, hosts, policy in self._levels:
            if place < upto:
                return hosts[policy.pick(key)]
        return None
