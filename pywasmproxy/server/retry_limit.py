"""How many requests of a cluster may be under way once more: a number, or a share of all (`retry_budget`).

Source: Envoy's documentation of circuit breaking, and Envoy 1.40 as measured: a retry is under way from the
decision for it to the one about what came of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pywasmproxy.sansio.retry import Retries

if TYPE_CHECKING:
    from pywasmproxy.server.cluster import Cluster
    from pywasmproxy.server.upstream import UpstreamRequest


class RetryLimit:
    """Of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.active = 0

    def most(self, more: int = 0) -> int:
        """How many there may be, with so many requests that the cluster no longer counts."""
        breaker = self.cluster.config.circuit_breaker
        budget = breaker.retry_budget
        if budget is None:
            return breaker.max_retries
        requests = self.cluster.active + self.cluster.pending + more
        return max(int(budget.percent * requests / 100), budget.minimum)


class RetryPlace:
    """One request's place among them (`sansio.retry.RetryCounter`); `cancel` gives it back for good."""

    __slots__ = ("_held", "_limit", "request")

    def __init__(self, limit: RetryLimit, retries: Retries) -> None:
        self._limit = limit
        self._held = False
        self.request: UpstreamRequest | None = None
        """The attempt that is under way; it counts where shares are counted, though it may be over."""
        retries.counter = self

    def settled(self, good: bool) -> None:
        if self._held:
            self._limit.cluster.counts.upstream_rq_retry_success += good
        self.cancel()

    def spent(self) -> None:
        self._limit.cluster.counts.upstream_rq_retry_limit_exceeded += 1

    def take(self, status: int) -> bool:
        limit, counts = self._limit, self._limit.cluster.counts
        over = self.request is None or self.request.done
        if limit.active >= limit.most(over):
            counts.upstream_rq_retry_overflow += 1
            return False
        self._held = True
        limit.active += 1
        counts.upstream_rq_retry += 1
        counts.upstream_rq_retry_backoff_exponential += 1
        if status:
            counts.status[status] -= 1
            counts.retry_status[status] += 1
        return True

    def cancel(self) -> None:
        if self._held:
            self._held = False
            self._limit.active -= 1
