"""Parts of routes: header mutations, conditions, weighted clusters, rewrites, retries, filters per route."""

from __future__ import annotations

from typing import Any

import pytest

from pywasmproxy.config.model import HttpConnectionManager, Redirect, Route, RouteAction
from pywasmproxy.config.model_manager import EscapedSlashes, Forwarding, StripPort, TargetRules, Underscores
from pywasmproxy.config.model_match import Fraction, HeaderMatch, QueryMatch, StringMatch, StringRule
from pywasmproxy.config.model_routes import (
    AppendAction,
    HeaderAddition,
    HeaderMutations,
    RegexRewrite,
    RequireTls,
    RetryPolicy,
    VirtualHost,
    WeightedCluster,
)
from tests.support.bootstrap import manager, read, refused, wasm


def host(fields: str) -> VirtualHost:
    [found] = manager(host=fields).route_config.virtual_hosts
    return found


def only_route(fields: str) -> Route:
    [found] = manager(route=f"{{match: {{prefix: /}}, {fields}}}").route_config.virtual_hosts[0].routes
    return found


def to(fields: str) -> RouteAction:
    found = only_route(f"route: {{cluster: svc, {fields}}}").action
    assert isinstance(found, RouteAction)
    return found


def messages(**parts: str) -> list[str]:
    return [warning.message for warning in read(**parts).warnings]


def error(fields: str) -> str:
    return refused(route=f"{{match: {{prefix: /}}, {fields}}}").message


# --- header mutations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("header: {key: X-A, value: v}", HeaderAddition("x-a", "v")),
        ("header: {key: x-a}", HeaderAddition("x-a", "")),
        (
            "header: {key: x-a, value: v}, append: false",
            HeaderAddition("x-a", "v", AppendAction.OVERWRITE_IF_EXISTS_OR_ADD),
        ),
        ("header: {key: x-a, value: v}, append: true", HeaderAddition("x-a", "v")),
        (
            "header: {key: x-a, value: v}, append_action: ADD_IF_ABSENT",
            HeaderAddition("x-a", "v", AppendAction.ADD_IF_ABSENT),
        ),
        (
            "header: {key: x-a, value: '%PROTOCOL%'}, keep_empty_value: true",
            HeaderAddition("x-a", "%PROTOCOL%", keep_empty=True),
        ),
    ],
)
def test_additions(option: str, expected: HeaderAddition) -> None:
    assert host(f"request_headers_to_add: [{{{option}}}]").mutations.request_add == (expected,)


def test_every_level_has_mutations() -> None:
    fields = "request_headers_to_remove: [X-Gone], response_headers_to_add: [{header: {key: a, value: b}}]"
    expected = HeaderMutations(request_remove=("x-gone",), response_add=(HeaderAddition("a", "b"),))
    flat = fields.replace(", response", "\n              response")
    assert host(flat).mutations == expected
    assert only_route(f"direct_response: {{status: 200}}, {fields}").mutations == expected
    table = manager(route_config=fields.replace(", response", "\n            response")).route_config
    assert table.mutations == expected
    weighted = only_route(f"route: {{weighted_clusters: {{clusters: [{{name: svc, weight: 1, {fields}}}]}}}}")
    assert isinstance(weighted.action, RouteAction)
    assert weighted.action.weighted_clusters == (WeightedCluster("svc", 1, mutations=expected),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            "request_headers_to_add: [{header: {key: host, value: v}}]",
            ":-prefixed or host headers may not be modified",
        ),
        (
            "request_headers_to_add: [{header: {key: ':path', value: v}}]",
            ":-prefixed or host headers may not be modified",
        ),
        ("response_headers_to_remove: [':status']", ":-prefixed or host headers may not be removed"),
        ("request_headers_to_remove: ['a b']", "'a b' is no name of a header"),
        ("request_headers_to_add: [{header: {value: v}}]", "HeaderValue needs 'key'"),
        ("request_headers_to_add: [{}]", "HeaderValueOption needs 'header'"),
        (
            "request_headers_to_add: [{header: {key: a, value: '%REQ%'}}]",
            "format string: a header is named like this: (x-name) or (x-name?x-other)",
        ),
        (
            'request_headers_to_add: [{header: {key: a, value: "a\\nb"}}]',
            "the value of a header has no line breaks",
        ),
        (
            "request_headers_to_add: [{header: {key: a}, append: true, append_action: ADD_IF_ABSENT}]",
            "only one of append and append_action can be set",
        ),
    ],
)
def test_mutations_that_are_refused(fields: str, message: str) -> None:
    assert error(f"route: {{cluster: svc}}, {fields}") == message


