"""Access logs of a connection manager.

Field tables after envoy.config.accesslog.v3, envoy.extensions.access_loggers and envoy.config.core.v3
(substitution_format_string.proto). Loggers that write no lines (gRPC, OpenTelemetry) are left out.
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config.common import data_source
from pywasmproxy.config.extension import resolve
from pywasmproxy.config.limits import suggest
from pywasmproxy.config.matchers import fraction, header_match
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
from pywasmproxy.config.model_match import Fraction
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    later,
    repeated,
    struct,
    text,
)
from pywasmproxy.sansio.format import FormatError, JsonTemplate, Template
from pywasmproxy.sansio.format_operators import OPERATORS, UNAVAILABLE
from pywasmproxy.sansio.response_flags import SHORT_NAMES

# --- formats ----------------------------------------------------------------------------------------------


def format_text(cursor: Cursor) -> str:
    """A format string."""
    return checked_format(text(cursor), cursor)


def checked_format(string: str, cursor: Cursor) -> str:
    """The string; an error for one that cannot be used, a warning for what it will never say."""
    try:
        _note(Template(string).unavailable, cursor)
    except FormatError as error:
        _refuse(error, cursor)
    return string


def format_struct(cursor: Cursor) -> dict[str, object]:
    """A JSON object of format strings."""
    structure = struct(cursor)
    try:
        _note(JsonTemplate(structure).unavailable, cursor)
    except FormatError as error:
        _refuse(error, cursor)
    return structure


def _refuse(error: FormatError, cursor: Cursor) -> None:
    guess = None if error.operator is None else suggest(error.operator, OPERATORS)
    cursor.fail(f"format string: {error.message}", guess and f"%{guess}%")


def _note(unavailable: list[str], cursor: Cursor) -> None:
    for name in dict.fromkeys(unavailable):
        cursor.warn(f"%{name}% is always missing: {UNAVAILABLE[name]}")


FORMAT = Message(
    "envoy.config.core.v3.SubstitutionFormatString",
    {
        "text_format": format_text,
        "json_format": format_struct,
        "text_format_source": later,
        "omit_empty_values": boolean,
        "content_type": text,
        "formatters": anything,  # whatever they bring is an operator nobody knows
        "json_format_options": anything,  # keys are sorted, which is what it can ask for
    },
    one_of=("text_format json_format text_format_source",),
)


def _source(cursor: Cursor) -> str:
    content, _ = data_source(cursor)
    return checked_format(content.decode("utf-8", "replace"), cursor)


def log_format(cursor: Cursor) -> dict[str, Any]:
    """A `SubstitutionFormatString` as fields of `AccessLog`."""
    values = FORMAT.read(cursor)
    found: dict[str, Any] = {"omit_empty_values": values.get("omit_empty_values", False)}
    if "json_format" in values:
        found["json"] = values["json_format"]
    elif "text_format" in values:
        found["text"] = values["text_format"]
    elif "text_format_source" in values:
        found["text"] = _source(values["text_format_source"])
    else:
        cursor.fail("a format needs one of text_format_source, json_format, text_format")
    return found


# --- filters ----------------------------------------------------------------------------------------------

RUNTIME_NUMBER = Message(
    "envoy.config.core.v3.RuntimeUInt32", {"default_value": UINT32, "runtime_key": anything}
)

COMPARISON = Message(
    "envoy.config.accesslog.v3.ComparisonFilter",
    {"op": enum("comparison", "EQ GE LE NE"), "value": RUNTIME_NUMBER.read},
    required="value",
)


def _comparison(cursor: Cursor) -> Comparison:
    values = COMPARISON.read(cursor)
    return Comparison(values.get("op", "EQ"), values["value"].get("default_value", 0))


STATUS_FILTER = Message(
    "envoy.config.accesslog.v3.StatusCodeFilter", {"comparison": _comparison}, required="comparison"
)
DURATION_FILTER = Message(
    "envoy.config.accesslog.v3.DurationFilter", {"comparison": _comparison}, required="comparison"
)
RUNTIME_FILTER = Message(
    "envoy.config.accesslog.v3.RuntimeFilter",
    {"runtime_key": anything, "percent_sampled": fraction, "use_independent_randomness": anything},
)
_NESTED = {"filters": repeated(later)}
AND_FILTER = Message("envoy.config.accesslog.v3.AndFilter", _NESTED)
OR_FILTER = Message("envoy.config.accesslog.v3.OrFilter", _NESTED)
HEADER_FILTER = Message("envoy.config.accesslog.v3.HeaderFilter", {"header": header_match}, required="header")
_FLAG = enum("response flag", " ".join(SHORT_NAMES))
FLAG_FILTER = Message("envoy.config.accesslog.v3.ResponseFlagFilter", {"flags": repeated(_FLAG)})
_GRPC_STATUSES = (
    "OK CANCELED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE "
    "DATA_LOSS UNAUTHENTICATED"
)
GRPC_FILTER = Message(
    "envoy.config.accesslog.v3.GrpcStatusFilter",
    {"statuses": repeated(enum("gRPC status", _GRPC_STATUSES)), "exclude": boolean},
)

_UNKNOWN_FILTERS = "traceable_filter extension_filter metadata_filter log_type_filter"
_ALWAYS = "not supported yet: the condition counts as met"
FILTER = Message(
    "envoy.config.accesslog.v3.AccessLogFilter",
    {
        "status_code_filter": STATUS_FILTER.read,
        "duration_filter": DURATION_FILTER.read,
        "not_health_check_filter": lambda cursor: NoHealthCheck(),
        "runtime_filter": RUNTIME_FILTER.read,
        "and_filter": AND_FILTER.read,
        "or_filter": OR_FILTER.read,
        "header_filter": HEADER_FILTER.read,
        "response_flag_filter": FLAG_FILTER.read,
        "grpc_status_filter": GRPC_FILTER.read,
    },
    notes=dict.fromkeys(_UNKNOWN_FILTERS.split(), _ALWAYS),
    one_of=(
        "status_code_filter duration_filter not_health_check_filter traceable_filter runtime_filter "
        "and_filter or_filter header_filter response_flag_filter grpc_status_filter extension_filter "
        "metadata_filter log_type_filter",
    ),
)


def log_filter(cursor: Cursor) -> LogFilter | None:
    """An `AccessLogFilter`; None for one that lets everything through."""
    values = FILTER.read(cursor)
    if not values:
        return None
    [(kind, found)] = values.items()
    match kind:
        case "status_code_filter":
            return StatusIs(found["comparison"])
        case "duration_filter":
            return DurationIs(found["comparison"])
        case "runtime_filter":
            return ByChance(found.get("percent_sampled", Fraction(0)))
        case "and_filter" | "or_filter":
            places = found.get("filters", ())
            if len(places) < 2:
                cursor.fail(f"{kind} needs at least two filters")
            nested = [log_filter(place) for place in places]
            if kind == "and_filter":
                return All(tuple(one for one in nested if one is not None))
            known = tuple(one for one in nested if one is not None)
            return AnyOf(known) if len(known) == len(nested) else None
        case "header_filter":
            return RequestHeaderIs(found["header"])
        case "response_flag_filter":
            return HasFlags(frozenset(found.get("flags", ())))
        case "grpc_status_filter":
            numbers = (_GRPC_STATUSES.split().index(name) for name in found.get("statuses", ()))
            return GrpcStatusIs(frozenset(numbers), found.get("exclude", False))
    return NoHealthCheck()


# --- logs -------------------------------------------------------------------------------------------------

_FORMATS = {"format": format_text, "json_format": format_struct, "typed_json_format": format_struct}

FILE_LOG = Message(
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    {"path": text, **_FORMATS, "log_format": log_format},
    one_of=("format json_format typed_json_format log_format",),
    required="path",
)
STDOUT_LOG = Message("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", {"log_format": log_format})
STDERR_LOG = Message("envoy.extensions.access_loggers.stream.v3.StderrAccessLog", {"log_format": log_format})

ENTRY = Message(
    "envoy.config.accesslog.v3.AccessLog",
    {"name": text, "filter": log_filter, "typed_config": later, "config": later},
    one_of=("typed_config config",),
    legacy="config",
)

_FILES = (
    FILE_LOG.name,
    "envoy.config.accesslog.v2.FileAccessLog",
    "envoy.config.filter.accesslog.v2.FileAccessLog",
    "envoy.file_access_log",
    "envoy.access_loggers.file",
)
_STREAMS = {
    STDOUT_LOG.name: ("/dev/stdout", STDOUT_LOG),
    "envoy.access_loggers.stdout": ("/dev/stdout", STDOUT_LOG),
    STDERR_LOG.name: ("/dev/stderr", STDERR_LOG),
    "envoy.access_loggers.stderr": ("/dev/stderr", STDERR_LOG),
}


def access_logs(cursor: Cursor) -> tuple[AccessLog, ...]:
    """The entries of `access_log` that write lines."""
    found = (_access_log(place) for place in cursor.items())
    return tuple(log for log in found if log is not None)


def _access_log(cursor: Cursor) -> AccessLog | None:
    values = ENTRY.read(cursor)
    name, fields = resolve(values.get("typed_config"), values.get("config"))
    kind = name or values.get("name", "")
    if kind in _STREAMS:
        path, table = _STREAMS[kind]
        read = {} if fields is None else table.read(fields)
    elif kind in _FILES:
        if fields is None:
            cursor.fail("a file access log needs 'path'")
        read = FILE_LOG.read(fields)
        path = read["path"]
    else:
        cursor.warn(f"access logs of kind {kind!r} are not supported: it is left out")
        return None
    parts: dict[str, Any] = read.get("log_format", {})
    if "format" in read:
        parts = {"text": read["format"] or DEFAULT_FORMAT}
    elif "json_format" in read or "typed_json_format" in read:
        parts = {"json": read.get("json_format", read.get("typed_json_format"))}
    return AccessLog(path=path, filter=values.get("filter"), **parts)
