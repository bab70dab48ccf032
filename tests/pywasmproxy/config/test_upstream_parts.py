"""What clusters and routes say about choosing hosts: policies, checks, outliers, breakers, hashes."""

from __future__ import annotations

import pytest

from pywasmproxy.config.model import Cluster, RouteAction
from pywasmproxy.config.model_clusters import (
    CheckKind,
    CircuitBreaker,
    HealthCheck,
    LbPolicy,
    LoadBalancing,
    OutlierDetection,
    RetryBudget,
)
from pywasmproxy.config.model_routes import HashPolicy, HashSource, RegexRewrite
from tests.support.bootstrap import manager, read, refused

TIMES = "timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 2"


def cluster(*fields: str) -> Cluster:
    found = read(cluster="\n    ".join(fields))
    assert found.warnings == ()
    return found.clusters[0]


def action(fields: str) -> RouteAction:
    found = read(route=f"{{match: {{prefix: /}}, route: {{cluster: svc, {fields}}}}}")
    assert found.warnings == ()
    one = found.listeners[0].http.route_config.virtual_hosts[0].routes[0].action
    assert isinstance(one, RouteAction)
    return one


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (("lb_policy: random",), LoadBalancing(LbPolicy.RANDOM)),
        (
            ("lb_policy: LEAST_REQUEST", "least_request_lb_config: {choice_count: 5}"),
            LoadBalancing(LbPolicy.LEAST_REQUEST, choices=5),
        ),
        (
            ("lb_policy: RING_HASH", "ring_hash_lb_config: {minimum_ring_size: 8, maximum_ring_size: '64'}"),
            LoadBalancing(LbPolicy.RING_HASH, minimum_ring_size=8, maximum_ring_size=64),
        ),
        (
            ("lb_policy: MAGLEV", "maglev_lb_config: {table_size: 11}"),
            LoadBalancing(LbPolicy.MAGLEV, table_size=11),
        ),
        (
            ("common_lb_config: {healthy_panic_threshold: {value: 12.5}}",),
            LoadBalancing(panic_threshold=12.5),
        ),
        (("common_lb_config: {healthy_panic_threshold: {}}",), LoadBalancing(panic_threshold=0)),
    ],
)
def test_policies(fields: tuple[str, ...], wanted: LoadBalancing) -> None:
    assert cluster(*fields).load_balancing == wanted


def test_health_checks() -> None:
    http = (
        "http_health_check: {path: /h, host: h.test, method: HEAD, "
        "expected_statuses: [{start: 200, end: 300}], "
        "request_headers_to_add: [{header: {key: x-a, value: b}}]}"
    )
    assert cluster(f"health_checks: [{{{TIMES}, interval_jitter: 1s, {http}}}]").health_checks == (
        HealthCheck(
            CheckKind.HTTP,
            1,
            5,
            3,
            2,
            interval_jitter=1,
            host="h.test",
            path="/h",
            method="HEAD",
            headers=(("x-a", "b"),),
            expected=((200, 300),),
        ),
    )
    tcp = "tcp_health_check: {send: {text: '00FF'}, receive: [{binary: YWI=}]}"
    assert cluster(f"health_checks: [{{{TIMES}, {tcp}}}]").health_checks == (
        HealthCheck(CheckKind.TCP, 1, 5, 3, 2, send=b"\0\xff", receive=(b"ab",)),
    )


def test_outliers_and_breakers() -> None:
    found = cluster(
        "outlier_detection: {consecutive_5xx: 2, base_ejection_time: 1s, max_ejection_percent: 40}",
        "circuit_breakers: {thresholds: [{priority: HIGH, max_retries: 9}, "
        "{max_requests: 7, max_retries: 4}]}",
    )
    assert found.outlier_detection == OutlierDetection(
        consecutive_5xx=2, base_ejection_time=1, max_ejection_percent=40
    )
    assert found.circuit_breaker == CircuitBreaker(max_requests=7, max_retries=4)
    assert found.high_circuit_breaker == CircuitBreaker(max_retries=9)


