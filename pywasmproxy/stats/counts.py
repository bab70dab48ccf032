"""What is counted: objects full of whole numbers, which events add to as they happen.

Attributes that end in `_total` and the like become counters under just that name (`names`); histograms stand
beside them. Numbers of what exists (open connections, requests in flight) are not kept: whoever asks counts
what there is. Responses are counted per status, and the classes are added up on demand.
"""

from __future__ import annotations

from itertools import product

from pywasmproxy.stats.histogram import Histogram

STATUSES = 1000
"""Numbers of a status that can be told apart: one of three digits."""


def statuses() -> list[int]:
    """A count for each status."""
    return [0] * STATUSES


class Counts:
    """A group of counters. `names` are attributes; every one is a number that starts at 0."""

    __slots__ = ()

    names: tuple[str, ...] = ()

    def __init__(self) -> None:
        for name in self.names:
            setattr(self, name, 0)

    def reset(self) -> None:
        """Begin again, as `/reset_counters` asks; histograms stay."""
        for name in self.names:
            setattr(self, name, 0)


class DownstreamCounts(Counts):
    """Connections and requests of the HTTP listeners with one `stat_prefix`."""

    names = (
        "downstream_cx_total",
        "downstream_cx_destroy",
        "downstream_cx_destroy_active_rq",
        "downstream_cx_destroy_local",
        "downstream_cx_destroy_remote",
        "downstream_cx_drain_close",
        "downstream_cx_idle_timeout",
        "downstream_cx_max_duration_reached",
        "downstream_cx_protocol_error",
        "downstream_cx_rx_bytes_total",
        "downstream_cx_tx_bytes_total",
        "downstream_rq_total",
        "downstream_rq_header_timeout",
        "downstream_rq_idle_timeout",
        "downstream_rq_response_before_rq_complete",
        "downstream_rq_rx_reset",
        "downstream_rq_tx_reset",
        "downstream_rq_too_large",
        "downstream_rq_ws_on_non_ws_route",
        "rs_too_large",
        "rq_total",
        "no_route",
        "no_cluster",
        "rq_direct_response",
    )
    __slots__ = (*names, "cx_length", "rq_time", "status")

    downstream_cx_total: int
    downstream_cx_destroy: int
    downstream_cx_destroy_active_rq: int
    downstream_cx_destroy_local: int
    downstream_cx_destroy_remote: int
    downstream_cx_drain_close: int
    downstream_cx_idle_timeout: int
    downstream_cx_max_duration_reached: int
    downstream_cx_protocol_error: int
    downstream_cx_rx_bytes_total: int
    downstream_cx_tx_bytes_total: int
    downstream_rq_total: int
    downstream_rq_header_timeout: int
    downstream_rq_idle_timeout: int
    downstream_rq_response_before_rq_complete: int
    downstream_rq_rx_reset: int
    downstream_rq_tx_reset: int
    downstream_rq_too_large: int
    downstream_rq_ws_on_non_ws_route: int
    rs_too_large: int
    rq_total: int
    no_route: int
    no_cluster: int
    rq_direct_response: int

    def __init__(self) -> None:
        super().__init__()
        self.status = statuses()
        self.cx_length = Histogram()
        self.rq_time = Histogram()

    def reset(self) -> None:
        super().reset()
        self.status[:] = statuses()


class TcpCounts(Counts):
    """Connections of the TCP proxies with one `stat_prefix`."""

    names = (
        "downstream_cx_total",
        "downstream_cx_no_route",
        "downstream_cx_rx_bytes_total",
        "downstream_cx_tx_bytes_total",
        "idle_timeout",
    )
    __slots__ = names

    downstream_cx_total: int
    downstream_cx_no_route: int
    downstream_cx_rx_bytes_total: int
    downstream_cx_tx_bytes_total: int
    idle_timeout: int


class ListenerCounts(Counts):
    """Connections of one listener, and the statuses of its responses."""

    names = ("downstream_cx_total", "downstream_cx_destroy")
    __slots__ = (*names, "cx_length", "status")

    downstream_cx_total: int
    downstream_cx_destroy: int

    def __init__(self) -> None:
        super().__init__()
        self.status = statuses()
        self.cx_length = Histogram()

    def reset(self) -> None:
        super().reset()
        self.status[:] = statuses()


class HostCounts(Counts):
    """What one upstream host was asked, as `/clusters` shows it."""

    names = ("cx_connect_fail", "cx_total", "rq_error", "rq_success", "rq_timeout", "rq_total")
    __slots__ = names

    cx_connect_fail: int
    cx_total: int
    rq_error: int
    rq_success: int
    rq_timeout: int
    rq_total: int


class OutlierCounts(Counts):
    """Hosts that outlier detection found, and those it took out. Three names are kept for old times' sake."""

    kinds = (
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "consecutive_local_origin_failure",
        "failure_percentage",
        "local_origin_failure_percentage",
        "local_origin_success_rate",
        "success_rate",
    )
    names = (
        "ejections_consecutive_5xx",
        "ejections_success_rate",
        "ejections_total",
        "ejections_overflow",
        "ejections_enforced_total",
        *(f"ejections_{what}_{kind}" for what, kind in product(("detected", "enforced"), kinds)),
    )
    __slots__ = names

    ejections_total: int
    ejections_overflow: int
    ejections_enforced_total: int

    def detected(self, kind: str) -> None:
        """One of `kinds` was found."""
        for name in _DETECTED[kind]:
            setattr(self, name, getattr(self, name) + 1)

    def enforced(self, kind: str) -> None:
        """A host was taken out for it."""
        name = f"ejections_enforced_{kind}"
        setattr(self, name, getattr(self, name) + 1)
        self.ejections_enforced_total += 1


