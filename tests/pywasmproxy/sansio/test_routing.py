"""What routes do to exchanges: mutations, rewrites, weighted clusters, switched-off filters, tidy targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import WasmFilter, WasmPlugin
from pywasmproxy.config.model_manager import EscapedSlashes, Forwarding, TargetRules
from pywasmproxy.config.model_match import Fraction, HeaderMatch, QueryMatch
from pywasmproxy.config.model_routes import (
    AppendAction,
    DirectResponse,
    HeaderAddition,
    HeaderMutations,
    Redirect,
    RegexRewrite,
    RequireTls,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.events import UpstreamFailed, UpstreamFailure
from pywasmproxy.sansio.native import NativeFilter
from pywasmproxy.sansio.router import Router
from tests.pywasmproxy.sansio.driver import Clock, Exchange, manager, request

ALL = RouteMatch(prefix="/")


def adds(name: str, value: str) -> HeaderMutations:
    one = (HeaderAddition(name, value),)
    return HeaderMutations(request_add=one, response_add=one)


def begun(
    route: Route, *lines: tuple[str, str], path: str = "/", host: dict[str, Any] | None = None, **more: Any
) -> Exchange:
    """An exchange whose request was sent."""
    settings = {name: more.pop(name) for name in list(more) if name in ("forwarding", "target")}
    virtual = VirtualHost("h", ("*",), (route,), **(host or {}))
    http = replace(manager(**settings), route_config=RouteConfig("r", (virtual,), **more))
    exchange = Exchange(FilterChain([], http=http, surroundings=Clock()))
    exchange.get(path, *lines)
    return exchange


def sent(action: RouteAction, *lines: tuple[str, str], path: str = "/", **more: Any) -> HeaderMap:
    found: HeaderMap = (
        begun(Route(ALL, action), *lines, path=path, **more).only(do.SendUpstreamHeaders).headers
    )
    return found


# --- mutations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wins", "order"), [(False, ["wc", "route", "host", "table"]), (True, ["table", "host", "route", "wc"])]
)
def test_levels(wins: bool, order: list[str]) -> None:
    weighted = (WeightedCluster("svc", 1, mutations=adds("x-a", "wc")),)
    route = Route(ALL, RouteAction("", weighted_clusters=weighted), mutations=adds("x-a", "route"))
    exchange = begun(
        route,
        host={"mutations": adds("x-a", "host")},
        mutations=adds("x-a", "table"),
        most_specific_wins=wins,
    )
    exchange.respond()
    assert exchange.only(do.SendUpstreamHeaders).headers.get_all("x-a") == order
    assert exchange.response.get_all("x-a") == order


def test_answers_of_the_router_are_responses() -> None:
    mutations = HeaderMutations(
        response_add=(
            HeaderAddition("x-a", "%RESPONSE_CODE%"),
            HeaderAddition("content-type", "text/html", AppendAction.OVERWRITE_IF_EXISTS_OR_ADD),
        )
    )
    direct = begun(Route(ALL, DirectResponse(200, b"hi"), mutations=mutations))
    assert (direct.response["x-a"], direct.response["content-type"]) == ("0", "text/html")
    moved = begun(Route(ALL, Redirect(path_redirect="/x"), mutations=mutations))
    assert moved.response["x-a"] == "0"
    failed = begun(Route(ALL, RouteAction("svc"), mutations=mutations))
    failed.feed(UpstreamFailed(UpstreamFailure.RESET))
    assert (failed.status, failed.response["x-a"]) == ("503", "0")


def test_a_created_answer_names_its_place() -> None:
    assert begun(Route(ALL, DirectResponse(201)), path="/a?b").response["location"] == "http://test.local/a?b"
    assert "location" not in begun(Route(ALL, DirectResponse(200))).response


def test_no_route_nothing_done() -> None:
    exchange = begun(Route(RouteMatch(path="/other"), DirectResponse(200)), mutations=adds("x-a", "1"))
    assert exchange.status == "404"
    assert "x-a" not in exchange.response


# --- rewrites ---------------------------------------------------------------------------------------------


def test_a_host_rewrite_keeps_the_old_one() -> None:
    headers = sent(RouteAction("c", host_rewrite_literal="new.test", append_x_forwarded_host=True))
    assert (headers[":authority"], headers["x-envoy-original-host"]) == ("new.test", "test.local")
    assert headers["x-forwarded-host"] == "test.local"


def test_a_host_from_a_header() -> None:
    action = RouteAction("c", host_rewrite_header="x-host")
    assert sent(action, ("x-host", "new.test"))[":authority"] == "new.test"
    assert sent(action)[":authority"] == "test.local"


def test_a_host_from_the_path() -> None:
    rewrite = RegexRewrite("^/([^/]+)/.*", "\\1.test")
    assert sent(RouteAction("c", host_rewrite_path_regex=rewrite), path="/a/b?c")[":authority"] == "a.test"


def test_a_path_by_pattern() -> None:
    rewrite = RegexRewrite("^/(\\w+)/(\\w+)", "/\\2/\\1\\\\\\0")
    headers = sent(RouteAction("c", regex_rewrite=rewrite), path="/one/two/x?q=/one/two")
    assert headers[":path"] == "/two/one\\/one/two/x?q=/one/two"
    assert headers["x-envoy-original-path"] == "/one/two/x?q=/one/two"


def test_a_redirect_by_pattern() -> None:
    route = Route(ALL, Redirect(host_redirect="o.test", regex_rewrite=RegexRewrite("^/a/(.*)", "/b/\\1")))
    assert begun(route, path="/a/c?d").response["location"] == "http://o.test/b/c?d"


@pytest.mark.parametrize(("timeout", "expected"), [(5.0, "5000"), (0.25, "250"), (0.0015, "2"), (None, None)])
def test_expected_timeout(timeout: float | None, expected: str | None) -> None:
    assert sent(RouteAction("c", timeout=timeout)).get("x-envoy-expected-rq-timeout-ms") == expected


def test_a_filter_says_how_long_the_upstream_has() -> None:
    class Impatient(NativeFilter):
        def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
            headers.add("x-envoy-upstream-rq-timeout-ms", "700")
            headers.add("x-envoy-retry-on", "5xx")
            headers.add("x-envoy-other", "1")

    chain = FilterChain([Impatient], http=manager(Route(ALL, RouteAction("c"))), surroundings=Clock())
    exchange = Exchange(chain)
    exchange.get()
    command = exchange.only(do.SendUpstreamHeaders)
    assert exchange.only(do.StartRouteTimeout).seconds == 0.7
    assert [name for name in command.headers if name.startswith("x-envoy")] == [
        "x-envoy-other",
        "x-envoy-expected-rq-timeout-ms",
    ]
    assert command.retries is not None  # the filter asked for them


# --- which route, which cluster ---------------------------------------------------------------------------


def chosen(match: RouteMatch, *lines: tuple[str, str], path: str = "/", number: int = 0) -> bool:
    route = Route(match, RouteAction("c"))
    router = Router(RouteConfig(virtual_hosts=(VirtualHost("v", ("*",), (route,)),)))
    headers = request(path, ("x-forwarded-proto", "http"), *lines)
    return router.choose(headers, lambda: number) is not None


def test_conditions() -> None:
    headers = RouteMatch(prefix="/", headers=(HeaderMatch("x-a"), HeaderMatch("x-b", present=False)))
    assert chosen(headers, ("x-a", "1"))
    assert not chosen(headers, ("x-a", "1"), ("x-b", "1"))
    query = RouteMatch(prefix="/", query_parameters=(QueryMatch("a"), QueryMatch("b")))
    assert chosen(query, path="/?b&a=1")
    assert not chosen(query, path="/?a=1")
    grpc = RouteMatch(prefix="/", grpc=True)
    assert chosen(grpc, ("content-type", "application/grpc"))
    assert not chosen(grpc)
    some = RouteMatch(prefix="/", fraction=Fraction(2, 5))
    assert [chosen(some, number=number) for number in range(5)] == [True, True, False, False, False]


def test_weights() -> None:
    clusters = (
        WeightedCluster("a", 2),
        WeightedCluster("none", 0),
        WeightedCluster("b", 1, host_rewrite="b.test"),
        WeightedCluster("", 1, cluster_header="x-to"),
    )
    route = Route(ALL, RouteAction("", weighted_clusters=clusters))
    router = Router(RouteConfig(virtual_hosts=(VirtualHost("v", ("*",), (route,)),)))
    headers = request("/", ("x-forwarded-proto", "http"), ("x-to", "named"))
    choices = [router.choose(headers, lambda number=number: number) for number in range(5)]  # type: ignore[misc]
    assert [choice.cluster for choice in choices if choice] == ["a", "a", "b", "named", "a"]
    assert [choice.host_rewrite for choice in choices if choice][2] == "b.test"


def test_a_request_stays_with_its_cluster() -> None:
    clusters = tuple(WeightedCluster(str(number), 1) for number in range(50))

    class Reroutes(NativeFilter):
        def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
            seen.append(self.info.cluster_name)
            self.callbacks.clear_route_cache()

    seen: list[str | None] = []
    route = Route(ALL, RouteAction("", weighted_clusters=clusters))
    exchange = Exchange(FilterChain([Reroutes], http=manager(route)))
    exchange.get()
    assert seen == [exchange.only(do.SendUpstreamHeaders).cluster]


@pytest.mark.parametrize(
    ("require", "proto", "internal", "moved"),
    [
        (RequireTls.ALL, "http", False, True),
        (RequireTls.ALL, "https", False, False),
        (RequireTls.EXTERNAL_ONLY, "http", False, True),
        (RequireTls.EXTERNAL_ONLY, "http", True, False),
        (RequireTls.NONE, "http", False, False),
    ],
)
def test_only_over_tls(require: RequireTls, proto: str, internal: bool, moved: bool) -> None:
    forwarding = Forwarding(internal_ranges=("10.0.0.0/8",) if internal else ())
    lines = [("x-forwarded-proto", proto), ("x-forwarded-for", "10.0.0.1")]
    exchange = begun(
        Route(ALL, DirectResponse(200)),
        *lines,
        path="/a?b",
        host={"require_tls": require},
        forwarding=forwarding,
    )
    assert exchange.status == ("301" if moved else "200")
    assert exchange.response.get("location") == ("https://test.local/a?b" if moved else None)


def test_a_cluster_that_is_not_there() -> None:
    action = RouteAction("", cluster_header="x-to", cluster_not_found_status=404)
    exchange = begun(Route(ALL, action), host={"response_attempt_count": True})
    assert exchange.status == "404"
    assert "x-envoy-attempt-count" not in exchange.response
    named = begun(Route(ALL, action), ("x-to", "gone"))
    named.feed(UpstreamFailed(UpstreamFailure.NO_CLUSTER))
    assert named.status == "404"


def test_a_route_s_own_limit() -> None:
    class Collects(NativeFilter):
        def on_request_body(self, body: bytearray, end_of_stream: bool) -> Any:
            from abi.proxy_wasm.types import Action

            return None if end_of_stream else Action.STOP_AND_BUFFER

    route = Route(ALL, RouteAction("c"), buffer_limit=4)
    exchange = Exchange(FilterChain([Collects], http=manager(route)))
    exchange.post(b"123", b"45", end=False)
    assert exchange.status == "413"


# --- filters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_table", "of_host", "of_route", "ran"),
    [
        ({}, {}, {}, ["a"]),
        ({}, {}, {"a": True}, []),
        ({"a": True}, {}, {}, []),
        ({"a": True}, {"a": False}, {}, ["a"]),
        ({}, {}, {"b": False}, ["a", "b"]),
        ({}, {}, {"a": True, "b": False}, ["b"]),
        ({}, {}, {"unheard-of": True}, ["a"]),
    ],
)
def test_filters_switched_off_and_on(
    of_table: dict[str, bool], of_host: dict[str, bool], of_route: dict[str, bool], ran: list[str]
) -> None:
    seen: list[str] = []

    def named(name: str) -> type[NativeFilter]:
        class Named(NativeFilter):
            def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
                seen.append(name)

        return Named

    route = Route(ALL, DirectResponse(200), disabled_filters=of_route)
    host = VirtualHost("h", ("*",), (route,), disabled_filters=of_host)
    filters = (WasmFilter("a", WasmPlugin()), WasmFilter("b", WasmPlugin(), disabled=True))
    http = replace(
        manager(http_filters=filters), route_config=RouteConfig("r", (host,), disabled_filters=of_table)
    )
    Exchange(FilterChain([named("a"), named("b")], http=http)).get()
    assert seen == ran


# --- targets ----------------------------------------------------------------------------------------------

STRICT = TargetRules(normalize=True, escaped_slashes=EscapedSlashes.UNESCAPE_AND_REDIRECT)


def test_a_path_is_tidied_before_anybody_acts_on_it() -> None:
    seen: list[str | None] = []

    class Sees(NativeFilter):
        def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
            seen.append(headers.get(":path"))

    route = Route(RouteMatch(path="/b"), DirectResponse(200))
    exchange = Exchange(FilterChain([Sees], http=manager(route, target=STRICT)))
    exchange.get("/a/../b?c")
    assert (exchange.status, seen) == ("200", ["/b?c"])


def test_a_bad_path_is_refused_and_ends_the_connection() -> None:
    logged: list[int | None] = []

    class Logs(NativeFilter):
        def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
            raise AssertionError("no filter sees it")

        def on_log(self) -> None:
            logged.append(self.info.response_code)

    exchange = Exchange(FilterChain([Logs], http=manager(Route(ALL, DirectResponse(200)), target=STRICT)))
    exchange.get("/a%00")
    assert (exchange.status, exchange.body, logged) == ("400", b"", [400])
    assert exchange.only(do.SendDownstreamHeaders).close
    assert exchange.info.response_code_details == "path_normalization_failed"


def test_escaped_slashes_are_redirected() -> None:
    exchange = begun(Route(ALL, DirectResponse(200)), path="/a%2Fb?c", target=STRICT)
    assert (exchange.status, exchange.response["location"]) == ("307", "/a/b?c")
    assert not exchange.only(do.SendDownstreamHeaders).close


def test_the_id_in_the_response() -> None:
    http = manager(Route(ALL, DirectResponse(200)), always_set_request_id_in_response=True)
    exchange = Exchange(FilterChain([], http=http), StreamInfo())
    exchange.get("/", ("x-request-id", "mine"))
    assert exchange.response["x-request-id"] == "mine"


def test_via_is_in_both_directions() -> None:
    exchange = begun(Route(ALL, RouteAction("c")), forwarding=Forwarding(via="us"))
    exchange.respond(lines=[("via", "them")])
    assert exchange.only(do.SendUpstreamHeaders).headers["via"] == "us"
    assert exchange.response["via"] == "them, us"
