"""What brings another attempt, how many, and when."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_match import HeaderMatch
from pywasmproxy.config.model_routes import RetryPolicy
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.retry import Retries, retries_of

NOTHING = HeaderMap()


def policy(*conditions: str, **more: object) -> RetryPolicy:
    return RetryPolicy(frozenset(conditions), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "again", "last"),
    [
        ("5xx", [500, 503, 599], [200, 404, 499]),
        ("gateway-error", [502, 503, 504], [500, 501, 505]),
        ("retriable-4xx", [409], [404, 500]),
        ("retriable-status-codes", [418], [500, 409]),
        ("reset", [], [500, 503]),
        ("connect-failure", [], [503]),
    ],
)
def test_statuses(condition: str, again: list[int], last: list[int]) -> None:
    codes = frozenset((418,))
    for status in (*again, *last):
        retries = Retries(policy(condition, retriable_status_codes=codes), NOTHING)
        assert retries.after_response(status, NOTHING) is (status in again), status


@pytest.mark.parametrize(
    ("condition", "status"),
    [("cancelled", "1"), ("deadline-exceeded", "4"), ("resource-exhausted", "8"), ("unavailable", "14")],
)
def test_statuses_of_grpc(condition: str, status: str) -> None:
    retries = Retries(policy(condition), NOTHING)
    assert not retries.after_response(200, HeaderMap([("grpc-status", "0")]))
    assert retries.after_response(200, HeaderMap([("grpc-status", status)]))


def test_headers_of_the_response() -> None:
    retries = Retries(policy("retriable-headers", retriable_headers=(HeaderMatch("x-again"),)), NOTHING)
    assert not retries.after_response(200, NOTHING)
    assert retries.after_response(200, HeaderMap([("x-again", "1")]))


def test_a_rate_limit_is_respected() -> None:
    limited = HeaderMap([("x-envoy-ratelimited", "true")])
    assert not Retries(policy("5xx"), NOTHING).after_response(503, limited)
    assert Retries(policy("envoy-ratelimited"), NOTHING).after_response(503, limited)


@pytest.mark.parametrize(
    ("condition", "failure", "sent", "again"),
    [
        ("5xx", UpstreamFailure.RESET, True, True),
        ("gateway-error", UpstreamFailure.CONNECT_FAILURE, False, True),
        ("reset", UpstreamFailure.PROTOCOL_ERROR, True, True),
        ("connect-failure", UpstreamFailure.CONNECT_TIMEOUT, False, True),
        ("connect-failure", UpstreamFailure.RESET, True, False),
        ("refused-stream", UpstreamFailure.REMOTE_REFUSED, True, True),
        ("refused-stream", UpstreamFailure.REMOTE_RESET, True, False),
        ("reset-before-request", UpstreamFailure.CONNECT_FAILURE, False, True),
        ("reset-before-request", UpstreamFailure.RESET, True, False),
        ("5xx", UpstreamFailure.OVERFLOW, False, False),
        ("reset", UpstreamFailure.NO_HEALTHY_UPSTREAM, False, False),
        ("5xx", UpstreamFailure.NO_CLUSTER, False, False),
        ("retriable-4xx", UpstreamFailure.RESET, True, False),
    ],
)
def test_failures(condition: str, failure: UpstreamFailure, sent: bool, again: bool) -> None:
    assert Retries(policy(condition), NOTHING).after_failure(failure, sent=sent) is again


def test_there_are_only_so_many() -> None:
    retries = Retries(policy("5xx", num_retries=2), NOTHING)
    assert [retries.after_response(500, NOTHING) for _ in range(3)] == [True, True, False]
    assert retries.exhausted
    assert not Retries(policy("5xx", num_retries=0), NOTHING).after_response(500, NOTHING)


def test_a_good_response_exhausts_nothing() -> None:
    retries = Retries(policy("5xx", num_retries=0), NOTHING)
    assert not retries.after_response(200, NOTHING)
    assert not retries.exhausted


def test_slow_attempts() -> None:
    assert Retries(policy("gateway-error"), NOTHING).after_timeout()
    assert not Retries(policy("connect-failure"), NOTHING).after_timeout()


def test_without_a_policy_there_are_none() -> None:
    assert retries_of(None, NOTHING) is None
    assert retries_of(RetryPolicy(), NOTHING) is None


def test_a_request_may_ask_for_them() -> None:
    request = HeaderMap(
        [
            ("x-envoy-retry-on", "gateway-error, retriable-status-codes,unheard-of"),
            ("x-envoy-max-retries", "2"),
            ("x-envoy-retriable-status-codes", "418"),
        ]
    )
    retries = retries_of(None, request)
    assert retries is not None
    assert [retries.after_response(status, NOTHING) for status in (500, 418, 503, 503)] == [
        False,
        True,
        True,
        False,
    ]
    grpc = retries_of(None, HeaderMap([("x-envoy-retry-grpc-on", "internal")]))
    assert grpc is not None
    assert grpc.after_response(200, HeaderMap([("grpc-status", "13")]))
    assert retries_of(None, HeaderMap([("x-envoy-retry-on", "unheard-of")])) is None


def test_a_header_that_is_named_in_the_request() -> None:
    request = HeaderMap(
        [("x-envoy-retry-on", "retriable-headers"), ("x-envoy-retriable-header-names", "X-Again")]
    )
    retries = retries_of(None, request)
    assert retries is not None
    assert retries.after_response(200, HeaderMap([("x-again", "")]))


def test_only_some_requests_may_be_repeated() -> None:
    wanted = policy("5xx", retriable_request_headers=(HeaderMatch("x-may"),))
    assert retries_of(wanted, NOTHING) is None
    assert retries_of(wanted, HeaderMap([("x-may", "1")])) is not None


def test_waits_double_up_to_the_longest() -> None:
    retries = Retries(policy("5xx", base_interval=0.025, max_interval=0.06), NOTHING)
    assert [retries.wait(lambda: 1_000_000_000 - 1) for _ in range(4)] == pytest.approx(
        [((10**9 - 1) % part) / 1000 for part in (25, 50, 60, 60)]
    )
    assert Retries(policy("5xx", base_interval=0.0001), NOTHING).wait(lambda: 7) == 0.0