def test_the_first_thresholds_of_a_priority_count() -> None:
    found = read(cluster="circuit_breakers: {thresholds: [{max_requests: 7}, {max_requests: 8}]}")
    assert found.clusters[0].circuit_breaker == CircuitBreaker(max_requests=7)
    [warning] = found.warnings
    assert warning.message == "there are thresholds for priority DEFAULT already: these are not used"


def test_priorities_of_routes() -> None:
    assert action("priority: HIGH").high_priority
    assert not action("priority: default").high_priority


def test_what_compares_hosts() -> None:
    found = cluster(
        "outlier_detection: {success_rate_minimum_hosts: 3, success_rate_stdev_factor: 1500, "
        "failure_percentage_threshold: 60, enforcing_failure_percentage_local_origin: 7, "
        "max_ejection_time_jitter: 2s, split_external_local_origin_errors: true, "
        "successful_active_health_check_uneject_host: false}"
    )
    assert found.outlier_detection == OutlierDetection(
        success_rate_minimum_hosts=3,
        success_rate_stdev_factor=1500,
        failure_percentage_threshold=60,
        enforcing_failure_percentage_local_origin=7,
        max_ejection_time_jitter=2,
        split_local_origin_errors=True,
        successful_health_check_unejects=False,
    )


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("{}", RetryBudget(20, 3)),
        ("{budget_percent: {value: 12.5}, min_retry_concurrency: 0}", RetryBudget(12.5, 0)),
        ("{budget_percent: {}}", RetryBudget(0, 3)),
    ],
)
def test_retry_budgets(written: str, wanted: RetryBudget) -> None:
    found = cluster(f"circuit_breakers: {{thresholds: [{{retry_budget: {written}, track_remaining: true}}]}}")
    assert found.circuit_breaker == CircuitBreaker(retry_budget=wanted, track_remaining=True)


def test_hash_policies() -> None:
    found = action(
        "hash_policy: [{header: {header_name: X-A, regex_rewrite: {pattern: {regex: a}, substitution: b}}}, "
        "{cookie: {name: c, ttl: 5s, path: /p}, terminal: true}, {connection_properties: {source_ip: true}}, "
        "{connection_properties: {}}, {query_parameter: {name: q}}]"
    )
    assert found.hash_policy == (
        HashPolicy(HashSource.HEADER, "x-a", rewrite=RegexRewrite("a", "b")),
        HashPolicy(HashSource.COOKIE, "c", terminal=True, ttl=5, path="/p"),
        HashPolicy(HashSource.SOURCE_IP),
        HashPolicy(HashSource.QUERY_PARAMETER, "q"),
    )


def test_upgrades() -> None:
    on = "upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: foo, enabled: false}]"
    found = manager(manager=on)
    assert (found.upgrades, found.possible_upgrades) == ({"websocket"}, {b"websocket"})
    assert action("upgrade_configs: [{upgrade_type: Foo}]").upgrades == {"foo": True}
    route = "{match: {prefix: /}, route: {cluster: svc, upgrade_configs: [{upgrade_type: Foo}]}}"
    assert manager(manager=on, route=route).possible_upgrades == {b"websocket", b"foo"}
    [warning] = read(manager="upgrade_configs: [{upgrade_type: CONNECT}]").warnings
    assert "'CONNECT' is not supported" in warning.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("health_checks: [{timeout: 1s}]", "HealthCheck needs 'interval'"),
        ("health_checks: [{timeout: 1s, interval: 1s}]", "HealthCheck needs 'unhealthy_threshold'"),
        (f"health_checks: [{{{TIMES}, http_health_check: {{}}}}]", "HttpHealthCheck needs 'path'"),
        (
            f"health_checks: [{{{TIMES}, tcp_health_check: {{}}}}, {{{TIMES}, tcp_health_check: {{}}}}]",
            "Multiple health checks not supported",
        ),
        ("maglev_lb_config: {table_size: 12}", "The table size of maglev must be prime number"),
        (
            "ring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}",
            "ring hash: minimum_ring_size is greater than maximum_ring_size",
        ),
        ("common_lb_config: {healthy_panic_threshold: {value: 101}}", "101 is not between 0 and 100"),
        ("outlier_detection: {max_ejection_percent: 101}", "101 is not between 0 and 100"),
    ],
)
def test_refused(fields: str, message: str) -> None:
    assert refused(cluster=fields).message == message
