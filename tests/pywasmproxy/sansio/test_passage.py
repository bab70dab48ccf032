"""Pauses, holds and buffers: what each answer of a filter does to the message and to the filters behind."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Action
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from tests.pywasmproxy.sansio.driver import Exchange, Scene, Scripted, Step, request

TOTAL = [Action.STOP_ALL_AND_BUFFER, Action.STOP_ALL_AND_WATERMARK]


def request_calls(scene: Scene) -> list[str]:
    return [call for call in scene.calls if " req" in call]


def response_calls(scene: Scene) -> list[str]:
    return [call for call in scene.calls if " resp" in call]


def go(filter: Scripted) -> None:
    filter.continue_request()


def go_response(filter: Scripted) -> None:
    filter.continue_response()


def add_request_trailers(filter: Scripted) -> None:
    filter.info.request_trailers = HeaderMap([("x-made", filter.name)])


# --- headers held ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", TOTAL)
def test_everything_waits_and_comes_as_one_piece(action: Action) -> None:
    scene = Scene({"reqh": action}, {})
    exchange = scene.open()
    assert exchange.post(b"abc", b"de") == []
    assert scene.calls == ["one reqh 6,0"]
    scene.filters[0].continue_request()
    exchange.wake()
    assert request_calls(scene) == ["one reqh 6,0", "two reqh 6,0", "one reqb 5,1", "two reqb 5,1"]
    assert exchange.commands[-2] == do.SendUpstreamBody(b"abcde", True)
    assert exchange.kinds() == ["SendUpstreamHeaders", "SendUpstreamBody", "StartRouteTimeout"]


@pytest.mark.parametrize("action", [*TOTAL, Action.STOP_ITERATION])
def test_a_request_without_body_waits(action: Action) -> None:
    scene = Scene({"reqh": action}, {})
    exchange = scene.open()
    assert exchange.get() == []
    scene.filters[0].continue_request()
    exchange.wake()
    assert scene.calls == ["one reqh 6,1", "two reqh 6,1"]
    assert exchange.only(do.SendUpstreamHeaders).end_of_stream


def test_continue_before_the_body_is_complete() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    scene.filters[0].continue_request()
    exchange.wake()
    exchange.feed(ev.RequestBody(b"de"), ev.RequestBody(b"", True))
    assert request_calls(scene) == [
        "one reqh 6,0",
        "two reqh 6,0",
        "one reqb 3,0",
        "two reqb 3,0",
        "one reqb 2,0",
        "two reqb 2,0",
        "one reqb 0,1",
        "two reqb 0,1",
    ]
    assert exchange.uploaded == b"abcde"


def test_an_empty_body_that_waited_is_a_bare_end() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post()
    scene.filters[0].continue_request()
    exchange.wake()
    assert scene.calls == ["one reqh 6,0", "one reqb 0,1"]


@pytest.mark.parametrize("action", [*TOTAL, Action.STOP_ITERATION])
def test_continue_in_the_callback_that_pauses(action: Action) -> None:
    def step(filter: Scripted) -> Action:
        filter.continue_request()
        return action

    scene = Scene({"reqh": step}, {})
    exchange = scene.open()
    exchange.post(b"abc")
    assert request_calls(scene)[:2] == ["one reqh 6,0", "two reqh 6,0"]
    assert exchange.uploaded == b"abc"


@pytest.mark.parametrize("side", ["request", "response"])
def test_continue_of_what_does_not_wait_is_harmless(side: str) -> None:
    step = go if side == "request" else go_response
    scene = Scene({"reqh": step, "resph": step}, {})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"x")
    assert exchange.body == b"x"
    assert [call for call in scene.calls if call.startswith("two req")] == ["two reqh 6,1"]


def test_headers_alone_held_body_callbacks_still_come_and_release() -> None:
    scene = Scene({"reqh": Action.STOP_ITERATION, "reqb0": None}, {})
    exchange = scene.open()
    exchange.feed(ev.RequestHeaders(request(method="POST")))
    assert exchange.commands == []
    exchange.feed(ev.RequestBody(b"abc"))
    assert scene.calls == ["one reqh 6,0", "one reqb 3,0", "two reqh 6,0", "two reqb 3,0"]
    assert exchange.uploaded == b"abc"


def test_headers_alone_held_released_by_trailers() -> None:
    scene = Scene({"reqh": Action.STOP_ITERATION, "reqb": Action.STOP_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    assert scene.calls == [
        "one reqh 6,0",
        "one reqb 3,0",
        "one reqt 1",
        "two reqh 6,0",
        "two reqb 3,0",
        "two reqt 1",
    ]
    assert exchange.kinds()[:3] == ["SendUpstreamHeaders", "SendUpstreamBody", "SendUpstreamTrailers"]


def test_two_filters_hold_one_after_the_other() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER}, {"reqh": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post(b"abc")
    one, two = scene.filters
    two.continue_request()  # nothing waits there yet
    exchange.wake()
    assert exchange.commands == []
    one.continue_request()
    exchange.wake()
    assert scene.calls == ["one reqh 6,0", "two reqh 6,0", "one reqb 3,1"]
    two.continue_request()
    exchange.wake()
    assert scene.calls[-1] == "two reqb 3,1"
    assert exchange.uploaded == b"abc"


def test_two_filters_hold_parts_of_one_body() -> None:
    scene = Scene({"reqb": None}, {"reqb0": Action.STOP_AND_WATERMARK}, {})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    scene.filters[0].script = {"reqb": Action.STOP_AND_BUFFER}
    exchange.feed(ev.RequestBody(b"de"), ev.RequestBody(b"", True))
    one, two, _ = scene.filters
    two.continue_request()
    exchange.wake()
    assert exchange.uploaded == b"abc"  # not what waits in front of it
    assert exchange.promises.upstream == "open"
    one.continue_request()
    exchange.wake()
    assert request_calls(scene)[-2:] == ["two reqb 2,1", "three reqb 2,1"]
    assert exchange.uploaded == b"abcde"


def test_the_head_alone_is_not_the_end_while_the_end_waits_elsewhere() -> None:
    scene = Scene({"reqb": Action.STOP_AND_BUFFER}, {"reqh": Action.STOP_ALL_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"abc")
    scene.filters[1].continue_request()
    exchange.wake()
    assert not exchange.only(do.SendUpstreamHeaders).end_of_stream
    scene.filters[0].continue_request()
    exchange.wake()
    assert exchange.uploaded == b"abc"


def test_two_full_filters_throttle_until_both_are_empty() -> None:
    scene = Scene({"reqb": None}, {"reqb": Action.STOP_AND_WATERMARK}, limit=2)
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    scene.filters[0].script = {"reqb": Action.STOP_AND_WATERMARK}
    exchange.feed(ev.RequestBody(b"def"))
    one, two = scene.filters
    two.continue_request()
    assert do.ResumeRequest() not in exchange.wake()
    two.script = {}
    one.continue_request()
    assert do.ResumeRequest() in exchange.wake()


# --- body held ------------------------------------------------------------------------------------------


def test_gathering_shows_everything_each_time() -> None:
    scene = Scene({"reqb0": Action.STOP_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"one", b"two", b"three")
    assert request_calls(scene) == [
        "one reqh 6,0",
        "two reqh 6,0",
        "one reqb 3,0",
        "one reqb 6,0",
        "one reqb 11,0",
        "one reqb 11,1",
        "two reqb 11,1",
    ]
    assert exchange.uploaded == b"onetwothree"


def test_watermark_shows_what_is_new_and_keeps_the_rest() -> None:
    scene = Scene({"reqb0": Action.STOP_AND_WATERMARK}, {})
    exchange = scene.open()
    exchange.post(b"one", b"two")
    assert request_calls(scene)[2:] == ["one reqb 3,0", "one reqb 3,0", "one reqb 0,1", "two reqb 6,1"]
    assert exchange.uploaded == b"onetwo"


def test_no_buffer_drops() -> None:
    scene = Scene({"reqb0": Action.STOP_NO_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"one", b"two")
    assert request_calls(scene)[2:] == ["one reqb 3,0", "one reqb 3,0", "one reqb 0,1", "two reqb 0,1"]
    assert exchange.uploaded == b""
    assert exchange.promises.upstream == "complete"


def test_after_a_dropped_piece_nothing_is_left_to_continue_with() -> None:
    scene = Scene({"reqb0": Action.STOP_NO_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    scene.filters[0].continue_request()
    assert exchange.wake() == []
    assert request_calls(scene)[2:] == ["one reqb 3,0"]


@pytest.mark.parametrize("action", [Action.STOP_AND_BUFFER, Action.STOP_AND_WATERMARK, Action.STOP_NO_BUFFER])
def test_the_end_can_be_held_too(action: Action) -> None:
    scene = Scene({"reqb": action}, {})
    exchange = scene.open()
    exchange.post(b"abc")
    assert exchange.promises.upstream == "open"
    scene.filters[0].continue_request()
    exchange.wake()
    assert exchange.promises.upstream == "complete"
    assert exchange.uploaded == (b"" if action is Action.STOP_NO_BUFFER else b"abc")


def test_what_waits_can_be_edited_from_outside() -> None:
    scene = Scene({"reqb": Action.STOP_AND_BUFFER})
    exchange = scene.open()
    exchange.post(b"abc")
    scene.filters[0].body[:] = b"something else"
    scene.filters[0].continue_request()
    exchange.wake()
    assert exchange.uploaded == b"something else"


def test_after_a_continue_gathering_starts_again() -> None:
    scene = Scene({"reqb0": Action.STOP_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    scene.filters[0].continue_request()
    exchange.wake()
    exchange.feed(ev.RequestBody(b"de"))
    assert scene.calls[-2:] == ["two reqb 3,0", "one reqb 2,0"]


def test_after_a_continue_nothing_is_shown_twice() -> None:
    scene = Scene({"reqb": Action.STOP_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    scene.filters[0].continue_request()
    exchange.wake()
    scene.filters[0].script = {}
    exchange.feed(ev.RequestBody(b"de"), ev.RequestBody(b"fg"), ev.RequestBody(b"", True))
    assert request_calls(scene)[-6::2] == ["one reqb 2,0", "one reqb 2,0", "one reqb 0,1"]
    assert exchange.uploaded == b"abcdefg"


@pytest.mark.parametrize("action", [Action.STOP_AND_BUFFER, Action.STOP_ALL_AND_BUFFER])
def test_too_much_request_body(action: Action) -> None:
    total = action is Action.STOP_ALL_AND_BUFFER
    scene = Scene({"reqh": action} if total else {"reqb": action}, limit=4)
    exchange = scene.open()
    exchange.post(b"abcd", end=False)
    assert "SendDownstreamHeaders" not in exchange.kinds()
    exchange.feed(ev.RequestBody(b"e"))
    assert exchange.status == "413"
    assert exchange.body == b"Payload Too Large"
    assert exchange.only(do.SendDownstreamHeaders).close
    assert exchange.info.response_code_details == "request_payload_too_large"


def test_one_piece_too_much() -> None:
    scene = Scene({"reqb": Action.STOP_AND_BUFFER}, limit=4)
    exchange = scene.open()
    exchange.post(b"abcde", end=False)
    assert exchange.status == "413"


def test_a_released_piece_may_be_large() -> None:
    scene = Scene({"reqb0": None, "reqh": Action.STOP_ITERATION}, limit=4)
    exchange = scene.open()
    exchange.post(b"abcdefgh")
    assert exchange.uploaded == b"abcdefgh"


@pytest.mark.parametrize("action", [Action.STOP_AND_WATERMARK, Action.STOP_ALL_AND_WATERMARK])
def test_back_pressure_instead_of_an_error(action: Action) -> None:
    total = action is Action.STOP_ALL_AND_WATERMARK
    scene = Scene({"reqh": action} if total else {"reqb0": action}, limit=4)
    exchange = scene.open()
    exchange.post(b"abcd", end=False)
    assert not exchange.promises.request_paused
    assert exchange.feed(ev.RequestBody(b"e"), ev.RequestBody(b"f")) == [do.PauseRequest()]
    scene.filters[0].continue_request()
    assert exchange.wake()[-1] == do.ResumeRequest()
    assert exchange.uploaded == b"abcdef"


def test_a_held_response_throttles_the_upstream() -> None:
    scene = Scene({"resph": Action.STOP_ALL_AND_WATERMARK}, limit=4)
    exchange = scene.open()
    exchange.get()
    assert exchange.respond(b"abcd", b"e", end=False) == [do.PauseResponse()]
    scene.filters[0].continue_response()
    exchange.wake()
    assert exchange.kinds()[-3:] == ["SendDownstreamHeaders", "SendDownstreamBody", "ResumeResponse"]


def test_too_much_response_body_before_its_head_is_out() -> None:
    scene = Scene({"resph": Action.STOP_ALL_AND_BUFFER}, limit=4)
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"abcde", end=False)
    assert (exchange.status, exchange.body) == ("500", b"Internal Server Error")
    assert exchange.info.response_code_details == "response_payload_too_large"
    assert exchange.promises.upstream == "reset"


def test_too_much_response_body_after_its_head_is_out() -> None:
    scene = Scene({"respb": Action.STOP_AND_BUFFER}, limit=4)
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"abcde", end=False)
    assert exchange.promises.client == "reset"


# --- response -------------------------------------------------------------------------------------------


def test_a_response_that_waits_comes_as_one_piece() -> None:
    scene = Scene({}, {"resph": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"abc", b"de")
    assert response_calls(scene) == ["two resph 2,0"]
    scene.filters[1].headers.set("x-late", "1")
    scene.filters[1].continue_response()
    exchange.wake()
    assert response_calls(scene) == ["two resph 2,0", "one resph 3,0", "two respb 5,1", "one respb 5,1"]
    assert exchange.response["x-late"] == "1"
    assert exchange.body == b"abcde"


def test_response_gathered_and_replaced() -> None:
    def replace(filter: Scripted) -> None:
        filter.body[:] = b"new"

    scene = Scene({"respb0": Action.STOP_AND_BUFFER, "respb1": replace})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"abc", b"de")
    assert exchange.body == b"new"
    assert exchange.info.response_body_size == 3


# --- trailers -------------------------------------------------------------------------------------------


def test_request_trailers_go_through() -> None:
    scene = Scene({}, {})
    exchange = scene.open()
    exchange.post(b"a", end=False)
    exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    assert scene.calls[-2:] == ["one reqt 1", "two reqt 1"]
    assert exchange.only(do.SendUpstreamTrailers).trailers["x-t"] == "1"
    assert exchange.promises.upstream == "complete"


def test_trailers_behind_an_answer_go_nowhere() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post(end=False)
    scene.filters[0].send_local_response(403)
    exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    assert exchange.status == "403"
    assert scene.calls[1:] == ["one resph 1,1", "one log", "one done", "one delete"]


@pytest.mark.parametrize("where", ["reqt", "reqb"])
def test_an_answer_to_trailers_or_body_stops_them(where: str) -> None:
    scene = Scene({where: lambda filter: filter.send_local_response(403)}, {})
    exchange = scene.open()
    exchange.post(b"a", end=False)
    if where == "reqt":
        exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    assert exchange.status == "403"
    assert f"two {where}" not in " ".join(scene.calls)


def test_gathered_body_beyond_the_limit_is_not_shown() -> None:
    scene = Scene({"reqb": Action.STOP_AND_BUFFER}, limit=4)
    exchange = scene.open()
    exchange.post(b"abc", b"de", end=False)
    assert exchange.status == "413"
    assert [call for call in request_calls(scene) if " reqb" in call] == ["one reqb 3,0"]


def test_trailers_can_wait() -> None:
    scene = Scene({"reqt": Action.STOP_ITERATION}, {})
    exchange = scene.open()
    exchange.post(b"a", end=False)
    exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    assert exchange.promises.upstream == "open"
    scene.filters[0].continue_request()
    exchange.wake()
    assert scene.calls[-2:] == ["one reqt 1", "two reqt 1"]
    assert exchange.promises.upstream == "complete"


def test_trailers_behind_a_total_hold_are_seen_by_the_holder() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER}, {})
    exchange = scene.open()
    exchange.post(b"a", end=False)
    exchange.feed(ev.RequestTrailers(HeaderMap([("x-t", "1")])))
    scene.filters[0].continue_request()
    exchange.wake()
    assert scene.calls == [
        "one reqh 6,0",
        "two reqh 6,0",
        "one reqb 1,0",
        "two reqb 1,0",
        "one reqt 1",
        "two reqt 1",
    ]


def test_response_trailers_go_through() -> None:
    scene = Scene({}, {})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"a", trailers=[("x-t", "1")])
    assert response_calls(scene)[-2:] == ["two respt 1", "one respt 1"]
    assert exchange.kinds()[-2:] == ["SendDownstreamTrailers", "StreamDone"]


def test_trailers_made_with_the_end_of_the_body() -> None:
    scene = Scene({"reqb1": add_request_trailers}, {}, {})
    exchange = scene.open()
    exchange.post(b"a")
    assert request_calls(scene)[-5:] == [
        "one reqb 0,1",
        "two reqb 0,0",
        "three reqb 0,0",
        "two reqt 1",
        "three reqt 1",
    ]
    assert exchange.only(do.SendUpstreamTrailers).trailers["x-made"] == "one"


def test_response_trailers_made_with_the_end_of_the_body() -> None:
    def make(filter: Scripted) -> None:
        filter.info.response_trailers = HeaderMap([("x-made", "1")])

    scene = Scene({}, {"respb1": make})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"a")
    assert response_calls(scene)[-3:] == ["two respb 0,1", "one respb 0,0", "one respt 1"]
    assert exchange.kinds()[-2:] == ["SendDownstreamTrailers", "StreamDone"]


def test_made_trailers_wait_with_the_body_of_their_maker() -> None:
    def make(filter: Scripted) -> Action:
        add_request_trailers(filter)
        return Action.STOP_AND_BUFFER

    scene = Scene({"reqb": make}, {})
    exchange = scene.open()
    exchange.post(b"abc")
    scene.filters[0].continue_request()
    exchange.wake()
    assert scene.calls[-2:] == ["two reqb 3,0", "two reqt 1"]
    assert exchange.promises.upstream == "complete"


@pytest.mark.parametrize("later", [{"reqb0": Action.STOP_AND_BUFFER}, {"reqh": Action.STOP_ALL_AND_BUFFER}])
def test_made_trailers_reach_a_filter_that_holds_the_body_once(later: dict[str, Step]) -> None:
    scene = Scene({"reqb1": add_request_trailers}, {}, later)
    exchange = scene.open()
    exchange.post(b"abc")
    for _ in range(3):
        scene.filters[2].continue_request()
        exchange.wake()
    assert [call for call in scene.calls if " reqt" in call] == ["two reqt 1", "three reqt 1"]
    assert exchange.uploaded == b"abc"
    assert exchange.promises.upstream == "complete"


def test_made_trailers_when_a_later_filter_releases_its_hold_with_the_last_piece() -> None:
    def first_stop(filter: Scripted) -> Action | None:
        return (
            None
            if bytes(filter.body) == b"abc" and "one reqb 0,1" in filter.calls
            else Action.STOP_AND_BUFFER
        )

    scene = Scene({"reqb1": add_request_trailers}, {"reqb0": first_stop}, {})
    exchange = scene.open()
    exchange.post(b"abc")
    assert [call for call in scene.calls if " reqt" in call] == ["two reqt 1", "three reqt 1"]
    assert exchange.promises.upstream == "complete"


def test_phases_are_told_when_they_are_over() -> None:
    over: list[str] = []

    class Watching(Scripted):
        def request_phase_over(self) -> None:
            over.append("request")

        def response_phase_over(self) -> None:
            over.append("response")

    scene = Scene()
    calls = scene.calls

    def make(callbacks, info):  # type: ignore[no-untyped-def]
        made = Watching(callbacks, info)
        made.name, made.calls = "one", calls
        made.script = {"reqh": Action.STOP_ALL_AND_BUFFER, "resph": Action.STOP_ALL_AND_BUFFER}
        scene.filters.append(made)
        return made

    scene.chain.factories.append(make)
    exchange = Exchange(scene.chain)
    exchange.get()
    scene.filters[0].continue_request()
    exchange.wake()
    assert over == ["request"]
    exchange.respond(b"x")
    scene.filters[0].continue_response()
    exchange.wake()
    assert over == ["request", "response"]
