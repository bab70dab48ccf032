"""`View`: what a proxy shows of itself - clusters, listeners, VMs, workers - as plain data.

Each process makes its own (`view_of`). The admin server asks all workers for theirs, as JSON, and puts them
together: what was counted is added up, what exists is the union, and what speaks against a host or a plugin
is said together with the workers that say it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pywasmproxy.server.admin_redacted import shown
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.listener import Listener
from pywasmproxy.server.machine import resident_memory

if TYPE_CHECKING:
    from pywasmproxy.server.measures import Guest
    from pywasmproxy.server.proxy import Server

REMEMBERED = 10
"""Failures of a guest that are shown."""

Numbers = dict[str, int]


def _add(mine: Numbers, other: Numbers) -> None:
    for name, value in other.items():
        mine[name] = mine.get(name, 0) + value


@dataclass(slots=True)
class WorkerView:
    """One process: which configuration it has, how much it has to do. Times are seconds, or ISO 8601."""

    index: int
    pid: int
    state: str
    failing: bool
    """Whether health checks are told that the proxy is not to be used."""
    generation: int
    version: str
    """Tells configurations apart: a digest of what is written and of the code, without secrets."""
    loaded: str
    uptime: int
    connections: int
    streams: int
    memory: int
    guest_memory: int
    vms: int
    reloads_refused: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


@dataclass(slots=True)
class HostView:
    """A host of a cluster. `against` says what speaks against it, and which workers say so."""

    host: str
    port: int
    name: str
    """The address as it is written, `host:port`."""
    hostname: str
    weight: int
    priority: int
    counters: Numbers
    gauges: Numbers
    against: dict[str, list[int]]
    workers: list[int]
    """Those that know of it."""

    @property
    def flags(self) -> str:
        """What speaks against it, in the words of `/clusters`."""
        return "".join(f"/{flag}" for flag in AGAINST if flag in self.against) or "healthy"

    def take(self, other: HostView) -> None:
        """Add what another worker knows about it."""
        _add(self.counters, other.counters)
        _add(self.gauges, other.gauges)
        for flag, workers in other.against.items():
            self.against.setdefault(flag, []).extend(workers)
        self.workers += other.workers


AGAINST = ("failed_active_hc", "failed_outlier_check", "failed_eds_health")
"""What can speak against a host, in Envoy's order."""


@dataclass(slots=True)
class ClusterView:
    """A cluster and its hosts."""

    name: str
    thresholds: Numbers
    hosts: list[HostView]

    def take(self, other: ClusterView) -> None:
        """Add what another worker knows about it."""
        _union(self.hosts, other.hosts, lambda host: host.name)


@dataclass(slots=True)
class PortView:
    """A listener. `statuses` are answers by class (`2xx`); None where it speaks no HTTP."""

    name: str
    host: str
    port: int
    address: str
    draining: list[int]
    connections: int
    statuses: Numbers | None
    workers: list[int]

    def take(self, other: PortView) -> None:
        """Add what another worker knows about it."""
        self.draining += other.draining
        self.connections += other.connections
        self.workers += other.workers
        if self.statuses is not None and other.statuses is not None:
            _add(self.statuses, other.statuses)


@dataclass(slots=True)
class PluginView:
    """A plugin of the configuration, and where its VM has failed."""

    name: str
    root_id: str
    vm_id: str
    code: str
    sha256: str
    failure_policy: str
    abi: str
    listeners: list[str]
    failed: list[int]
    workers: list[int]

    def take(self, other: PluginView) -> None:
        """Add what another worker knows about it."""
        self.failed += other.failed
        self.workers += other.workers
        self.listeners += [name for name in other.listeners if name not in self.listeners]


