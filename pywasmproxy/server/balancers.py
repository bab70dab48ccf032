"""Load balancing policies: each picks one of the hosts it was made for.

Source: Envoy's documentation of its load balancers. Rings and tables are built as Envoy builds them
(`pywasmproxy.sansio.hashing`), when they are first needed.
"""

from __future__ import annotations

import heapq
import math
import random
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

from pywasmproxy.config.model_clusters import LbPolicy, LoadBalancing
from pywasmproxy.sansio.hashing import murmur64, xxh64


class Candidate(Protocol):
    """A host as policies see it."""

    weight: int
    active: int
    """Requests on their way to it."""

    def hash_key(self, by_name: bool) -> str:
        """What stands for the host in rings and tables."""


class Balancer(ABC):
    """Picks hosts. `key` is the request's hash, if it has one; not every policy looks at it."""

    @abstractmethod
    def pick(self, key: int | None) -> int:
        """The index of a host."""


def balancer(settings: LoadBalancing, hosts: Sequence[Candidate]) -> Balancer:
    """The policy for some hosts (at least one)."""
    return _POLICIES[settings.policy](settings, hosts)


def _equal(hosts: Sequence[Candidate]) -> bool:
    return len({host.weight for host in hosts}) == 1


class RoundRobin(Balancer):
    """Hosts in turn."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._next = 0

    def pick(self, key: int | None) -> int:
        turn = self._next
        self._next = turn + 1 if turn + 1 < self._count else 0
        return turn


class _Scheduler(Balancer):
    """Earliest deadline first: hosts in turn, the heavier ones more often."""

    def __init__(self, weights: Sequence[Callable[[], float]]) -> None:
        self._weights = weights
        self._order = len(weights)
        self._heap = [(1 / weight(), index, index) for index, weight in enumerate(weights)]
        heapq.heapify(self._heap)

    def pick(self, key: int | None) -> int:
        deadline, _, index = self._heap[0]
        self._order += 1
        heapq.heapreplace(self._heap, (deadline + 1 / self._weights[index](), self._order, index))
        return index


def _fixed(weight: int) -> Callable[[], float]:
    return lambda: weight


def _round_robin(settings: LoadBalancing, hosts: Sequence[Candidate]) -> Balancer:
    if _equal(hosts):
        return RoundRobin(len(hosts))
    return _Scheduler([_fixed(host.weight) for host in hosts])


class LeastRequest(Balancer):
    """The least busy of some hosts that chance names."""

    def __init__(self, hosts: Sequence[Candidate], choices: int) -> None:
        self._hosts, self._choices = hosts, choices

    def pick(self, key: int | None) -> int:
        hosts = self._hosts
        best = random.randrange(len(hosts))
        for _ in range(self._choices - 1):
            other = random.randrange(len(hosts))
            if hosts[other].active < hosts[best].active:
                best = other
        return best


def _least_request(settings: LoadBalancing, hosts: Sequence[Candidate]) -> Balancer:
    if _equal(hosts):
        return LeastRequest(hosts, settings.choices)
    bias = settings.active_request_bias

    def weight_of(host: Candidate) -> Callable[[], float]:
        return lambda: host.weight / (host.active + 1) ** bias

    return _Scheduler([weight_of(host) for host in hosts])


class Random(Balancer):
    """Chance alone; weights do not count."""

    def __init__(self, count: int) -> None:
        self._count = count

    def pick(self, key: int | None) -> int:
        return random.randrange(self._count)


class _ByHash(Balancer):
    """The host that a hash belongs to; a request without one gets a random one."""

    def __init__(self, settings: LoadBalancing, hosts: Sequence[Candidate]) -> None:
        self._settings, self._hosts = settings, hosts
        self._ready = False

    def pick(self, key: int | None) -> int:
        if not self._ready:
            self._build()
            self._ready = True
        return self._at(random.getrandbits(64) if key is None else key)

    @abstractmethod
    def _build(self) -> None: ...

    @abstractmethod
    def _at(self, key: int) -> int: ...

    def _names(self) -> list[str]:
        return [host.hash_key(self._settings.hash_by_name) for host in self._hosts]


class Ring(_ByHash):
    """Consistent hashing on a ring (ketama)."""

    def _build(self) -> None:
        settings, total = self._settings, sum(host.weight for host in self._hosts)
        shares = [host.weight / total for host in self._hosts]
        least = min(shares)
        scale = min(math.ceil(least * settings.minimum_ring_size) / least, settings.maximum_ring_size)
        places: list[tuple[int, int]] = []
        hashed = murmur64 if settings.murmur else xxh64
        target = 0.0
        for index, name in enumerate(self._names()):
            target += scale * shares[index]
            turn = 0
            while len(places) < target:
                places.append((hashed(f"{name}_{turn}".encode()), index))
                turn += 1
        places.sort()
        self._hashes = [place[0] for place in places]
        self._owners = [place[1] for place in places]

    def _at(self, key: int) -> int:
        place = bisect_left(self._hashes, key)
        return self._owners[place if place < len(self._owners) else 0]


class Maglev(_ByHash):
    """Consistent hashing with a table in which every host has its share of the places."""

    def _build(self) -> None:
        size = self._settings.table_size
        heaviest = max(host.weight for host in self._hosts)
        names = [name.encode() for name in self._names()]
        steps = [(xxh64(name) % size, xxh64(name, 1) % (size - 1) + 1) for name in names]
        table = [-1] * size
        nexts, targets = [0] * len(names), [0.0] * len(names)
        filled = turn = 0
        while filled < size:
            turn += 1
            for index, host in enumerate(self._hosts):
                if filled == size:
                    break
                if turn * host.weight < targets[index]:
                    continue  # a lighter host misses turns
                targets[index] += heaviest
                offset, skip = steps[index]
                place = (offset + skip * nexts[index]) % size
                while table[place] >= 0:
                    nexts[index] += 1
                    place = (offset + skip * nexts[index]) % size
                table[place] = index
                nexts[index] += 1
                filled += 1
        self._table = table

    def _at(self, key: int) -> int:
        return self._table[key % len(self._table)]


_POLICIES: dict[LbPolicy, Callable[[LoadBalancing, Sequence[Candidate]], Balancer]] = {
    LbPolicy.ROUND_ROBIN: _round_robin,
    LbPolicy.LEAST_REQUEST: _least_request,
    LbPolicy.RANDOM: lambda settings, hosts: Random(len(hosts)),
    LbPolicy.RING_HASH: Ring,
    LbPolicy.MAGLEV: Maglev,
}