def test_a_raw_value_means_nothing() -> None:
    option = "request_headers_to_add: [{header: {key: a, raw_value: aGk=}}]"
    assert host(option).mutations.request_add == (HeaderAddition("a", ""),)
    assert messages(host=option) == ["raw_value means nothing here, in Envoy neither: the value is empty"]


# --- conditions -------------------------------------------------------------------------------------------


def text(rule: StringRule, value: str, ignore_case: bool = False) -> StringMatch:
    return StringMatch(rule, value, ignore_case)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("name: X-A", HeaderMatch("x-a")),
        ("name: a, present_match: false", HeaderMatch("a", present=False)),
        ("name: a, exact_match: v", HeaderMatch("a", text(StringRule.EXACT, "v"))),
        (
            "name: a, prefix_match: v, invert_match: true",
            HeaderMatch("a", text(StringRule.PREFIX, "v"), invert=True),
        ),
        ("name: a, suffix_match: v", HeaderMatch("a", text(StringRule.SUFFIX, "v"))),
        ("name: a, contains_match: v", HeaderMatch("a", text(StringRule.CONTAINS, "v"))),
        ("name: a, safe_regex_match: {regex: v+}", HeaderMatch("a", text(StringRule.REGEX, "v+"))),
        ("name: a, range_match: {start: -1, end: 5}", HeaderMatch("a", range=(-1, 5))),
        (
            "name: a, string_match: {contains: V, ignore_case: true}, treat_missing_header_as_empty: true",
            HeaderMatch("a", text(StringRule.CONTAINS, "V", True), missing_is_empty=True),
        ),
    ],
)
def test_header_conditions(fields: str, expected: HeaderMatch) -> None:
    route = f"{{match: {{prefix: /, headers: [{{{fields}}}]}}, route: {{cluster: svc}}}}"
    assert manager(route=route).route_config.virtual_hosts[0].routes[0].match.headers == (expected,)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("name: a", QueryMatch("a")),
        ("name: a, present_match: true", QueryMatch("a", present=True)),
        ("name: a, string_match: {exact: v}", QueryMatch("a", text(StringRule.EXACT, "v"))),
        ("name: a, value: v", QueryMatch("a", text(StringRule.EXACT, "v"))),
        ("name: a, value: v, regex: true", QueryMatch("a", text(StringRule.REGEX, "v"))),
    ],
)
def test_query_conditions(fields: str, expected: QueryMatch) -> None:
    route = f"{{match: {{prefix: /, query_parameters: [{{{fields}}}]}}, route: {{cluster: svc}}}}"
    assert manager(route=route).route_config.virtual_hosts[0].routes[0].match.query_parameters == (expected,)


def test_chance_and_grpc() -> None:
    chance = "{runtime_key: k, default_value: {numerator: 3, denominator: MILLION}}"
    match = f"{{prefix: /, grpc: {{}}, runtime_fraction: {chance}}}"
    route = manager(route=f"{{match: {match}, route: {{cluster: svc}}}}")
    found = route.route_config.virtual_hosts[0].routes[0].match
    assert (found.grpc, found.fraction) == (True, Fraction(3, 1_000_000))


@pytest.mark.parametrize(
    ("match", "message"),
    [
        (
            "headers: [{name: a, exact_match: b, prefix_match: c}]",
            "only one of exact_match and prefix_match can be set",
        ),
        ("headers: [{exact_match: b}]", "HeaderMatcher needs 'name'"),
        (
            "headers: [{name: a, string_match: {}}]",
            "a text is matched by one of exact, prefix, suffix, contains, safe_regex",
        ),
        ("headers: [{name: a, exactmatch: b}]", "unknown field 'exactmatch' in HeaderMatcher"),
        ("query_parameters: [{}]", "QueryParameterMatcher needs 'name'"),
    ],
)
def test_conditions_that_are_refused(match: str, message: str) -> None:
    found = refused(route=f"{{match: {{prefix: /, {match}}}, route: {{cluster: svc}}}}")
    assert found.message == message


def test_an_old_regex_is_one() -> None:
    route = manager(route="{match: {regex: '/a+'}, route: {cluster: svc}}")
    assert route.route_config.virtual_hosts[0].routes[0].match.safe_regex == "/a+"


