"""`Measures`: the statistics of a running proxy under Envoy's names, put together when somebody asks.

What happened was counted where it happened (`stats.counts`); what exists - connections, requests, VMs - is
counted now. Names that start with `pywasmvm.` are ours. With several workers
each counts for itself, and `peers` brings what the others have; guests' own metrics are those of all, since
they are in the store that workers share.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from abi.proxy_wasm.types import MetricType
from abi.proxy_wasm.usage import Usage
from abi.proxy_wasm.vm import Vm
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.listener import Listener
from pywasmproxy.server.machine import resident_memory
from pywasmproxy.server.peers import merged
from pywasmproxy.server.port import Port
from pywasmproxy.server.tcp import TcpListener
from pywasmproxy.stats.counts import Counts, DownstreamCounts, TcpCounts
from pywasmproxy.stats.stat import ROOT, Buckets, Kind, Scope, Stat
from pywasmvm import __version__

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

_KINDS = {
    MetricType.COUNTER: Kind.COUNTER,
    MetricType.GAUGE: Kind.GAUGE,
    MetricType.HISTOGRAM: Kind.HISTOGRAM,
}


def _values(counts: Counts) -> list[tuple[str, int]]:
    return [(name, getattr(counts, name)) for name in counts.names]


class Guest:
    """A VM that serves, as it is shown: the plugins in it, and what its kind has cost so far."""

    def __init__(self, vm: Vm, usage: Usage) -> None:
        self.usage = usage
        self.vms = [vm]
        self.name = "+".join(plugin.name for plugin in vm.plugins) or vm.vm_id or "unnamed"

    @property
    def memory(self) -> int:
        """Bytes of linear memory."""
        from pywasmproxy.server.successors import memory_size

        return sum(memory_size(vm) for vm in self.vms)


class Measures:
    """Of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.began = time.monotonic()
        self._http: dict[str, DownstreamCounts] = {}

    def http(self, prefix: str) -> DownstreamCounts:
        """The counts of all HTTP listeners with one `stat_prefix`; they outlive the configuration."""
        return self._http.setdefault(prefix, DownstreamCounts())

    @property
    def uptime(self) -> int:
        """Seconds."""
        return int(time.monotonic() - self.began)

    def reset(self) -> None:
        """Set all counters to zero, but for those of guests and of what they cost."""
        server = self._server
        groups: list[Counts] = [*self._http.values(), *server.filters.plugin_counts.values()]
        groups += [cluster.counts for cluster in server.clusters.values()]
        for port in self._ports:
            groups.append(port.counts)
            if isinstance(port, TcpListener):
                groups.append(port.tcp_counts)
        groups.append(server.filters.codes.counts)
        for counts in groups:
            counts.reset()

    def all(self) -> list[Stat]:
        """Every statistic, what the other workers said last included."""
        peers = self._server.peers
        return self._own() if peers is None else merged(self._own(), peers.stats)

    def _own(self) -> list[Stat]:
        stats = [*self._of_server(), *self._of_wasm(), *self._of_guests(), *self._of_listeners()]
        for cluster in self._server.clusters.values():
            stats += _of_cluster(cluster)
        for prefix, counts in self._http.items():
            stats += self._of_http(prefix, counts)
        return [*stats, *self._of_tcp(), *self._custom()]

    # --- downstream -----------------------------------------------------------------------------------------

    @property
    def _ports(self) -> list[Port[Any]]:
        return [*self._server.listeners, *self._server.dropped]

    def _of_http(self, prefix: str, counts: DownstreamCounts) -> list[Stat]:
        scope = ROOT.inside("http", "http.").inside(
            prefix, labels=(("envoy_http_conn_manager_prefix", prefix),)
        )
        mine = [port for port in self._ports if isinstance(port, Listener)]
        connections = sum(len(port.connections) for port in mine if port.serving.counts is counts)
        exchanges = sum(one.serving.counts is counts for port in mine for one in port.streams)
        total, requests = counts.downstream_cx_total, counts.downstream_rq_total
        return [
            *scope.counters(_values(counts)),
            *scope.counters([("downstream_cx_http1_total", total), ("downstream_rq_http1_total", requests)]),
            *scope.responses("downstream_rq", counts.status, codes=False),
            *scope.gauges(
                [
                    ("downstream_cx_active", connections),
                    ("downstream_cx_http1_active", connections),
                    ("downstream_rq_active", exchanges),
                ]
            ),
            *scope.histograms(
                [("downstream_cx_length_ms", counts.cx_length), ("downstream_rq_time", counts.rq_time)]
            ),
        ]

    def _of_listeners(self) -> list[Stat]:
        server = self._server
        stats = ROOT.inside("listener_manager", "listener_manager.").gauges(
            [
                ("total_listeners_active", len(server.listeners)),
                ("total_listeners_draining", len(server.dropped)),
                ("workers_started", 1),
            ]
        )
        worker = server.seat.index if server.seat is not None else 0
        for port in server.listeners:
            if port.address is None:
                continue
            address = f"{port.address}".replace(":", "_")
            scope = ROOT.inside("listener", "listener.").inside(
                address, labels=(("envoy_listener_address", address),)
            )
            own = scope.inside(f"worker_{worker}", "worker_", (("envoy_worker_id", str(worker)),))
            active, counts = ("downstream_cx_active", len(port.connections)), port.counts
            stats += [
                *scope.counters(_values(counts)),
                *scope.gauges([active]),
                *own.counters([("downstream_cx_total", counts.downstream_cx_total)]),
                *own.gauges([active]),
                *scope.histograms([("downstream_cx_length_ms", counts.cx_length)]),
            ]
            if isinstance(port, Listener):
                prefix = port.http.stat_prefix
                http = scope.inside("http", "http_").inside(
                    prefix, labels=(("envoy_http_conn_manager_prefix", prefix),)
                )
                stats += http.responses("downstream_rq", counts.status, codes=False)
        return stats

    def _of_tcp(self) -> list[Stat]:
        sums: dict[str, TcpCounts] = {}
        for port in self._ports:
            if isinstance(port, TcpListener) and port.config.tcp is not None:
                total = sums.setdefault(port.config.tcp.stat_prefix, TcpCounts())
                for name, value in _values(port.tcp_counts):
                    setattr(total, name, getattr(total, name) + value)
        stats: list[Stat] = []
        for prefix, counts in sums.items():
            scope = ROOT.inside("tcp", "tcp.").inside(prefix, labels=(("envoy_tcp_prefix", prefix),))
            stats += scope.counters(_values(counts))
        return stats

    # --- the process ----------------------------------------------------------------------------------------

    def _of_server(self) -> list[Stat]:
        server = self._server
        major, minor, patch = (*(int(part) for part in re.findall(r"\d+", __version__)), 0, 0, 0)[:3]
        stats = ROOT.inside("server", "server.").gauges(
            [
                ("live", int(server.state == "LIVE")),
                ("state", {"LIVE": 0, "DRAINING": 1, "PRE_INITIALIZING": 2}.get(server.state, 3)),
                ("uptime", self.uptime),
                ("version", (major * 1000 + minor) * 1000 + patch),
                ("concurrency", len(server.seat.balance) if server.seat is not None else 1),
                ("memory_physical_size", resident_memory()),
                ("total_connections", server.connections),
                ("hot_restart_epoch", 0),
                ("parent_connections", 0),
            ]
        )
        stats += ROOT.inside("cluster_manager", "cluster_manager.").gauges(
            [("active_clusters", len(server.clusters))]
        )
        if server.reloader is not None:
            loaded, refused = server.reloader.loaded, server.reloader.refused
            stats += _ours(Kind.COUNTER, "config.reload_success", loaded)
            stats += _ours(Kind.COUNTER, "config.reload_refused", refused)
        written = server.access_logs
        return stats + ROOT.inside("filesystem", "filesystem.").counters(
            [
                ("write_buffered", written.buffered),
                ("write_completed", written.completed),
                ("write_failed", written.failed),
                ("reopen_failed", written.reopen_failed),
            ]
        )

    # --- guests ---------------------------------------------------------------------------------------------

    def _of_wasm(self) -> list[Stat]:
        filters = self._server.filters
        scope = ROOT.inside("wasm", "wasm.")
        active: dict[str, int] = dict.fromkeys(filters.created, 0)
        for vm in filters.vms:
            runtime = filters.runtime_of(vm)
            active[runtime] = active.get(runtime, 0) + 1
        stats = [
            *scope.gauges([("wasm_vm_count", len(filters.vms))]),
            *scope.gauges([("remote_load_cache_entries", len(filters.codes))]),
            *scope.counters(_values(filters.codes.counts)),
        ]
        for runtime, created in filters.created.items():
            place = scope.inside(runtime, f"{runtime}.")
            stats += place.counters([("created", created)])
            stats += place.gauges([("active", active[runtime])])
        for name, counts in filters.plugin_counts.items():
            stats += scope.inside(name, f"{name}.").counters(_values(counts))
        return stats

    def guests(self) -> list[Guest]:
        """The VMs there are; one and its successor are one guest."""
        filters = self._server.filters
        found: dict[int, Guest] = {}
        vms = dict.fromkeys([*(slot.plugin.vm for slot in filters.slots), *filters.vms])
        for vm in vms:
            guest = found.get(id(vm.usage))
            if guest is None:
                found[id(vm.usage)] = Guest(vm, vm.usage)
            else:
                guest.vms.append(vm)
        return list(found.values())

    def _of_guests(self) -> list[Stat]:
        stats: list[Stat] = []
        taken: dict[str, int] = {}
        for guest in self.guests():
            number = taken[guest.name] = taken.get(guest.name, 0) + 1
            name = guest.name if number == 1 else f"{guest.name}#{number}"
            labels = (("plugin", name),)
            usage = guest.usage
            stats += _ours(Kind.GAUGE, "vm.memory_bytes", guest.memory, f"vm.{name}.memory_bytes", labels)
            stats += _ours(Kind.COUNTER, "vm.failures", usage.failed, f"vm.{name}.failures", labels)
            stats += _ours(Kind.COUNTER, "vm.exhaustions", usage.exhausted, f"vm.{name}.exhaustions", labels)
            for callback, use in usage.callbacks.items():
                where = f"vm.{name}.callback.{callback}"
                both = (("callback", callback), *labels)
                numbers = {"calls": use.calls, "time_us": use.nanoseconds // 1000}
                if use.instructions:
                    numbers["instructions"] = use.instructions
                for what, value in numbers.items():
                    stats += _ours(Kind.COUNTER, f"vm.callback.{what}", value, f"{where}.{what}", both)
        return stats

    def _custom(self) -> Iterable[Stat]:
        for metric in self._server.services.metrics:
            name = metric.name.decode("utf-8", "backslashreplace")
            value: int | Buckets = metric.value
            if metric.kind is MetricType.HISTOGRAM:
                value = _buckets(metric.histogram.buckets, metric.histogram.sum)
            full = f"wasmcustom.{name}" if name else "wasmcustom"
            yield Stat(full, _KINDS[metric.kind], value, name, custom=True)


def _buckets(counts: list[int], total: int) -> Buckets:
    from pywasmproxy.stats.histogram import BOUNDS

    cumulative: list[int] = []
    for count in counts[:-1]:
        cumulative.append((cumulative[-1] if cumulative else 0) + count)
    return Buckets(BOUNDS, tuple(cumulative), sum(counts), total)


def _ours(
    kind: Kind, short: str, value: int, name: str = "", labels: tuple[tuple[str, str], ...] = ()
) -> list[Stat]:
    """A statistic that Envoy does not have."""
    return [Stat(f"pywasmvm.{name or short}", kind, value, f"pywasmvm.{short}", labels, custom=True)]


def _of_cluster(cluster: Cluster) -> list[Stat]:
    scope: Scope = ROOT.inside("cluster", "cluster.").inside(
        cluster.name, labels=(("envoy_cluster_name", cluster.name),)
    )
    counts = cluster.counts
    parts = cluster.parts
    connections = sum(len(one.connections) for one in parts)
    version = 1 if cluster.http2 is None else 2
    hosts = cluster.hosts.hosts
    return [
        *scope.counters(_values(counts)),
        *scope.counters([(f"upstream_cx_http{version}_total", counts.upstream_cx_total)]),
        *scope.responses("upstream_rq", counts.status, codes=True),
        *_of_retries(scope, counts.retry_status),
        *_of_breaker(cluster, "default", scope),
        *(_of_breaker(parts[1], "high", scope) if len(parts) > 1 else ()),
        *_of_outliers(cluster, scope),
        *scope.gauges(
            [
                ("membership_total", len(hosts)),
                ("membership_healthy", sum(host.healthy for host in hosts)),
                ("upstream_cx_active", connections + cluster.tcp_connections),
                ("upstream_rq_active", sum(one.active for one in parts)),
                ("upstream_rq_pending_active", sum(one.pending for one in parts)),
            ]
        ),
        *scope.histograms(
            [
                ("upstream_cx_connect_ms", counts.cx_connect),
                ("upstream_cx_length_ms", counts.cx_length),
                *([("upstream_rq_time", counts.rq_time)] if counts.rq_time.count else []),
            ]
        ),
    ]


def _of_retries(scope: Scope, status: list[int]) -> list[Stat]:
    """Responses after which the request was sent once more, where there were any."""
    stats = scope.inside("retry", "retry_").responses("upstream_rq", status, codes=True)
    return [one for one in stats if one.used]


def _of_breaker(cluster: Cluster, priority: str, scope: Scope) -> list[Stat]:
    """What a cluster has as much of as it may, and how much more it may have, if that is wanted."""
    breaker = cluster.config.circuit_breaker
    retries = cluster.retry_limit
    levels = {
        "cx": (len(cluster.connections) + cluster.tcp_connections, breaker.max_connections),
        "rq_pending": (cluster.pending, breaker.max_pending_requests),
        "rq": (cluster.active, breaker.max_requests),
        "rq_retry": (retries.active, retries.most()),
    }
    place = scope.inside("circuit_breakers", "circuit_breakers_").inside(priority, f"{priority}_")
    stats = place.gauges([(f"{name}_open", int(0 < most <= now)) for name, (now, most) in levels.items()])
    if breaker.track_remaining:
        stats += place.gauges(
            [(_REMAINING[name], max(0, most - now)) for name, (now, most) in levels.items()]
        )
    return stats


def _of_outliers(cluster: Cluster, scope: Scope) -> list[Stat]:
    """What outlier detection has found, where there is any."""
    outliers = cluster.outliers
    if outliers is None:
        return []
    place = scope.inside("outlier_detection", "outlier_detection_")
    active = place.gauges([("ejections_active", outliers.ejected)])
    return [*place.counters(_values(outliers.counts)), *active]


_REMAINING = {
    "cx": "remaining_cx",
    "rq_pending": "remaining_pending",
    "rq": "remaining_rq",
    "rq_retry": "remaining_retries",
}