@dataclass(slots=True)
class GuestView:
    """VMs of one kind. `runs`, `failed` and `ends` count them by how they are; `callbacks` has calls,
    nanoseconds and instructions; `last` has times (seconds since 1970) and reports of failures."""

    name: str
    abi: str
    vm_id: str
    policies: list[str]
    runs: int
    failed: int
    ends: int
    memory: int
    failures: int
    exhausted: int
    callbacks: dict[str, list[int]]
    last: list[tuple[float, str]]

    @property
    def vms(self) -> int:
        """How many there are."""
        return self.runs + self.failed + self.ends

    def take(self, other: GuestView) -> None:
        """Add what another worker has."""
        for name in ("runs", "failed", "ends", "memory", "failures", "exhausted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.policies = sorted({*self.policies, *other.policies})
        for name, use in other.callbacks.items():
            mine = self.callbacks.setdefault(name, [0, 0, 0])
            mine[:] = [one + more for one, more in zip(mine, use, strict=True)]
        self.last = sorted([*self.last, *other.last])[-REMEMBERED:]


@dataclass(slots=True)
class View:
    """Everything. `ignored` are texts: what was ignored in the configuration."""

    workers: list[WorkerView] = field(default_factory=list)
    clusters: list[ClusterView] = field(default_factory=list)
    ports: list[PortView] = field(default_factory=list)
    plugins: list[PluginView] = field(default_factory=list)
    guests: list[GuestView] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def total(self, name: str) -> int:
        """A number of the workers, added up."""
        return sum(getattr(worker, name) for worker in self.workers)

    @property
    def agree(self) -> bool:
        """Whether all workers serve the same configuration."""
        return len({worker.version for worker in self.workers}) <= 1

    @property
    def state(self) -> str:
        """The state of the first one, or that health checks are to fail, if any says so."""
        if any(worker.failing for worker in self.workers):
            return "DRAINING"
        return self.workers[0].state if self.workers else "INITIALIZING"

    def some(self, workers: Sequence[int]) -> list[int]:
        """These workers, each once, if they are not all of them; else nothing."""
        return sorted(set(workers)) if set(workers) != {one.index for one in self.workers} else []

    def packed(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def unpacked(data: dict[str, Any]) -> View:
    """A view from its JSON. KeyError, TypeError."""
    clusters = [
        ClusterView(**{**one, "hosts": [HostView(**host) for host in one["hosts"]]})
        for one in data["clusters"]
    ]
    guests = [GuestView(**one) for one in data["guests"]]
    for guest in guests:
        guest.last = [(time, report) for time, report in guest.last]
    return View(
        [WorkerView(**one) for one in data["workers"]],
        clusters,
        [PortView(**one) for one in data["ports"]],
        [PluginView(**one) for one in data["plugins"]],
        guests,
        data["ignored"],
    )


def together(own: View, others: Iterable[View]) -> View:
    """The views of all workers as one, which is `own`; the order is its order."""
    for other in others:
        own.workers += other.workers
        _union(own.clusters, other.clusters, lambda cluster: cluster.name)
        _union(own.ports, other.ports, lambda port: (port.name, port.address))
        _union(own.plugins, other.plugins, lambda plugin: (plugin.name, plugin.root_id, plugin.sha256))
        _union(own.guests, other.guests, lambda guest: (guest.name, guest.vm_id))
        own.ignored += [text for text in other.ignored if text not in own.ignored]
    own.workers.sort(key=lambda worker: worker.index)
    return own


def _union(mine: list[Any], others: Iterable[Any], key: Any) -> None:
    """What has the same key the same number of times is the same thing."""
    found, taken = _numbered(mine, key), []
    for place, other in _numbered(others, key).items():
        if place in found:
            found[place].take(other)
        else:
            taken.append(other)
    mine += taken


def _numbered(things: Iterable[Any], key: Any) -> dict[tuple[Any, int], Any]:
    counts: dict[Any, int] = {}
    found = {}
    for thing in things:
        place = key(thing)
        counts[place] = counts.get(place, 0) + 1
        found[place, counts[place]] = thing
    return found


# --- a process's own ------------------------------------------------------------------------------------


def view_of(server: Server) -> View:
    """What this process shows of itself."""
    index = server.seat.index if server.seat is not None else 0
    return View(
        [_worker(server, index)],
        [_cluster(cluster, index) for cluster in server.clusters.values()],
        [_port(port, index) for port in server.listeners if port.address is not None],
        [_plugin(server, slot, index) for slot in server.filters.slots],
        [_guest(server, guest) for guest in server.measures.guests()],
        [str(warning) for warning in server.bootstrap.warnings],
    )


def version(server: Server) -> str:
    """A digest of the configuration in use: what is written, what became of it, and the code of plugins."""
    bootstrap = server.bootstrap
    codes = [slot.config.code.sha256 for slot in server.filters.slots]
    read = repr((bootstrap.listeners, bootstrap.clusters))
    text = json.dumps([shown(bootstrap.document), read, codes], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _worker(server: Server, index: int) -> WorkerView:
    return WorkerView(
        index=index,
        pid=os.getpid(),
        state=server.state,
        failing=server.failing,
        generation=server.generation,
        version=version(server),
        loaded=server.loaded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        uptime=server.measures.uptime,
        connections=server.connections,
        streams=server.streams,
        memory=resident_memory(),
        guest_memory=server.filters.guest_memory,
        vms=len(server.filters.vms),
        reloads_refused=server.reloader.refused if server.reloader is not None else 0,
    )


def _cluster(cluster: Cluster, index: int) -> ClusterView:
    breaker = cluster.config.circuit_breaker
    thresholds = {
        "max_connections": breaker.max_connections,
        "max_pending_requests": breaker.max_pending_requests,
        "max_requests": breaker.max_requests,
        "max_retries": breaker.max_retries,
    }
    return ClusterView(
        cluster.name, thresholds, [_host(cluster, host, index) for host in cluster.hosts.hosts]
    )


def _host(cluster: Cluster, host: Host, index: int) -> HostView:
    counts = cluster.counts.host(str(host))
    said = (host.check_failed, host.ejected, not host.endpoint.healthy)
    return HostView(
        host=host.address.host,
        port=host.address.port,
        name=str(host),
        hostname=host.hostname,
        weight=host.weight,
        priority=host.endpoint.priority,
        counters={name: getattr(counts, name) for name in counts.names},
        gauges={
            "cx_active": sum(one.host is host for part in cluster.parts for one in part.connections),
            "rq_active": host.active,
        },
        against={flag: [index] for flag, is_so in zip(AGAINST, said, strict=True) if is_so},
        workers=[index],
    )


def _port(port: Any, index: int) -> PortView:
    statuses = None
    if isinstance(port, Listener):
        counted = port.counts.status
        statuses = {f"{first}xx": sum(counted[100 * first : 100 * first + 100]) for first in range(1, 6)}
    return PortView(
        name=port.config.name,
        host=port.address.host,
        port=port.address.port,
        address=str(port.address),
        draining=[index] if port.draining else [],
        connections=len(port.connections),
        statuses=statuses,
        workers=[index],
    )


def _plugin(server: Server, slot: Any, index: int) -> PluginView:
    config = slot.config
    code = config.code
    return PluginView(
        name=config.name,
        root_id=config.root_id,
        vm_id=config.vm_id,
        code=code.filename or (code.remote.uri if code.remote is not None else "inline"),
        sha256=code.sha256,
        failure_policy=config.failure_policy.value,
        abi=slot.plugin.vm.version.value,
        listeners=[
            port.config.name
            for port in server.listeners
            if any(config in chain.plugins for chain in port.config.filter_chains)
        ],
        failed=[index] if slot.plugin.failed else [],
        workers=[index],
    )


def _guest(server: Server, guest: Guest) -> GuestView:
    usage, first = guest.usage, guest.vms[0]
    slots = [slot for slot in server.filters.slots if slot.plugin.vm in guest.vms]
    serving = {id(slot.plugin.vm) for slot in slots}
    alive = {id(slot.plugin.vm) for slot in slots if not slot.plugin.failed}
    return GuestView(
        name=guest.name,
        abi=first.version.value,
        vm_id=first.vm_id,
        policies=sorted({slot.config.failure_policy.value for slot in slots}),
        runs=len(alive),
        failed=len(serving - alive),
        ends=len(guest.vms) - len(serving),
        memory=guest.memory,
        failures=usage.failed,
        exhausted=usage.exhausted,
        callbacks={
            name: [use.calls, use.nanoseconds, use.instructions] for name, use in usage.callbacks.items()
        },
        last=[(one.time, one.report) for one in usage.last],
    )
