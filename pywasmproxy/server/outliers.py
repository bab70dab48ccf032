"""Outlier detection: hosts that fail several times in a row get no requests for a while. asyncio.

Source: Envoy's documentation of its outlier detection, and Envoy 1.40 as measured. Of its kinds these are the
runs of failures; what compares hosts with each other is not here.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from pywasmproxy.config.model_clusters import OutlierDetection
from pywasmproxy.server.hosts import Host

if TYPE_CHECKING:
    from pywasmproxy.server.cluster import Cluster

_GATEWAY = (502, 503, 504)


class _Record:
    """What a host has done lately."""

    __slots__ = ("ejections", "errors", "gateway", "local", "since")

    def __init__(self) -> None:
        self.errors = self.gateway = self.local = 0  # in a row
        self.ejections = 0  # one more each time, one less for each interval without
        self.since = 0.0


class Outliers:
    """The hosts of one cluster and what they have done."""

    def __init__(self, cluster: Cluster, config: OutlierDetection) -> None:
        self._cluster, self._config = cluster, config
        self._records: dict[Host, _Record] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look at who may come back, again and again."""
        self._timer = asyncio.get_running_loop().call_later(self._config.interval, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self, host: Host, status: int) -> None:
        """A response began."""
        config, record = self._config, self._record(host)
        record.local = 0
        if status < 500:
            record.errors = record.gateway = 0
            return
        record.errors += 1
        record.gateway = record.gateway + 1 if status in _GATEWAY else 0
        if record.gateway == config.consecutive_gateway_failure:
            record.gateway = 0
            self._eject(host, record, config.enforcing_consecutive_gateway_failure)
        if record.errors == config.consecutive_5xx:
            record.errors = 0
            self._eject(host, record, config.enforcing_consecutive_5xx)

    def failed(self, host: Host, status: int = 503) -> None:
        """There was no response; `status` is what the client is told."""
        config = self._config
        if not config.split_local_origin_errors:
            self.answered(host, status)
            return
        record = self._record(host)
        record.local += 1
        if record.local == config.consecutive_local_origin_failure:
            record.local = 0
            self._eject(host, record, config.enforcing_consecutive_local_origin_failure)

    def _record(self, host: Host) -> _Record:
        found = self._records.get(host)
        if found is None:
            found = self._records[host] = _Record()
        return found

    def _eject(self, host: Host, record: _Record, enforcing: int) -> None:
        """Take a host out, if chance and the share of those that are out already allow it."""
        if host.ejected or random.randrange(100) >= enforcing:
            return
        hosts = self._cluster.hosts.hosts
        ejected = sum(one.ejected for one in hosts)
        if host not in hosts or not self._may_eject(ejected, len(hosts)):
            return
        host.ejected = True
        record.ejections += 1
        record.since = asyncio.get_running_loop().time()
        self._cluster.logger.info(f"cluster {self._cluster.name}: {host} is taken out for its failures")
        self._cluster.hosts.reconsider()

    def _may_eject(self, ejected: int, hosts: int) -> bool:
        if 100 * (ejected + 1) <= self._config.max_ejection_percent * hosts:
            return True
        return self._config.always_eject_one_host and not ejected

    def _look(self) -> None:
        """Let hosts come back whose time is over."""
        self.start()
        config, now = self._config, asyncio.get_running_loop().time()
        hosts = set(self._cluster.hosts.hosts)
        for host, record in list(self._records.items()):
            if host not in hosts:
                del self._records[host]
            elif not host.ejected:
                record.ejections = max(0, record.ejections - 1)
            else:
                longest = max(config.max_ejection_time, config.base_ejection_time)
                if now - record.since >= min(config.base_ejection_time * record.ejections, longest):
                    host.ejected = False
                    record.errors = record.gateway = record.local = 0
                    self._cluster.logger.info(f"cluster {self._cluster.name}: {host} may come back")
                    self._cluster.hosts.reconsider()