# --- actions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        (
            "regex_rewrite: {pattern: {regex: '^/(a)'}, substitution: '/\\1\\\\'}",
            "regex_rewrite",
            RegexRewrite("^/(a)", "/\\1\\\\"),
        ),
        ("host_rewrite_header: X-Host", "host_rewrite_header", "x-host"),
        (
            "host_rewrite_path_regex: {pattern: {regex: '^/(a)'}, substitution: '\\1'}",
            "host_rewrite_path_regex",
            RegexRewrite("^/(a)", "\\1"),
        ),
        ("append_x_forwarded_host: true", "append_x_forwarded_host", True),
        ("auto_host_rewrite: true", "auto_host_rewrite", True),
        ("cluster_not_found_response_code: NOT_FOUND", "cluster_not_found_status", 404),
    ],
)
def test_action_fields(fields: str, name: str, expected: object) -> None:
    assert getattr(to(fields), name) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            "regex_rewrite: {pattern: {regex: '^/(a)'}, substitution: '\\2'}",
            "substitution '\\\\2': the pattern has 1 groups",
        ),
        (
            "regex_rewrite: {pattern: {regex: a}, substitution: '\\x'}",
            "substitution '\\\\x': a backslash stands before a digit or another one",
        ),
        ("regex_rewrite: {substitution: x}", "RegexMatchAndSubstitute needs 'pattern'"),
        (
            "prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}}",
            "only one of prefix_rewrite and regex_rewrite can be set",
        ),
    ],
)
def test_actions_that_are_refused(fields: str, message: str) -> None:
    assert error(f"route: {{cluster: svc, {fields}}}") == message


def test_redirects_by_pattern() -> None:
    found = only_route("redirect: {regex_rewrite: {pattern: {regex: a}, substitution: b}}").action
    assert found == Redirect(regex_rewrite=RegexRewrite("a", "b"))


def test_weighted_clusters() -> None:
    clusters = "[{name: svc, weight: 9, host_rewrite_literal: h}, {cluster_header: X-To, weight: 1}]"
    found = only_route(f"route: {{weighted_clusters: {{clusters: {clusters}, total_weight: 10}}}}").action
    assert isinstance(found, RouteAction)
    assert found.weighted_clusters == (
        WeightedCluster("svc", 9, host_rewrite="h"),
        WeightedCluster("", 1, cluster_header="x-to"),
    )


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ("{clusters: [{name: svd, weight: 1}]}", "unknown cluster 'svd'"),
        ("{clusters: [{name: svc}]}", "the weights of the clusters must not all be zero"),
        ("{clusters: [{weight: 1}]}", "a weighted cluster needs 'name' or 'cluster_header'"),
        ("{clusters: []}", "WeightedCluster needs 'clusters'"),
        ("{clusters: [{name: '', weight: 1}]}", "the name of a cluster is needed"),
    ],
)
def test_weighted_clusters_that_are_refused(clusters: str, message: str) -> None:
    assert error(f"route: {{weighted_clusters: {clusters}}}") == message


# --- retries ----------------------------------------------------------------------------------------------


def test_retry_policy() -> None:
    fields = (
        "{retry_on: '5xx, retriable-status-codes,unavailable', num_retries: 3, per_try_timeout: 0.5s, "
        "retriable_status_codes: [418], retry_back_off: {base_interval: 0.1s, max_interval: 2s}, "
        "retriable_headers: [{name: a}], retriable_request_headers: [{name: b}], "
        "retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}], "
        "host_selection_retry_max_attempts: 3}"
    )
    expected = RetryPolicy(
        frozenset(("5xx", "retriable-status-codes", "unavailable")),
        3,
        0.5,
        frozenset((418,)),
        (HeaderMatch("a"),),
        (HeaderMatch("b"),),
        0.1,
        2.0,
    )
    assert to(f"retry_policy: {fields}").retry_policy == expected
    assert host(f"retry_policy: {fields}").retry_policy == expected
    assert messages(host=f"retry_policy: {fields}") == []
    assert to("retry_policy: {}").retry_policy == RetryPolicy()


def test_retry_conditions_nobody_knows() -> None:
    assert messages(host="retry_policy: {retry_on: '5xx,resett'}") == [
        "there is no retry condition 'resett' (did you mean 'reset'?): ignored"
    ]
    assert messages(host="retry_policy: {retry_host_predicate: [{name: a.omit_canary_hosts}]}") == [
        "not supported yet, ignored"
    ]
    assert (
        error("route: {cluster: svc, retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}}")
        == "retry_back_off.max_interval must not be less than base_interval"
    )


