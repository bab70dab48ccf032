"""Requests that are sent once more: what starts it, what the client sees, what is sent again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_routes import (
    HeaderAddition,
    HeaderMutations,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualHost,
)
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.local_reply import Flags
from pywasmproxy.sansio.states import StreamStateError
from tests.pywasmproxy.sansio.driver import Clock, Exchange, manager

POLICY = RetryPolicy(frozenset(("5xx",)), num_retries=2)


class World:
    """A chain with one route that repeats requests, and an exchange."""

    def __init__(self, policy: RetryPolicy = POLICY, limit: int | None = None, **action: Any) -> None:
        flags = HeaderAddition("x-flags", "%RESPONSE_FLAGS%")
        route = Route(
            RouteMatch(prefix="/"),
            RouteAction("svc", retry_policy=policy, **{"timeout": 5.0, **action}),
            mutations=HeaderMutations(response_add=(flags,)),
            buffer_limit=limit,
        )
        host = VirtualHost(
            "h",
            ("*",),
            (route,),
            request_attempt_count=True,
            response_attempt_count=True,
            is_timeout_retry_header=True,
        )
        http = replace(manager(), route_config=RouteConfig("r", (host,)))
        self.clock = Clock()
        self.exchange = Exchange(FilterChain([], http=http, surroundings=self.clock))

    def heads(self) -> list[HeaderMap]:
        return [one.headers for one in self.exchange.commands if isinstance(one, do.SendUpstreamHeaders)]

    def fail(self, reason: UpstreamFailure = UpstreamFailure.RESET) -> None:
        self.exchange.feed(ev.UpstreamFailed(reason))

    def again(self) -> None:
        assert isinstance(self.exchange.commands[-1], do.WaitForRetry)
        self.exchange.feed(ev.RetryDue())


def test_a_bad_response_is_not_seen() -> None:
    world = World()
    world.exchange.get()
    world.exchange.respond(b"bad", status="503", end=False)
    assert "SendDownstreamHeaders" not in world.exchange.kinds()
    assert world.exchange.kinds()[-2:] == ["ResetUpstream", "WaitForRetry"]
    world.exchange.feed(ev.RetryDue())
    world.exchange.respond(b"good")
    assert (world.exchange.status, world.exchange.body) == ("200", b"good")
    assert [head["x-envoy-attempt-count"] for head in world.heads()] == ["1", "2"]
    assert world.exchange.response["x-envoy-attempt-count"] == "2"
    assert world.exchange.response["x-flags"] == "-"
    assert world.exchange.info.upstream_attempt_count == 2


def test_what_the_first_attempt_still_says_is_of_no_interest() -> None:
    world = World()
    world.exchange.get()
    world.exchange.respond(status="503", end=False)
    late = HeaderMap([(":status", "200")])
    world.exchange.feed(ev.ResponseBody(b"late"), ev.UpstreamFailed(UpstreamFailure.RESET), ev.TryTimeout())
    world.exchange.feed(ev.ResponseHeaders(late, True))
    assert "SendDownstreamHeaders" not in world.exchange.kinds()
    world.exchange.feed(ev.RetryDue())
    world.exchange.respond(b"good")
    assert world.exchange.body == b"good"


def test_the_last_bad_response_is_the_answer() -> None:
    world = World(replace(POLICY, num_retries=1))
    world.exchange.get()
    world.exchange.respond(status="500")
    world.again()
    world.exchange.respond(b"sorry", status="501")
    assert (world.exchange.status, world.exchange.body) == ("501", b"sorry")
    assert world.exchange.response["x-flags"] == "URX"


def test_failures_are_counted() -> None:
    world = World()
    world.exchange.get()
    for _ in range(2):
        world.fail()
        world.again()
    world.fail(UpstreamFailure.CONNECT_FAILURE)
    assert world.exchange.status == "503"
    assert world.exchange.body.endswith(b"retried and the latest reset reason: remote connection failure")
    assert world.exchange.response["x-flags"] == "URX,UF"
    assert world.exchange.response["x-envoy-attempt-count"] == "3"
    assert world.exchange.info.response_flags == (
        Flags.UPSTREAM_RETRY_LIMIT_EXCEEDED | Flags.UPSTREAM_CONNECTION_FAILURE
    )


def test_the_whole_request_is_sent_again() -> None:
    world = World()
    world.exchange.post(b"one ", b"two")
    world.fail()
    before = len(world.exchange.commands)
    world.again()
    again = world.exchange.commands[before:]
    assert [type(one).__name__ for one in again] == ["SendUpstreamHeaders", "SendUpstreamBody"]
    assert again[1] == do.SendUpstreamBody(b"one two", True)


def test_trailers_too() -> None:
    world = World()
    world.exchange.post(b"one", end=False)
    world.exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    world.fail()
    world.again()
    assert world.exchange.commands[-2] == do.SendUpstreamBody(b"one", False)
    assert world.exchange.commands[-1] == do.SendUpstreamTrailers(HeaderMap([("x-t", "1")]))


def test_a_body_that_is_too_long_is_not_kept() -> None:
    world = World(limit=5)
    world.exchange.post(b"123", b"456")
    world.exchange.respond(status="503")
    assert world.exchange.status == "503"
    assert world.exchange.response["x-flags"] == "-"


def test_a_request_that_is_not_complete_is_not_repeated() -> None:
    world = World()
    world.exchange.post(b"123", end=False)
    world.exchange.respond(status="503")
    assert world.exchange.status == "503"


def test_a_response_that_has_begun_is_not_repeated() -> None:
    world = World()
    world.exchange.get()
    world.exchange.respond(b"part", end=False)
    world.fail()
    assert world.exchange.promises.client == "reset"


def test_each_attempt_has_its_time() -> None:
    world = World(replace(POLICY, per_try_timeout=0.2, num_retries=1))
    world.exchange.get()
    assert world.exchange.only(do.StartTryTimeout).seconds == 0.2
    assert world.exchange.only(do.StartRouteTimeout).seconds == 5.0
    world.exchange.feed(ev.TryTimeout())
    world.again()
    assert world.exchange.kinds().count("StartTryTimeout") == 2
    assert world.exchange.kinds().count("StartRouteTimeout") == 1
    assert [head.get("x-envoy-is-timeout-retry") for head in world.heads()] == [None, "true"]
    world.exchange.feed(ev.TryTimeout())
    assert (world.exchange.status, world.exchange.body) == ("504", b"upstream request timeout")
    assert world.exchange.info.response_code_details == "upstream_per_try_timeout"
    assert world.exchange.response["x-flags"] == "URX,UT"


def test_the_time_of_an_attempt_ends_with_its_head() -> None:
    world = World(replace(POLICY, per_try_timeout=0.2))
    world.exchange.get()
    world.exchange.respond(b"part", end=False)
    assert world.exchange.feed(ev.TryTimeout()) == []


def test_the_route_s_time_is_for_all_attempts() -> None:
    world = World()
    world.exchange.get()
    world.clock.advance(1000)
    world.fail()
    world.exchange.feed(ev.RouteTimeout())
    assert (world.exchange.status, world.exchange.body) == ("504", b"upstream request timeout")


def test_upstreams_are_told_how_long_is_left() -> None:
    world = World(replace(POLICY, per_try_timeout=0.8), timeout=1.0)
    world.exchange.get()
    for _ in range(2):
        world.clock.advance(300)
        world.fail()
        world.again()
    assert [head["x-envoy-expected-rq-timeout-ms"] for head in world.heads()] == ["800", "700", "400"]


def test_a_client_that_leaves_ends_the_waiting() -> None:
    world = World()
    world.exchange.get()
    world.fail()
    world.exchange.feed(ev.DownstreamClosed())
    assert world.exchange.stream.done
    assert world.exchange.feed(ev.RetryDue()) == []


def test_nothing_is_due_without_a_wait() -> None:
    world = World()
    world.exchange.get()
    with pytest.raises(StreamStateError):
        world.exchange.feed(ev.RetryDue())


def test_who_counts_attempts_wants_no_others() -> None:
    world = World()
    world.exchange.get()
    assert world.exchange.only(do.SendUpstreamHeaders).retries is not None
    plain = World(RetryPolicy())
    plain.exchange.get()
    assert plain.exchange.only(do.SendUpstreamHeaders).retries is None


class Full:
    """A cluster that has enough retries under way, after some more."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.seen: list[object] = []

    def settled(self, good: bool) -> None:
        self.seen.append("good" if good else "bad")

    def spent(self) -> None:
        self.seen.append("spent")

    def take(self, status: int) -> bool:
        self.seen.append(status)
        self.free -= 1
        return self.free >= 0


