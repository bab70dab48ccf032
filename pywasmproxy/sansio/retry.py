"""Retries: whether a request is sent once more after what has come of it, and when. Pure.

Source: Envoy 1.40's retry policies as documented and measured: route or virtual host state them, a filter
(or a trusted client) may add to them in `x-envoy-retry-on` and its like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_routes import RetryPolicy
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.matching import header_test

_CONDITIONS = """
    5xx gateway-error reset reset-before-request connect-failure envoy-ratelimited retriable-4xx
    refused-stream retriable-status-codes retriable-headers http3-post-connect-failure
"""
_GRPC_CONDITIONS = "cancelled deadline-exceeded internal resource-exhausted unavailable"

CONDITIONS = frozenset(_CONDITIONS.split())
"""What `retry_on` (and `x-envoy-retry-on`) may name."""

GRPC_CONDITIONS = frozenset(_GRPC_CONDITIONS.split())
"""Conditions on the status of a gRPC call (also in `x-envoy-retry-grpc-on`)."""

_GRPC_STATUS = {b"1": "cancelled", b"4": "deadline-exceeded", b"8": "resource-exhausted", b"13": "internal"}
_GRPC_STATUS[b"14"] = "unavailable"

RETRY_ON = b"x-envoy-retry-on"
RETRY_GRPC_ON = b"x-envoy-retry-grpc-on"
MAX_RETRIES = b"x-envoy-max-retries"
STATUS_CODES = b"x-envoy-retriable-status-codes"
HEADER_NAMES = b"x-envoy-retriable-header-names"

_CONNECT_FAILURES = (UpstreamFailure.CONNECT_FAILURE, UpstreamFailure.CONNECT_TIMEOUT)
_NEVER = (UpstreamFailure.OVERFLOW, UpstreamFailure.NO_HEALTHY_UPSTREAM, UpstreamFailure.NO_CLUSTER)


def _names(headers: HeaderMap, name: bytes) -> list[str]:
    written = headers.first(name)
    if written is None:
        return []
    return [part.strip() for part in written.decode("latin-1").split(",") if part.strip()]


def _number(headers: HeaderMap, name: bytes) -> int | None:
    written = headers.first(name)
    return int(written) if written is not None and written.isdigit() and len(written) < 10 else None


class RetryCounter(Protocol):
    """Who counts the retries of a cluster, and may say that there are enough."""

    def settled(self, good: bool) -> None:
        """What an attempt has come to is known; `good`: another one is not wanted."""

    def spent(self) -> None:
        """Another attempt was wanted, but the request has had all of its own."""

    def take(self, status: int) -> bool:
        """Whether there may be another attempt; `status` is that of the bad response, 0 without one."""


class Retries:
    """The attempts of one request. `exhausted`, `overflowed`: another one was wanted, and not allowed."""

    def __init__(self, policy: RetryPolicy, request: HeaderMap) -> None:
        """`request` may add to the policy; see `retries_of`."""
        self._policy = policy
        self._on = set(policy.retry_on)
        self._codes = set(policy.retriable_status_codes)
        self._headers = [header_test(match) for match in policy.retriable_headers]
        wanted = [header_test(match) for match in policy.retriable_request_headers]
        if wanted and not any(test(request) for test in wanted):
            self._on.clear()
        self._on.update(CONDITIONS.intersection(_names(request, RETRY_ON)))
        self._on.update(GRPC_CONDITIONS.intersection(_names(request, RETRY_GRPC_ON)))
        self._codes.update(int(code) for code in _names(request, STATUS_CODES) if code.isdigit())
        self._header_names = [name.lower().encode("latin-1") for name in _names(request, HEADER_NAMES)]
        most = _number(request, MAX_RETRIES)
        self._left = policy.num_retries if most is None else most
        self._interval = policy.base_interval
        self.exhausted = False  # it has had all of its own
        self.overflowed = False  # the cluster has enough of them under way
        self.counter: RetryCounter | None = None
        """Set by the driver."""

    @property
    def enabled(self) -> bool:
        """Whether there could be another attempt."""
        return bool(self._on)

    def after_response(self, status: int, headers: HeaderMap) -> bool:
        """Whether a response with this head is not good enough and another attempt is allowed."""
        return self._allowed(self._is_bad(status, headers), status)

    def _is_bad(self, status: int, headers: HeaderMap) -> bool:
        on = self._on
        if headers.first(b"x-envoy-ratelimited") is not None:
            return "envoy-ratelimited" in on
        grpc = _GRPC_STATUS.get(headers.first(b"grpc-status") or b"")
        return (
            ("5xx" in on and 500 <= status < 600)
            or ("gateway-error" in on and status in (502, 503, 504))
            or ("retriable-4xx" in on and status == 409)
            or ("retriable-status-codes" in on and status in self._codes)
            or ("retriable-headers" in on and self._has_retriable_header(headers))
            or grpc in on
        )

    def _has_retriable_header(self, headers: HeaderMap) -> bool:
        named = any(headers.first(name) is not None for name in self._header_names)
        return named or any(test(headers) for test in self._headers)

    def after_failure(self, failure: UpstreamFailure, *, sent: bool) -> bool:
        """Whether another attempt is allowed after a failure; `sent`: the upstream may have got something."""
        return self._allowed(self._is_retriable(failure, sent))

    def _is_retriable(self, failure: UpstreamFailure, sent: bool) -> bool:
        on = self._on
        if failure in _NEVER:
            return False
        return (
            bool(on & {"reset", "5xx", "gateway-error"})
            or ("connect-failure" in on and failure in _CONNECT_FAILURES)
            or ("refused-stream" in on and failure is UpstreamFailure.REMOTE_REFUSED)
            or ("reset-before-request" in on and not sent)
        )

    def after_timeout(self) -> bool:
        """Whether another attempt is allowed after one that took too long."""
        return self._allowed(bool(self._on & {"reset", "5xx", "gateway-error"}))

    def _allowed(self, wanted: bool, status: int = 0) -> bool:
        counter = self.counter
        if counter is not None:
            counter.settled(not wanted)
        if not wanted:
            return False
        if self._left == 0:
            self.exhausted = True
            if counter is not None:
                counter.spent()
            return False
        self._left -= 1
        self.overflowed = counter is not None and not counter.take(status)
        return not self.overflowed

    def wait(self, random: Callable[[], int]) -> float:
        """Seconds until the next attempt: a random part of an interval that doubles each time."""
        interval = self._interval
        self._interval = min(interval * 2, self._policy.max_interval)
        milliseconds = max(1, round(min(interval, self._policy.max_interval) * 1000))
        return (random() % milliseconds) / 1000


NO_POLICY = RetryPolicy()


def retries_of(policy: RetryPolicy | None, request: HeaderMap) -> Retries | None:
    """The retries of a request as policy and headers want them; None when there are none."""
    asked = request.first(RETRY_ON) is not None or request.first(RETRY_GRPC_ON) is not None
    if policy is None and not asked:
        return None
    found = Retries(policy or NO_POLICY, request)
    return found if found.enabled else None
