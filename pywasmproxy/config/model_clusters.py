"""How a cluster spreads requests over its hosts, and how it finds out which of them can be used.

After envoy.config.cluster.v3 and envoy.config.core.v3.HealthCheck. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class LbPolicy(Enum):
    """How a host is chosen."""

    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_REQUEST = "LEAST_REQUEST"
    RING_HASH = "RING_HASH"
    RANDOM = "RANDOM"
    MAGLEV = "MAGLEV"


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """The policy and its settings."""

    policy: LbPolicy = LbPolicy.ROUND_ROBIN
    choices: int = 2
    """LEAST_REQUEST: hosts that are compared."""
    active_request_bias: float = 1.0
    """LEAST_REQUEST with different weights: what requests under way count."""
    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8 * 1024 * 1024
    murmur: bool = False
    """The places of hosts on a ring are MurmurHash2's, not xxHash's."""
    table_size: int = 65537
    """MAGLEV: a prime number."""
    hash_by_name: bool = False
    """`use_hostname_for_hashing`."""
    panic_threshold: float = 50.0
    """Percentage of healthy hosts below which all are used. 0: never."""
    overprovisioning: int = 140
    """Percentage by which the healthy hosts of a priority may be overloaded before others take over."""


class CheckKind(Enum):
    """What a health check does."""

    HTTP = "HTTP"
    TCP = "TCP"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """An active health check of every host."""

    kind: CheckKind
    timeout: float
    interval: float
    unhealthy_threshold: int
    healthy_threshold: int
    initial_jitter: float = 0.0
    interval_jitter: float = 0.0
    interval_jitter_percent: int = 0
    no_traffic_interval: float = 60.0
    """While the cluster has had no request."""
    no_traffic_healthy_interval: float | None = None
    unhealthy_interval: float | None = None
    unhealthy_edge_interval: float | None = None
    """After the check that made a host unhealthy."""
    healthy_edge_interval: float | None = None
    host: str = ""
    path: str = ""
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    expected: tuple[tuple[int, int], ...] = ((200, 201),)
    """Statuses of healthy hosts: the first of a range, and the one after the last."""
    retriable: tuple[tuple[int, int], ...] = ()
    """Statuses that count towards the threshold; all others make a host unhealthy at once."""
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    """What a TCP host must answer: these pieces in this order, with anything between them."""


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """When hosts are taken out for what they answer. `enforcing_*`: percentages of chance, 100 is always."""

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 5
    consecutive_local_origin_failure: int = 5
    interval: float = 10.0
    """Between looks at who may come back; also what success rates are taken of."""
    base_ejection_time: float = 30.0
    """Times how often in a row the host has been taken out."""
    max_ejection_time: float = 300.0
    """At least `base_ejection_time`."""
    max_ejection_time_jitter: float = 0.0
    """A random part of this comes on top."""
    max_ejection_percent: int = 10
    """Of all hosts. With fewer than ten that is none, unless it is raised."""
    always_eject_one_host: bool = False
    enforcing_consecutive_5xx: int = 100
    enforcing_consecutive_gateway_failure: int = 0
    enforcing_consecutive_local_origin_failure: int = 100
    split_local_origin_errors: bool = False
    """Failures to get an answer at all are counted apart from bad answers."""
    success_rate_minimum_hosts: int = 5
    """So many must have had enough requests for their success rates to be compared."""
    success_rate_request_volume: int = 100
    """Requests in one interval that are enough."""
    success_rate_stdev_factor: int = 1900
    """Thousandths: a rate that is so many standard deviations below the mean is an outlier."""
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    failure_percentage_threshold: int = 85
    """Percentage of failures from which on a host is an outlier, whatever the others do."""
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    successful_health_check_unejects: bool = True
    """A good active health check lets a host come back before its time."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many requests may be sent once more at a time, as a share of all that are under way or wait."""

    percent: float = 20.0
    minimum: int = 3
    """So many are always allowed."""


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """How much a cluster takes at once. More is answered with 503 without being tried."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    """Requests that wait for a connection, or for the end of making one."""
    max_requests: int = 1024
    max_retries: int = 3
    """Requests that are being sent once more, of all together; each has its own limit, too."""
    retry_budget: RetryBudget | None = None
    """In place of `max_retries`."""
    track_remaining: bool = False
    """Say in the statistics how much more there may be."""


DEFAULT_BREAKER = CircuitBreaker()
DEFAULT_BALANCING = LoadBalancing()
