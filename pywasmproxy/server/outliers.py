"""Outlier detection: hosts that fail more than others, or several times in a row, rest for a while. asyncio.

Source: Envoy's documentation of its outlier detection, and Envoy 1.40 as measured. Runs of failures are acted
upon at once; shares of failures are looked at after each interval, and are those of that interval.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from pywasmproxy.config.model_clusters import OutlierDetection
from pywasmproxy.server.hosts import Host
from pywasmproxy.stats.counts import OutlierCounts

if TYPE_CHECKING:
    from pywasmproxy.server.cluster import Cluster

_GATEWAY = (502, 503, 504)


class Ejection(Enum):
    """Why a host is taken out; the value is Envoy's name in statistics."""

    CONSECUTIVE_5XX = "consecutive_5xx"
    CONSECUTIVE_GATEWAY_FAILURE = "consecutive_gateway_failure"
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = "consecutive_local_origin_failure"
    SUCCESS_RATE = "success_rate"
    LOCAL_ORIGIN_SUCCESS_RATE = "local_origin_success_rate"
    FAILURE_PERCENTAGE = "failure_percentage"
    LOCAL_ORIGIN_FAILURE_PERCENTAGE = "local_origin_failure_percentage"


def rate_threshold(rates: Sequence[float], factor: float) -> float:
    """The success rate below which a host is an outlier among these: so many deviations under the mean.

    Rates are percentages (at least one); the deviation is that of the whole population.
    """
    mean = math.fsum(rates) / len(rates)
    variance = math.fsum((rate - mean) ** 2 for rate in rates) / len(rates)
    return mean - factor * math.sqrt(variance)


class _Tally:
    """Requests of one interval, and how many of them went well."""

    __slots__ = ("good", "total")

    def __init__(self) -> None:
        self.good = self.total = 0

    def add(self, good: bool) -> None:
        self.total += 1
        self.good += good

    def take(self) -> tuple[int, float]:
        """How many there were, and the percentage that went well; then begin again."""
        total, rate = self.total, 100 * self.good / self.total if self.total else 0.0
        self.good = self.total = 0
        return total, rate


class _Record:
    """What a host has done lately."""

    __slots__ = ("answers", "connections", "ejections", "errors", "gateway", "jitter", "local", "since")

    def __init__(self) -> None:
        self.errors = self.gateway = self.local = 0  # in a row
        self.answers, self.connections = _Tally(), _Tally()
        self.ejections = 0  # one more each time, one less for each interval without
        self.since = self.jitter = 0.0


