"""Access logs in configurations: files, formats, filters; what is left out, what is refused."""

from __future__ import annotations

import pytest

from pywasmproxy.config.model_log import (
    DEFAULT_FORMAT,
    AccessLog,
    All,
    AnyOf,
    ByChance,
    Comparison,
    DurationIs,
    GrpcStatusIs,
    HasFlags,
    LogFilter,
    NoHealthCheck,
    RequestHeaderIs,
    StatusIs,
)
from pywasmproxy.config.model_match import Fraction, HeaderMatch, StringMatch, StringRule
from tests.support.bootstrap import manager, read, refused

LOGGERS = "type.googleapis.com/envoy.extensions.access_loggers"
FILE = f'"@type": {LOGGERS}.file.v3.FileAccessLog'


def logs(entry: str) -> tuple[AccessLog, ...]:
    return manager(manager=f"access_log: [{entry}]").access_logs


def file_log(fields: str) -> AccessLog:
    [found] = logs(f"{{name: any, typed_config: {{{FILE}, path: /tmp/a.log, {fields}}}}}")
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", AccessLog("/tmp/a.log", DEFAULT_FORMAT)),
        ('format: ""', AccessLog("/tmp/a.log", DEFAULT_FORMAT)),
        ('format: "%PROTOCOL%\\n"', AccessLog("/tmp/a.log", "%PROTOCOL%\n")),
        ('log_format: {text_format: "%PROTOCOL%"}', AccessLog("/tmp/a.log", "%PROTOCOL%")),
        (
            'log_format: {text_format_source: {inline_string: "%PROTOCOL%"}, omit_empty_values: true}',
            AccessLog("/tmp/a.log", "%PROTOCOL%", omit_empty_values=True),
        ),
        ('json_format: {a: "%PROTOCOL%"}', AccessLog("/tmp/a.log", json={"a": "%PROTOCOL%"})),
        ('typed_json_format: {a: "%PROTOCOL%"}', AccessLog("/tmp/a.log", json={"a": "%PROTOCOL%"})),
        ('log_format: {json_format: {a: [1, "x"]}}', AccessLog("/tmp/a.log", json={"a": [1, "x"]})),
    ],
)
def test_formats(fields: str, expected: AccessLog) -> None:
    assert file_log(fields) == expected


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        (f'{{name: a, typed_config: {{"@type": {LOGGERS}.stream.v3.StdoutAccessLog}}}}', "/dev/stdout"),
        (f'{{name: a, typed_config: {{"@type": {LOGGERS}.stream.v3.StderrAccessLog}}}}', "/dev/stderr"),
        ("{name: envoy.access_loggers.stdout}", "/dev/stdout"),
        ("{name: envoy.file_access_log, config: {path: /x}}", "/x"),
        (
            "{name: envoy.file_access_log, typed_config: "
            '{"@type": type.googleapis.com/envoy.config.accesslog.v2.FileAccessLog, path: /x}}',
            "/x",
        ),
    ],
)
def test_kinds(entry: str, path: str) -> None:
    assert [log.path for log in logs(entry)] == [path]


def test_other_kinds_are_left_out_with_a_warning() -> None:
    typed = f'{{"@type": {LOGGERS}.grpc.v3.HttpGrpcAccessLogConfig, common_config: {{}}}}'
    found = read(manager=f"access_log: [{{name: grpc, typed_config: {typed}}}]")
    assert found.listeners[0].http.access_logs == ()
    assert [warning.message for warning in found.warnings] == [
        "access logs of kind 'envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig' are not "
        "supported: it is left out"
    ]


COMPARISON = "comparison: {op: GE, value: {default_value: 500, runtime_key: k}}"
STATUS = f"status_code_filter: {{{COMPARISON}}}"
AT_LEAST = Comparison("GE", 500)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (STATUS, StatusIs(AT_LEAST)),
        (f"duration_filter: {{{COMPARISON}}}", DurationIs(AT_LEAST)),
        ("not_health_check_filter: {}", NoHealthCheck()),
        (
            "runtime_filter: {runtime_key: k, percent_sampled: {numerator: 5, denominator: TEN_THOUSAND}}",
            ByChance(Fraction(5, 10_000)),
        ),
        (
            f"and_filter: {{filters: [{{{STATUS}}}, {{not_health_check_filter: {{}}}}]}}",
            All((StatusIs(AT_LEAST), NoHealthCheck())),
        ),
        (f"or_filter: {{filters: [{{{STATUS}}}, {{{STATUS}}}]}}", AnyOf((StatusIs(AT_LEAST),) * 2)),
        (
            "header_filter: {header: {name: X-A, string_match: {exact: v}}}",
            RequestHeaderIs(HeaderMatch("x-a", StringMatch(StringRule.EXACT, "v"))),
        ),
        ("response_flag_filter: {flags: [UF, UO]}", HasFlags(frozenset(("UF", "UO")))),
        (
            "grpc_status_filter: {statuses: [NOT_FOUND, 14], exclude: true}",
            GrpcStatusIs(frozenset((5, 14)), exclude=True),
        ),
    ],
)
def test_filters(filter: str, expected: LogFilter) -> None:
    [found] = logs(f"{{name: envoy.access_loggers.stdout, filter: {{{filter}}}}}")
    assert found.filter == expected


def test_a_condition_we_cannot_check_counts_as_met() -> None:
    entry = "{name: envoy.access_loggers.stdout, filter: {traceable_filter: {}}}"
    found = read(manager=f"access_log: [{entry}]")
    assert [log.filter for log in found.listeners[0].http.access_logs] == [None]
    assert [warning.message for warning in found.warnings] == [
        "not supported yet: the condition counts as met"
    ]


def test_what_is_never_known_is_said_once() -> None:
    found = read(
        manager="access_log: ["
        f'{{name: a, typed_config: {{{FILE}, path: a, format: "%TRACE_ID%%TRACE_ID%"}}}}]'
    )
    assert [warning.message for warning in found.warnings] == [
        "%TRACE_ID% is always missing: there is no tracing"
    ]


@pytest.mark.parametrize(
    ("entry", "message", "suggestion"),
    [
        (f"{{name: a, typed_config: {{{FILE}}}}}", "FileAccessLog needs 'path'", None),
        (
            f'{{name: a, typed_config: {{{FILE}, path: a, format: "%PROTOCL%"}}}}',
            "format string: there is no operator %PROTOCL%",
            "%PROTOCOL%",
        ),
        (
            f"{{name: a, typed_config: {{{FILE}, path: a, log_format: {{}}}}}}",
            "a format needs one of text_format_source, json_format, text_format",
            None,
        ),
        (
            "{name: envoy.access_loggers.stdout, filter: {and_filter: {filters: []}}}",
            "and_filter needs at least two filters",
            None,
        ),
        (
            "{name: envoy.access_loggers.stdout, filter: {response_flag_filter: {flags: [XX]}}}",
            "'XX' is no response flag; known: ",
            None,
        ),
    ],
)
def test_refused(entry: str, message: str, suggestion: str | None) -> None:
    error = refused(manager=f"access_log: [{entry}]")
    assert error.message.startswith(message)
    assert error.suggestion == suggestion
