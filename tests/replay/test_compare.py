"""The parts of the replay tool that need no proxy: log lines as records, expected against seen.

Texts are in the golden files' own form.
"""

from __future__ import annotations

from typing import Any

from tests.replay import cases, compare, logs

PORTS = {"listener": 8099, "upstream": 8080, "dead": 1}
LINE = "[2026-11-22 22:04:57.992][4089][{level}][wasm] [source/extensions/common/wasm/context.cc:1148] {text}"


def differences(expect: dict[str, Any], seen: compare.Seen) -> list[str]:
    case = cases.Case("x.json", {"name": "x", "requests": [], "filters": []})
    return compare.compare(case, {"started": True, **expect}, seen, PORTS)


def test_guest_line() -> None:
    record = logs.parse(LINE.format(level="warning", text="wasm log p r v: say: it\nagain"))
    assert record is not None
    assert record.golden == {"level": "warn", "prefix": "p r v", "message": "say: it\nagain"}
    assert not record.is_host_error


def test_guest_line_without_prefix() -> None:
    record = logs.parse(LINE.format(level="info", text="wasm log: a: b"))
    assert record is not None
    assert (record.prefix, record.message) == ("", "a: b")


def test_host_error_line() -> None:
    record = logs.parse(
        LINE.format(level="error", text="Function: f failed: Uncaught RuntimeError: unreachable")
    )
    assert record is not None
    assert record.is_host_error
    assert logs.host_line(record.message + "\nbacktrace") == "Function: f failed: unreachable"


def test_something_printed_raw_is_no_record() -> None:
    assert logs.parse("Unable to create Wasm plugin p") is None


def test_headers_are_a_multiset() -> None:
    report = compare.Comparison(PORTS)
    report.headers("h", [["a", "1"], ["A", "2"], ["b", "<ms>"]], [["b", "17"], ["a", "2"], ["a", "1"]])
    assert report.differences == []
    report.headers("h", [["a", "1"], ["a", "1"]], [["a", "1"]])
    assert len(report.differences) == 1


def test_placeholders() -> None:
    report = compare.Comparison(PORTS)
    assert report.matches("<date>", "Mon, 23 Nov 2026 00:06:50 GMT")
    assert not report.matches("<date>", "yesterday")
    assert report.matches('"127.0.0.1:<listener>"', '"127.0.0.1:8099"')
    assert not report.matches('"127.0.0.1:<listener>"', '"127.0.0.1:8080"')
    assert report.matches("<never completes>", "<never completes>")


def test_a_refused_start() -> None:
    expect = {"started": False, "exit_message": "Unable to create Wasm plugin p", "host_errors": ["a"]}
    seen = compare.Seen(host_errors=["a"], last_line="Unable to create Wasm plugin p", exit_status=1)
    assert differences(expect, seen) == []
    assert len(differences(expect, compare.Seen(host_errors=["a"], last_line="x", exit_status=0))) == 2


def test_lines_missing_and_left_over() -> None:
    one = {"level": "info", "prefix": "", "message": "one"}
    two = {"level": "info", "prefix": "", "message": "two"}
    assert differences({"request_logs": [[one]]}, compare.Seen(True, request_logs=[[one]])) == []
    assert len(differences({"request_logs": [[one, two]]}, compare.Seen(True, request_logs=[[one]]))) == 1
    assert len(differences({"request_logs": [[one]]}, compare.Seen(True, request_logs=[[one, two]]))) == 1
    assert (
        len(differences({"request_logs": [[one, two]]}, compare.Seen(True, request_logs=[[two, one]]))) == 1
    )


def test_unexpected_keys_and_counts() -> None:
    response = {"status": 200, "headers": [], "body": ""}
    wanted = {"responses": [response]}
    assert differences(wanted, compare.Seen(True, responses=[response])) == []
    assert len(differences(wanted, compare.Seen(True, responses=[{**response, "truncated": True}]))) == 1
    assert len(differences(wanted, compare.Seen(True))) == 1
    assert len(differences({}, compare.Seen(True, upstream_requests=[{"method": "GET"}]))) == 1