def test_virtual_host_fields() -> None:
    found = host(
        "require_tls: EXTERNAL_ONLY\n              include_request_attempt_count: true\n"
        "              include_attempt_count_in_response: true\n"
        "              include_is_timeout_retry_header: true\n"
        "              per_request_buffer_limit_bytes: 7"
    )
    assert found.require_tls is RequireTls.EXTERNAL_ONLY
    assert found.request_attempt_count
    assert found.response_attempt_count
    assert found.is_timeout_retry_header
    assert found.buffer_limit == 7


# --- filters per route ------------------------------------------------------------------------------------

FILTER_CONFIG = '"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig'
WASM = '"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm'


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (f"{{{FILTER_CONFIG}, disabled: true}}", {"w": True}),
        (f"{{{FILTER_CONFIG}, disabled: false}}", {"w": False}),
        (f"{{{FILTER_CONFIG}, config: {{{WASM}}}, disabled: true}}", {"w": True}),
        ('{"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy}', {}),
    ],
)
def test_filters_per_route(entry: str, expected: dict[str, bool]) -> None:
    fields = f"typed_per_filter_config: {{w: {entry}}}"
    assert only_route(f"route: {{cluster: svc}}, {fields}").disabled_filters == expected
    assert host(fields).disabled_filters == expected
    assert manager(route_config=fields).route_config.disabled_filters == expected


@pytest.mark.parametrize("entry", [f"{{{WASM}}}", f"{{{FILTER_CONFIG}, config: {{{WASM}}}}}"])
def test_wasm_filters_have_no_configuration_per_route(entry: str) -> None:
    parts: dict[str, Any] = {"host": f"typed_per_filter_config: {{w: {entry}}}", "filters": wasm()}
    assert messages(**parts) == ["wasm filters take no configuration per route: ignored"]


def test_a_filter_of_which_nothing_is_said() -> None:
    found = refused(host=f"typed_per_filter_config: {{w: {{{FILTER_CONFIG}}}}}")
    assert found.message == "this says nothing about the filter 'w': it needs 'disabled' or 'config'"


# --- the manager ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("use_remote_address: true", Forwarding(use_remote_address=True)),
        ("xff_num_trusted_hops: 2", Forwarding(trusted_hops=2)),
        ("skip_xff_append: true", Forwarding(skip_append=True)),
        ("append_x_forwarded_port: true", Forwarding(append_port=True)),
        ("via: us", Forwarding(via="us")),
        ("add_user_agent: true", Forwarding(add_user_agent=True)),
        ("preserve_external_request_id: true", Forwarding(preserve_external_request_id=True)),
        ("scheme_header_transformation: {scheme_to_overwrite: https}", Forwarding(scheme="https")),
        ("scheme_header_transformation: {match_upstream: true}", Forwarding()),
        (
            "internal_address_config: {cidr_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}]}",
            Forwarding(internal_ranges=("10.1.2.3/8",)),
        ),
    ],
)
def test_forwarding(fields: str, expected: Forwarding) -> None:
    assert manager(manager=fields).forwarding == expected
    assert messages(manager=fields) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("normalize_path: true", TargetRules(normalize=True)),
        ("merge_slashes: true", TargetRules(merge_slashes=True)),
        (
            "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
            TargetRules(escaped_slashes=EscapedSlashes.UNESCAPE_AND_FORWARD),
        ),
        ("path_with_escaped_slashes_action: IMPLEMENTATION_SPECIFIC_DEFAULT", TargetRules()),
        ("strip_matching_host_port: true", TargetRules(strip_port=StripPort.MATCHING)),
        ("strip_any_host_port: true", TargetRules(strip_port=StripPort.ANY)),
        ("strip_trailing_host_dot: true", TargetRules(strip_trailing_dot=True)),
    ],
)
def test_targets(fields: str, expected: TargetRules) -> None:
    assert manager(manager=fields).target == expected
    assert messages(manager=fields) == []


def test_other_settings() -> None:
    common = (
        "headers_with_underscores_action: drop_header, max_requests_per_connection: 9, "
        "max_connection_duration: 5s"
    )
    found: HttpConnectionManager = manager(
        manager=f"common_http_protocol_options: {{{common}}}\n          request_timeout: 3s\n"
        "          delayed_close_timeout: 0s\n          always_set_request_id_in_response: true"
    )
    assert found.underscores is Underscores.DROP_HEADER
    assert (found.max_requests_per_connection, found.max_connection_duration) == (9, 5.0)
    assert (found.request_timeout, found.delayed_close_timeout) == (3.0, None)
    assert found.always_set_request_id_in_response


def test_networks_that_are_none() -> None:
    fields = "internal_address_config: {cidr_ranges: [{address_prefix: here, prefix_len: 8}]}"
    assert refused(manager=fields).message.startswith("no network: ")
