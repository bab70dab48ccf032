"""Route tables: matches, actions, direct responses, redirects, virtual hosts; what is left out, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmproxy.config import load
from pywasmproxy.config.model import DirectResponse, Redirect, Route, RouteAction, RouteMatch
from tests.support.bootstrap import bootstrap, line_of, manager, read, refused

HERE = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config"


def only_route(text: str) -> Route:
    [host] = manager(route=text).route_config.virtual_hosts
    [route] = host.routes
    return route


def action(fields: str) -> object:
    return only_route(f"{{match: {{prefix: /}}, {fields}}}").action


def match(fields: str) -> RouteMatch:
    return only_route(f"{{match: {{{fields}}}, route: {{cluster: svc}}}}").match


def warnings(**parts: str) -> list[tuple[str, str]]:
    return [(warning.path, warning.message) for warning in read(**parts).warnings]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("prefix: /a", RouteMatch(prefix="/a")),
        ('prefix: ""', RouteMatch(prefix="")),
        ("path: /a, case_sensitive: false", RouteMatch(path="/a", case_sensitive=False)),
        ("safe_regex: {regex: '/a/[0-9]+'}", RouteMatch(safe_regex="/a/[0-9]+")),
        ("safeRegex: {googleRe2: {}, regex: /x}", RouteMatch(safe_regex="/x")),
        ("path_separated_prefix: /a/b", RouteMatch(path_separated_prefix="/a/b")),
        ("prefix: /, headers: []", RouteMatch(prefix="/")),
    ],
)
def test_matches(fields: str, expected: RouteMatch) -> None:
    assert match(fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "a match needs one of prefix, path, safe_regex, path_separated_prefix"),
        ("prefix: /, path: /", "only one of prefix and path can be set"),
        ("safe_regex: {}", "RegexMatcher needs 'regex'"),
        (
            "safe_regex: {regex: '('}",
            "regular expression '(': missing ), unterminated subpattern at position 0",
        ),
        (
            "safe_regex: {regex: '[[:digit:]]'}",
            "regular expression '[[:digit:]]': Python has no classes such as [:alpha:]",
        ),
        (
            "path_separated_prefix: /a/",
            "path_separated_prefix begins with / and has neither ? nor # nor a / at the end",
        ),
        (
            "path_separated_prefix: a",
            "path_separated_prefix begins with / and has neither ? nor # nor a / at the end",
        ),
        (
            "path_separated_prefix: /a?b",
            "path_separated_prefix begins with / and has neither ? nor # nor a / at the end",
        ),
        ("prefx: /", "unknown field 'prefx' in RouteMatch"),
    ],
)
def test_matches_that_are_refused(fields: str, message: str) -> None:
    error = refused(route=f"{{match: {{{fields}}}, route: {{cluster: svc}}}}")
    assert error.message == message
    assert error.path.startswith(HERE + ".virtual_hosts[0].routes[0].match")


@pytest.mark.parametrize("pattern", [r"\pN", r"\Qx\E", r"\u0041", "*"])
def test_syntax_that_python_has_not_for_bytes(pattern: str) -> None:
    error = refused(route=f"{{match: {{safe_regex: {{regex: '{pattern}'}}}}, route: {{cluster: svc}}}}")
    assert error.message.startswith(f"regular expression {pattern!r}: ")


@pytest.mark.parametrize(
    "condition", ["tls_context: {}", "dynamic_metadata: [{filter: f}]", "filter_state: [{key: k}]"]
)
def test_a_route_with_a_condition_we_cannot_check_is_left_out(condition: str) -> None:
    name = condition.partition(":")[0]
    found = read(route=f"{{match: {{prefix: /, {condition}}}, route: {{cluster: svc}}}}")
    assert found.listeners[0].http.route_config.virtual_hosts[0].routes == ()
    [warning] = found.warnings
    assert warning.path == f"{HERE}.virtual_hosts[0].routes[0].match.{name}"
    assert warning.message == "not supported yet: this whole route is left out"


@pytest.mark.parametrize("field", ["filter_action", "nonForwardingAction"])
def test_a_route_without_an_action_of_ours_is_left_out(field: str) -> None:
    found = read(route=f"{{match: {{prefix: /}}, {field}: {{}}}}")
    assert found.listeners[0].http.route_config.virtual_hosts[0].routes == ()
    assert len(found.warnings) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("cluster: svc", RouteAction("svc", timeout=15.0)),
        ("cluster: svc, timeout: 2.5s", RouteAction("svc", timeout=2.5)),
        ("cluster: svc, timeout: 0s", RouteAction("svc", timeout=None)),
        ("cluster: svc, idle_timeout: 0s", RouteAction("svc", idle_timeout=0.0)),
        ("cluster: svc, idleTimeout: 7s", RouteAction("svc", idle_timeout=7.0)),
        ("cluster: svc, prefix_rewrite: /b", RouteAction("svc", prefix_rewrite="/b")),
        ("cluster: svc, host_rewrite_literal: h", RouteAction("svc", host_rewrite_literal="h")),
        ("cluster: svc, host_rewrite: h", RouteAction("svc", host_rewrite_literal="h")),
        ("cluster: svc, auto_host_rewrite: false, priority: DEFAULT", RouteAction("svc")),
    ],
)
def test_actions(fields: str, expected: RouteAction) -> None:
    parts = {"route": f"{{match: {{prefix: /}}, route: {{{fields}}}}}"}
    assert only_route(**{"text": parts["route"]}).action == expected
    assert warnings(**parts) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "a route needs 'cluster'"),
        ("timeout: 1s", "a route needs 'cluster'"),
        ('cluster: ""', "the name of a cluster is needed"),
        ("cluster: svc, cluster_header: x", "only one of cluster and cluster_header can be set"),
        ("cluster: svc, timeout: 5", "expected a duration in seconds such as 1.5s, found the number 5"),
        ("cluster: svc, timeout: -1s", "a duration cannot be negative here"),
        ("cluster: svd", "unknown cluster 'svd'"),
    ],
)
def test_actions_that_are_refused(fields: str, message: str) -> None:
    assert refused(route=f"{{match: {{prefix: /}}, route: {{{fields}}}}}").message == message


def test_an_unknown_cluster_gets_a_suggestion_and_its_place() -> None:
    error = refused(route="{match: {prefix: /}, route: {cluster: svd}}")
    assert error.suggestion == "svc"
    assert error.path == f"{HERE}.virtual_hosts[0].routes[0].route.cluster"
    assert error.line == line_of(bootstrap(route="{match: {prefix: /}, route: {cluster: svd}}"), "svd")


def test_unknown_clusters_can_be_allowed() -> None:
    route = "{match: {prefix: /}, route: {cluster: later}}"
    assert read(route_config="validate_clusters: false", route=route)
    dynamic = read(top="dynamic_resources: {cds_config: {ads: {}}}", route=route)
    assert [warning.path for warning in dynamic.warnings] == ["dynamic_resources.cds_config.ads"]


def test_clusters_may_stand_before_listeners() -> None:
    text = bootstrap()
    before, _, clusters = text.partition("  clusters:\n")
    swapped = before.replace("static_resources:\n", "static_resources:\n  clusters:\n" + clusters)
    assert load(swapped).listeners == load(text).listeners


@pytest.mark.parametrize("choice", ["clusterSpecifierPlugin: p", "inline_cluster_specifier_plugin: {}"])
def test_other_ways_to_name_a_cluster_warn(choice: str) -> None:
    route = f"{{match: {{prefix: /}}, route: {{{choice}}}}}"
    assert only_route(route).action == RouteAction("")
    [(path, message)] = warnings(route=route)
    assert path.endswith(".route." + choice.partition(":")[0])
    assert message == "not supported yet: requests on this route are answered with 503"


def test_a_cluster_may_be_left_to_the_request() -> None:
    route = "{match: {prefix: /}, route: {cluster_header: X-To}}"
    assert only_route(route).action == RouteAction("", cluster_header="x-to")
    assert warnings(route=route) == []
    assert refused(route=route.replace("X-To", "'x to'")).message == "'x to' is no name of a header"
    assert "only one of" in refused(route=route.replace("X-To", "x, cluster: svc")).message


@pytest.mark.parametrize(
    "field",
    [
        "rate_limits: []",
        "internal_redirect_policy: {}",
    ],
)
def test_unsupported_action_fields_warn(field: str) -> None:
    [(path, message)] = warnings(route=f"{{match: {{prefix: /}}, route: {{cluster: svc, {field}}}}}")
    assert path == f"{HERE}.virtual_hosts[0].routes[0].route.{field.partition(':')[0]}"
    assert message == "not supported yet, ignored"


def test_direct_response(tmp_path: Path) -> None:
    assert action("direct_response: {status: 204}") == DirectResponse(204)
    assert action("direct_response: {status: 200, body: {inline_string: hi}}") == DirectResponse(200, b"hi")
    assert action("directResponse: {status: 418, body: {inlineBytes: aGk=}}") == DirectResponse(418, b"hi")
    (tmp_path / "body.txt").write_bytes(b"from a file\n")
    route = "{match: {prefix: /}, direct_response: {status: 200, body: {filename: body.txt}}}"
    [host] = read(directory=tmp_path, route=route).listeners[0].http.route_config.virtual_hosts
    assert host.routes[0].action == DirectResponse(200, b"from a file\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{}", "DirectResponseAction needs 'status'"),
        ("{status: 199}", "199 is not between 200 and 599"),
        ("{status: 600}", "600 is not between 200 and 599"),
        ("{status: 200, body: {filename: nope}}", "Invalid path: nope"),
        (
            "{status: 200, body: {inline_string: %s}}" % ("x" * 4097),
            "response body size is 4097 bytes; maximum is 4096",
        ),
        ("{status: 200, body: text}", "expected a mapping, found 'text'"),
    ],
)
def test_direct_responses_that_are_refused(fields: str, message: str) -> None:
    assert refused(route=f"{{match: {{prefix: /}}, direct_response: {fields}}}").message == message


def test_the_limit_of_direct_responses_can_be_changed() -> None:
    route = "{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: %s}}}" % ("x" * 5000)
    assert manager(route=route, route_config="max_direct_response_body_size_bytes: 5000")
    assert refused(route=route, route_config="max_direct_response_body_size_bytes: 4999")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("{}", Redirect(301)),
        ("{https_redirect: true, response_code: FOUND}", Redirect(302, https_redirect=True)),
        ("{schemeRedirect: ftp, responseCode: permanent_redirect}", Redirect(308, scheme_redirect="ftp")),
        (
            "{host_redirect: h, port_redirect: 81, path_redirect: /x, strip_query: true, response_code: 2}",
            Redirect(303, host_redirect="h", port_redirect=81, path_redirect="/x", strip_query=True),
        ),
        ("{prefix_rewrite: /n, response_code: TEMPORARY_REDIRECT}", Redirect(307, prefix_rewrite="/n")),
    ],
)
def test_redirects(fields: str, expected: Redirect) -> None:
    assert action(f"redirect: {fields}") == expected


def test_a_redirect_has_one_new_path() -> None:
    error = refused(route="{match: {prefix: /}, redirect: {path_redirect: /a, prefix_rewrite: /b}}")
    assert error.message == "only one of path_redirect and prefix_rewrite can be set"


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("{route: {cluster: svc}}", "a route needs 'match'"),
        ("{match: {prefix: /}}", "a route needs one of route, direct_response, redirect"),
        (
            "{match: {prefix: /}, route: {cluster: svc}, redirect: {}}",
            "only one of route and redirect can be set",
        ),
        ("{match: {prefix: /}, rout: {cluster: svc}}", "unknown field 'rout' in Route"),
    ],
)
def test_routes_that_are_refused(route: str, message: str) -> None:
    assert refused(route=route).message == message


def test_name_and_metadata_of_a_route() -> None:
    found = only_route(
        "{name: r, match: {prefix: /}, route: {cluster: svc}, metadata: {filter_metadata: {f: {k: [1]}}}}"
    )
    assert (found.name, found.metadata) == ("r", {"f": {"k": [1]}})


def test_virtual_hosts() -> None:
    found = manager(
        domains='["a.test", "*.b.test", "c.*", "*"]', route_config="ignorePortInHostMatching: yes"
    )
    assert found.route_config.name == "local_route"
    assert found.route_config.ignore_port_in_host_matching
    assert found.route_config.virtual_hosts[0].domains == ("a.test", "*.b.test", "c.*", "*")


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("[]", "VirtualHost needs 'domains'"),
        ('[a, "a"]', "domain 'a' is taken by virtual host 'host'"),
        ("[A.test, a.TEST]", "domain 'a.TEST' is taken by virtual host 'host'"),
        ('["a*b"]', "domain 'a*b': '*' may stand alone, at the beginning, or at the end"),
        ('["*a*"]', "domain '*a*': '*' may stand alone, at the beginning, or at the end"),
        ('[""]', "domain '': '*' may stand alone, at the beginning, or at the end"),
    ],
)
def test_domains_that_are_refused(domains: str, message: str) -> None:
    assert refused(domains=domains).message == message


def test_two_virtual_hosts_with_one_name_are_refused() -> None:
    second = " " * 12 + "- {name: host, domains: [x]}"
    error = refused(route="{match: {prefix: /}, route: {cluster: svc}}\n" + second)
    assert error.message == "virtual host name 'host' is taken already"
    assert error.path == HERE + ".virtual_hosts[1]"


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("host", "cors: {}"),
        ("route_config", "vhds: {}"),
    ],
)
def test_unsupported_fields_warn(part: str, field: str) -> None:
    [(path, _)] = warnings(**{part: field})
    assert path.endswith("." + field.partition(":")[0])


def test_require_tls_none_is_what_happens_anyway() -> None:
    assert warnings(host="require_tls: NONE") == []
