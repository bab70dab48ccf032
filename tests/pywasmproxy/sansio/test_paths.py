"""Targets tidied up: what Envoy 1.40 makes of paths and hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.config.model_manager import EscapedSlashes, StripPort, TargetRules
from pywasmproxy.sansio.paths import BadPath, Redirected, normalized, tidy_host, tidy_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/a/../b", "/b"),
        ("/a/./b/%2e%2E/c", "/a/c"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/../x", "/x"),
        ("/a\\b", "/a/b"),
        ("/%41%7e%20%2A", "/A~%20%2A"),
        ("/a//b", "/a//b"),
        ("/a//../b", "/a/b"),
        ("/%zz", "/%zz"),
        ("/a/%252e%252e/b", "/a/%252e%252e/b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a;b=c/..", "/"),
    ],
)
def test_normal_form(path: str, expected: str) -> None:
    assert normalized(path.encode()).decode() == expected


@pytest.mark.parametrize("path", ["/a%00", "a", "*", ""])
def test_no_paths(path: str) -> None:
    with pytest.raises(BadPath):
        normalized(path.encode())


@given(st.text("ab./\\%2eE5cC", max_size=30))
def test_a_normal_form_stays_and_has_no_dots(rest: str) -> None:
    once = normalized(b"/" + rest.encode())
    assert normalized(once) == once
    assert not {b".", b".."} & set(once.split(b"/"))


def tidied(path: str, **rules: object) -> str:
    return tidy_path(path.encode(), TargetRules(**rules)).decode()  # type: ignore[arg-type]


def test_the_query_is_left_alone() -> None:
    everything = {"normalize": True, "merge_slashes": True}
    assert tidied("/a/..//b?x=/../%2F//y", **everything) == "/b?x=/../%2F//y"


def test_slashes_are_merged() -> None:
    assert tidied("//a///b//?x=//", merge_slashes=True) == "/a/b/?x=//"


@pytest.mark.parametrize(
    ("path", "forwarded"), [("/a%2fb%5Cc", "/a/b\\c"), ("/a%2F%2e%2e%2Fb", "/a/%2e%2e/b"), ("/a", "/a")]
)
def test_escaped_slashes(path: str, forwarded: str) -> None:
    assert tidied(path) == path
    assert tidied(path, escaped_slashes=EscapedSlashes.UNESCAPE_AND_FORWARD) == forwarded
    if forwarded == path:
        assert tidied(path, escaped_slashes=EscapedSlashes.REJECT_REQUEST) == path
        assert tidied(path, escaped_slashes=EscapedSlashes.UNESCAPE_AND_REDIRECT) == path
        return
    with pytest.raises(BadPath):
        tidied(path, escaped_slashes=EscapedSlashes.REJECT_REQUEST)
    with pytest.raises(Redirected) as caught:
        tidied(path + "?q", escaped_slashes=EscapedSlashes.UNESCAPE_AND_REDIRECT)
    assert caught.value.path.decode() == forwarded + "?q"


def test_a_redirect_goes_to_the_normal_form() -> None:
    with pytest.raises(Redirected) as caught:
        tidied("/a%2F%2e%2e%2Fb", normalize=True, escaped_slashes=EscapedSlashes.UNESCAPE_AND_REDIRECT)
    assert caught.value.path == b"/b"


@pytest.mark.parametrize(
    ("host", "rules", "expected"),
    [
        ("a.test:80", TargetRules(), "a.test:80"),
        ("a.test:80", TargetRules(strip_port=StripPort.MATCHING), "a.test"),
        ("a.test:81", TargetRules(strip_port=StripPort.MATCHING), "a.test:81"),
        ("a.test:81", TargetRules(strip_port=StripPort.ANY), "a.test"),
        ("[::1]:81", TargetRules(strip_port=StripPort.ANY), "[::1]"),
        ("[::1]", TargetRules(strip_port=StripPort.ANY), "[::1]"),
        ("a.test.", TargetRules(strip_trailing_dot=True), "a.test"),
        ("a.test.:80", TargetRules(strip_trailing_dot=True), "a.test:80"),
        ("a.test.:80", TargetRules(strip_trailing_dot=True, strip_port=StripPort.ANY), "a.test"),
        ("a.test:80.", TargetRules(strip_port=StripPort.ANY), "a.test:80."),
    ],
)
def test_hosts(host: str, rules: TargetRules, expected: str) -> None:
    assert tidy_host(host.encode(), rules, 80).decode() == expected