class Outliers:
    """The hosts of one cluster and what they have done."""

    def __init__(self, cluster: Cluster, config: OutlierDetection) -> None:
        self._cluster, self._config = cluster, config
        self._records: dict[Host, _Record] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._enforcing = {
            Ejection.CONSECUTIVE_5XX: config.enforcing_consecutive_5xx,
            Ejection.CONSECUTIVE_GATEWAY_FAILURE: config.enforcing_consecutive_gateway_failure,
            Ejection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE: config.enforcing_consecutive_local_origin_failure,
            Ejection.SUCCESS_RATE: config.enforcing_success_rate,
            Ejection.LOCAL_ORIGIN_SUCCESS_RATE: config.enforcing_local_origin_success_rate,
            Ejection.FAILURE_PERCENTAGE: config.enforcing_failure_percentage,
            Ejection.LOCAL_ORIGIN_FAILURE_PERCENTAGE: config.enforcing_failure_percentage_local_origin,
        }

    def start(self) -> None:
        """Look at who may come back and who should leave, again and again."""
        self._timer = asyncio.get_running_loop().call_later(self._config.interval, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def counts(self) -> OutlierCounts:
        """They outlive the configuration, with the cluster's."""
        return self._cluster.counts.outliers

    @property
    def ejected(self) -> int:
        """Hosts that are out."""
        return sum(host.ejected for host in self._cluster.hosts.hosts)

    # --- what hosts do --------------------------------------------------------------------------------------

    def answered(self, host: Host, status: int) -> None:
        """A response began."""
        record = self._record(host)
        if self._config.split_local_origin_errors:
            self._connected(record)
        self._status(host, record, status)

    def failed(self, host: Host, status: int = 503, *, connected: bool = True) -> None:
        """There was no response; `status` is what the client is told. `connected`: the request got there."""
        config, record = self._config, self._record(host)
        if not config.split_local_origin_errors:
            self._status(host, record, status)
            return
        if connected:
            self._connected(record)
        record.connections.add(False)
        record.local += 1
        if record.local == config.consecutive_local_origin_failure:
            record.local = 0
            self._run(host, record, Ejection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE)

    @staticmethod
    def _connected(record: _Record) -> None:
        record.local = 0
        record.connections.add(True)

    def _status(self, host: Host, record: _Record, status: int) -> None:
        config = self._config
        record.answers.add(status < 500)
        if status < 500:
            record.errors = record.gateway = 0
            return
        record.errors += 1
        record.gateway = record.gateway + 1 if status in _GATEWAY else 0
        if record.gateway == config.consecutive_gateway_failure:
            record.gateway = 0
            self._run(host, record, Ejection.CONSECUTIVE_GATEWAY_FAILURE)
        if record.errors == config.consecutive_5xx:
            record.errors = 0
            self._run(host, record, Ejection.CONSECUTIVE_5XX)

    def _record(self, host: Host) -> _Record:
        found = self._records.get(host)
        if found is None:
            found = self._records[host] = _Record()
        return found

    def _run(self, host: Host, record: _Record, why: Ejection) -> None:
        """A run of failures is long enough. Of a host that is out, or gone, only the last ones come in."""
        if not host.ejected and host in self._cluster.hosts.hosts:
            self._detected(host, record, why)

    # --- out ------------------------------------------------------------------------------------------------

    def _detected(self, host: Host, record: _Record, why: Ejection) -> None:
        """Take a host out, if the share of those that are out already, and chance, allow it."""
        config, counts = self._config, self.counts
        counts.detected(why.value)
        if host.ejected:  # by another rule, just now
            return
        out = self.ejected
        if not self._may_eject(out, len(self._cluster.hosts.hosts)):
            counts.ejections_overflow += 1
            return
        counts.ejections_total += why in (Ejection.CONSECUTIVE_5XX, Ejection.SUCCESS_RATE)  # as ever
        if random.randrange(100) >= self._enforcing[why]:
            return
        counts.enforced(why.value)
        host.ejected = True
        longest = max(config.max_ejection_time, config.base_ejection_time)
        if record.ejections * config.base_ejection_time < longest + config.base_ejection_time:
            record.ejections += 1
        record.since = asyncio.get_running_loop().time()
        record.jitter = random.random() * config.max_ejection_time_jitter
        self._cluster.logger.info(
            f"cluster {self._cluster.name}: {host} is taken out for its failures ({why.value})"
        )
        self._cluster.hosts.reconsider()

    def _may_eject(self, ejected: int, hosts: int) -> bool:
        if 100 * (ejected + 1) <= self._config.max_ejection_percent * hosts:
            return True
        return self._config.always_eject_one_host and not ejected

    def _look(self) -> None:
        """An interval is over: let hosts come back whose time is, and compare the others."""
        self.start()
        hosts = set(self._cluster.hosts.hosts)
        for host in [host for host in self._records if host not in hosts]:
            del self._records[host]
        back = [host for host, record in self._records.items() if host.ejected and self._is_over(record)]
        for host in back:
            self._return(host)
        answers = {host: record.answers.take() for host, record in self._records.items()}
        connections = {host: record.connections.take() for host, record in self._records.items()}
        stayed = [host for host in self._records if not host.ejected and host not in back]
        self._compare(answers, Ejection.SUCCESS_RATE, Ejection.FAILURE_PERCENTAGE)
        if self._config.split_local_origin_errors:
            self._compare(
                connections, Ejection.LOCAL_ORIGIN_SUCCESS_RATE, Ejection.LOCAL_ORIGIN_FAILURE_PERCENTAGE
            )
        for host in stayed:
            if not host.ejected:
                record = self._records[host]
                record.ejections = max(0, record.ejections - 1)

    def _compare(
        self, tallies: dict[Host, tuple[int, float]], by_rate: Ejection, by_percentage: Ejection
    ) -> None:
        """Find hosts whose success rate is far below that of others, and those that fail too often anyhow."""
        config = self._config
        known = len(self._cluster.hosts.hosts)
        if known < config.success_rate_minimum_hosts and known < config.failure_percentage_minimum_hosts:
            return
        usable = {host: tally for host, tally in tallies.items() if not host.ejected and tally[0]}
        rates = {
            host: rate
            for host, (total, rate) in usable.items()
            if total >= config.success_rate_request_volume
        }
        failing = {
            host: 100 - rate
            for host, (total, rate) in usable.items()
            if total >= config.failure_percentage_request_volume
        }
        if rates and len(rates) >= config.success_rate_minimum_hosts:
            threshold = rate_threshold(list(rates.values()), config.success_rate_stdev_factor / 1000)
            for host, rate in rates.items():
                if rate < threshold:
                    self._detected(host, self._records[host], by_rate)
        if failing and len(failing) >= config.failure_percentage_minimum_hosts:
            for host, percentage in failing.items():
                if percentage >= config.failure_percentage_threshold:
                    self._detected(host, self._records[host], by_percentage)

    # --- and back -------------------------------------------------------------------------------------------

    def _is_over(self, record: _Record) -> bool:
        config, now = self._config, asyncio.get_running_loop().time()
        longest = max(config.max_ejection_time, config.base_ejection_time)
        rest = min(config.base_ejection_time * record.ejections, longest) + record.jitter
        return now - record.since >= rest

    def _return(self, host: Host) -> None:
        record = self._record(host)
        host.ejected = False
        record.errors = record.gateway = record.local = 0
        self._cluster.logger.info(f"cluster {self._cluster.name}: {host} may come back")
        self._cluster.hosts.reconsider()

    def checked(self, host: Host) -> None:
        """An active health check says that a host is well."""
        if host.ejected and self._config.successful_health_check_unejects:
            self._return(host)
