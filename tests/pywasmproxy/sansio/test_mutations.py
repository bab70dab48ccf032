"""Header mutations of routes: order, actions, empty values. Expectations measured on Envoy 1.40."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model_routes import AppendAction, HeaderAddition, HeaderMutations
from pywasmproxy.sansio.format import Moment
from pywasmproxy.sansio.mutations import Mutations

Lines = list[tuple[str, str]]
APPEND, ABSENT = AppendAction.APPEND_IF_EXISTS_OR_ADD, AppendAction.ADD_IF_ABSENT
OVERWRITE, EXISTING = AppendAction.OVERWRITE_IF_EXISTS_OR_ADD, AppendAction.OVERWRITE_IF_EXISTS


def changed(before: Lines, *levels: HeaderMutations) -> Lines:
    headers = HeaderMap(before)
    info = StreamInfo(request_headers=headers, protocol="HTTP/1.1")
    Mutations(levels).change_request(headers, info, Moment())
    return [(name.decode(), value.decode()) for name, value in headers.lines]


def added(name: str, value: str, action: AppendAction = APPEND, keep: bool = False) -> HeaderMutations:
    return HeaderMutations(request_add=(HeaderAddition(name, value, action, keep),))


@pytest.mark.parametrize(
    ("action", "there", "absent"),
    [
        (APPEND, [("x-a", "old"), ("x-z", ""), ("x-a", "new")], [("x-z", ""), ("x-a", "new")]),
        (ABSENT, [("x-a", "old"), ("x-z", "")], [("x-z", ""), ("x-a", "new")]),
        (OVERWRITE, [("x-z", ""), ("x-a", "new")], [("x-z", ""), ("x-a", "new")]),
        (EXISTING, [("x-z", ""), ("x-a", "new")], [("x-z", "")]),
    ],
)
def test_actions(action: AppendAction, there: Lines, absent: Lines) -> None:
    assert changed([("x-a", "old"), ("x-z", "")], added("x-a", "new", action)) == there
    assert changed([("x-z", "")], added("x-a", "new", action)) == absent


def test_values_are_filled_in() -> None:
    assert changed([("x-b", "1")], added("x-a", "%REQ(x-b)%/%PROTOCOL% 100%%"))[-1] == (
        "x-a",
        "1/HTTP/1.1 100%",
    )


def test_an_empty_value_is_not_added_unless_it_shall_be() -> None:
    assert changed([], added("x-a", "%REQ(none)%")) == []
    assert changed([], added("x-a", "%REQ(none)%", keep=True)) == [("x-a", "")]
    assert changed([("x-a", "old")], added("x-a", "", OVERWRITE)) == [("x-a", "old")]


def test_a_name_with_one_value_is_joined() -> None:
    assert changed([("user-agent", "ua"), ("x-z", "")], added("user-agent", "more")) == [
        ("user-agent", "ua,more"),
        ("x-z", ""),
    ]


def test_a_level_removes_then_overwrites_then_adds() -> None:
    level = HeaderMutations(
        request_remove=("x-gone", "x-again"),
        request_add=(
            HeaderAddition("x-again", "new"),
            HeaderAddition("x-over", "new", OVERWRITE),
        ),
    )
    before = [("x-gone", "1"), ("x-over", "old"), ("x-again", "old")]
    assert changed(before, level) == [("x-over", "new"), ("x-again", "new")]


def test_levels_act_one_after_the_other() -> None:
    levels = [added("x-a", "route"), added("x-a", "host"), added("x-a", "table", OVERWRITE)]
    assert changed([], *levels[:2]) == [("x-a", "route"), ("x-a", "host")]
    assert changed([], *levels) == [("x-a", "table")]


def test_responses_have_their_own() -> None:
    level = HeaderMutations(
        response_remove=("x-bad",), response_add=(HeaderAddition("x-r", "%RESPONSE_CODE%"),)
    )
    mutations = Mutations([level])
    assert mutations.of_responses
    headers = HeaderMap([("x-bad", "1")])
    mutations.change_response(headers, StreamInfo(response_code=200), Moment())
    assert headers == HeaderMap([("x-r", "200")])
    assert not Mutations([added("x-a", "1")]).of_responses


def test_bytes_that_are_no_text_survive() -> None:
    headers = HeaderMap([("x-a", b"\xff")])
    Mutations([added("x-b", "%REQ(x-a)%")]).change_request(
        headers, StreamInfo(request_headers=headers), Moment()
    )
    assert headers.first("x-b") == b"\xff"