def test_a_cluster_may_have_enough_of_them() -> None:
    world = World()
    world.exchange.get()
    retries = world.exchange.only(do.SendUpstreamHeaders).retries
    assert retries is not None
    full = retries.counter = Full(1)
    world.exchange.respond(b"bad", status="503", end=False)
    world.again()
    world.fail(UpstreamFailure.CONNECT_FAILURE)
    assert world.exchange.response["x-flags"] == "UO,UF"
    assert world.exchange.info.response_flags == (Flags.UPSTREAM_OVERFLOW | Flags.UPSTREAM_CONNECTION_FAILURE)
    assert full.seen == ["bad", 503, "bad", 0]


def test_a_cluster_hears_what_came_of_them() -> None:
    for last, heard in (("200", ["good"]), ("500", ["bad", "spent"])):
        world = World(replace(POLICY, num_retries=1))
        world.exchange.get()
        retries = world.exchange.only(do.SendUpstreamHeaders).retries
        assert retries is not None
        full = retries.counter = Full(5)
        world.exchange.respond(b"bad", status="502", end=False)
        world.again()
        world.exchange.respond(b"x", status=last)
        assert full.seen == ["bad", 502, *heard]


def test_a_request_that_takes_too_long_to_come() -> None:
    world = World()
    world.exchange.post(b"1", end=False)
    world.exchange.feed(ev.RequestTimeout())
    assert (world.exchange.status, world.exchange.body) == ("408", b"request timeout")
    complete = World()
    complete.exchange.get()
    assert complete.exchange.feed(ev.RequestTimeout()) == []