_DETECTED = {kind: [f"ejections_detected_{kind}"] for kind in OutlierCounts.kinds}
_DETECTED["consecutive_5xx"] += ["ejections_consecutive_5xx"]
for _kind in ("success_rate", "local_origin_success_rate"):
    _DETECTED[_kind] += ["ejections_success_rate"]


class ClusterCounts(Counts):
    """Connections to the hosts of a cluster, and requests on them."""

    names = (
        "membership_change",
        "upstream_cx_total",
        "upstream_cx_connect_fail",
        "upstream_cx_connect_timeout",
        "upstream_cx_destroy",
        "upstream_cx_destroy_local",
        "upstream_cx_destroy_local_with_active_rq",
        "upstream_cx_destroy_remote",
        "upstream_cx_destroy_remote_with_active_rq",
        "upstream_cx_destroy_with_active_rq",
        "upstream_cx_idle_timeout",
        "upstream_cx_none_healthy",
        "upstream_cx_overflow",
        "upstream_cx_protocol_error",
        "upstream_cx_rx_bytes_total",
        "upstream_cx_tx_bytes_total",
        "upstream_flow_control_paused_reading_total",
        "upstream_flow_control_resumed_reading_total",
        "upstream_rq_total",
        "upstream_rq_active_overflow",
        "upstream_rq_cancelled",
        "upstream_rq_pending_failure_eject",
        "upstream_rq_pending_overflow",
        "upstream_rq_pending_total",
        "upstream_rq_per_try_timeout",
        "upstream_rq_retry",
        "upstream_rq_retry_backoff_exponential",
        "upstream_rq_retry_limit_exceeded",
        "upstream_rq_retry_overflow",
        "upstream_rq_retry_success",
        "upstream_rq_rx_reset",
        "upstream_rq_timeout",
        "upstream_rq_tx_reset",
    )
    __slots__ = (*names, "cx_connect", "cx_length", "hosts", "outliers", "retry_status", "rq_time", "status")

    membership_change: int
    upstream_cx_total: int
    upstream_cx_connect_fail: int
    upstream_cx_connect_timeout: int
    upstream_cx_destroy: int
    upstream_cx_destroy_local: int
    upstream_cx_destroy_local_with_active_rq: int
    upstream_cx_destroy_remote: int
    upstream_cx_destroy_remote_with_active_rq: int
    upstream_cx_destroy_with_active_rq: int
    upstream_cx_idle_timeout: int
    upstream_cx_none_healthy: int
    upstream_cx_overflow: int
    upstream_cx_protocol_error: int
    upstream_cx_rx_bytes_total: int
    upstream_cx_tx_bytes_total: int
    upstream_flow_control_paused_reading_total: int
    upstream_flow_control_resumed_reading_total: int
    upstream_rq_total: int
    upstream_rq_active_overflow: int
    upstream_rq_cancelled: int
    upstream_rq_pending_failure_eject: int
    upstream_rq_pending_overflow: int
    upstream_rq_pending_total: int
    upstream_rq_per_try_timeout: int
    upstream_rq_retry: int
    upstream_rq_retry_backoff_exponential: int
    upstream_rq_retry_limit_exceeded: int
    upstream_rq_retry_overflow: int
    upstream_rq_retry_success: int
    upstream_rq_rx_reset: int
    upstream_rq_timeout: int
    upstream_rq_tx_reset: int

    def __init__(self) -> None:
        super().__init__()
        self.status = statuses()
        self.outliers = OutlierCounts()
        self.retry_status = statuses()  # of responses that were not the last word
        self.cx_connect = Histogram()
        self.cx_length = Histogram()
        self.rq_time = Histogram()
        #: By address.
        self.hosts: dict[str, HostCounts] = {}

    def reset(self) -> None:
        super().reset()
        self.status[:] = statuses()
        self.retry_status[:] = statuses()
        self.outliers.reset()
        for host in self.hosts.values():
            host.reset()

    def host(self, address: str) -> HostCounts:
        """Of one host; a connection asks once."""
        found = self.hosts.get(address)
        if found is None:
            found = self.hosts[address] = HostCounts()
        return found

    def connection_ended(self, *, remote: bool, active: bool, milliseconds: int) -> None:
        """A connection is gone: whether the other end did it, and whether a request was under way."""
        self.upstream_cx_destroy += 1
        if remote:
            self.upstream_cx_destroy_remote += 1
            self.upstream_cx_destroy_remote_with_active_rq += active
        else:
            self.upstream_cx_destroy_local += 1
            self.upstream_cx_destroy_local_with_active_rq += active
        self.upstream_cx_destroy_with_active_rq += active
        self.cx_length.record(milliseconds)


class RemoteLoadCounts(Counts):
    """Code from elsewhere."""

    names = (
        "remote_load_cache_hits",
        "remote_load_cache_misses",
        "remote_load_cache_negative_hits",
        "remote_load_fetch_failures",
        "remote_load_fetch_successes",
    )
    __slots__ = names

    remote_load_cache_hits: int
    remote_load_cache_misses: int
    remote_load_cache_negative_hits: int
    remote_load_fetch_failures: int
    remote_load_fetch_successes: int


class PluginCounts(Counts):
    """Fresh VMs of one plugin after a failure (FAIL_RELOAD)."""

    names = ("vm_reload", "vm_reload_backoff", "vm_reload_failure", "vm_reload_success")
    __slots__ = names

    vm_reload: int
    vm_reload_backoff: int
    vm_reload_failure: int
    vm_reload_success: int
