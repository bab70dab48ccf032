"""The operators of format strings: which fact of an exchange each of them gives. The table is at the end.

Names and meanings are those of Envoy's substitution formatters, as measured on 1.40. An operator with an
argument is made from it once; FormatError when the argument makes no sense.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote_plus

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.sansio.local_reply import GRPC_STATUS, is_grpc
from pywasmproxy.sansio.response_flags import LONG_NAMES, SHORT_NAMES, names_of

if TYPE_CHECKING:
    from pywasmproxy.sansio.format import Moment, Origin

Value: TypeAlias = "str | int | float | bool | dict[str, Value] | list[Value] | None"
"""What an operator gives: JSON's types. None: it is missing."""

Read: TypeAlias = "Callable[[StreamInfo, Moment], Value]"
Make: TypeAlias = "Callable[[str | None, Origin], Read]"


class FormatError(ValueError):
    """A format string that cannot be used. `operator` is the one nobody knows, if it is that."""

    def __init__(self, message: str, operator: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.operator = operator


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def _plain(read: Callable[[StreamInfo], Value]) -> Make:
    """An operator without an argument."""

    def make(argument: str | None, origin: Origin) -> Read:
        if argument is not None:
            raise FormatError(f"({argument}) is not wanted here")
        return lambda info, moment: read(info)

    return make


def _fact(name: str) -> Make:
    """A field of StreamInfo as it is."""
    return _plain(lambda info: getattr(info, name) or None)


# --- addresses ------------------------------------------------------------------------------------------


def _host(address: str | None) -> str | None:
    if not address:
        return None
    host = address.rpartition(":")[0]
    return host.removeprefix("[").removesuffix("]")


def _port(address: str | None) -> int | None:
    port = (address or "").rpartition(":")[2]
    return int(port) if port.isdigit() else None


def _address(name: str, prefix: str) -> dict[str, Make]:
    """An address and its two parts under Envoy's names for them."""

    def read(info: StreamInfo) -> str | None:
        found: str | None = getattr(info, name)
        return found or None

    return {
        f"{prefix}_ADDRESS": _plain(read),
        f"{prefix}_ADDRESS_WITHOUT_PORT": _plain(lambda info: _host(read(info))),
        f"{prefix}_PORT": _plain(lambda info: _port(read(info))),
    }


def _direct_remote(info: StreamInfo) -> str | None:
    return info.direct_source_address or info.source_address or None


# --- headers --------------------------------------------------------------------------------------------

_HEADERS = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\?:?[!#$%&'*+.^_`|~0-9A-Za-z-]+)?")


def _header(of: Callable[[StreamInfo], HeaderMap | None]) -> Make:
    """`NAME`, or `NAME?OTHER`: the first of them that is there."""

    def make(argument: str | None, origin: Origin) -> Read:
        if argument is None or not _HEADERS.fullmatch(argument):
            raise FormatError("a header is named like this: (x-name) or (x-name?x-other)")
        names = [name.lower().encode() for name in argument.split("?")]

        def read(info: StreamInfo, moment: Moment) -> Value:
            headers = of(info)
            if headers is None:
                return None
            return _text(next((value for name in names if (value := headers.first(name)) is not None), None))

        return read

    return make


def _request_header(name: bytes) -> Callable[[StreamInfo], str | None]:
    return lambda info: _text(info.request_headers.first(name)) if info.request_headers is not None else None


def _size(of: Callable[[StreamInfo], HeaderMap | None]) -> Make:
    def read(info: StreamInfo) -> int:
        headers = of(info)
        return 0 if headers is None else headers.byte_size

    return _plain(read)


def _path_of(info: StreamInfo, which: str) -> str | None:
    original = _request_header(b"x-envoy-original-path")(info) if which != "PATH" else None
    return original if original is not None or which == "ORIG" else _request_header(b":path")(info)


def _path(argument: str | None, origin: Origin) -> Read:
    query, _, which = (argument or "WQ").partition(":")
    which = which or "ORIG_OR_PATH"
    if query not in ("WQ", "NQ") or which not in ("PATH", "ORIG", "ORIG_OR_PATH"):
        raise FormatError("PATH takes WQ or NQ, then PATH, ORIG or ORIG_OR_PATH: %PATH(NQ:PATH)%")

    def read(info: StreamInfo, moment: Moment) -> Value:
        path = _path_of(info, which)
        return path.partition("?")[0] if path is not None and query == "NQ" else path

    return read


def _query(argument: str | None, origin: Origin) -> Read:
    if argument not in (None, "", "ORIG", "RAW"):
        raise FormatError("QUERY_PARAMS takes ORIG or RAW")
    which = "PATH" if argument == "RAW" else "ORIG_OR_PATH"
    return lambda info, moment: (_path_of(info, which) or "").partition("?")[2] or None


def query_parameters(query: str) -> list[tuple[str, str]]:
    """Names and values of a query in order, decoded."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]


def _query_parameter(argument: str | None, origin: Origin) -> Read:
    if not argument:
        raise FormatError("QUERY_PARAM needs a name: %QUERY_PARAM(name)%")

    def read(info: StreamInfo, moment: Moment) -> Value:
        query = (_path_of(info, "PATH") or "").partition("?")[2]
        return next((value for name, value in query_parameters(query) if name == argument), None)

    return read


# --- times ----------------------------------------------------------------------------------------------

_TIME = re.compile(r"%(?:([1-9])?f|E([0-9])S|E\*S|Ez|s|.)", re.DOTALL)
_DEFAULT_TIME = "%Y-%m-%dT%H:%M:%E3SZ"
_DEFAULT_LOCAL = "%Y-%m-%dT%H:%M:%E3S%z"


def format_time(ns: int, pattern: str, zone: tzinfo | None) -> str:
    """A time (ns since 1970) by a pattern of strftime with Envoy's additions; zone None is the local one."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    moment = moment.astimezone(zone) if zone is not None else moment.astimezone()
    digits = f"{fraction:09d}"

    def directive(found: re.Match[str]) -> str:
        text = found[0]
        if text == "%s":
            return str(seconds)
        if text.endswith("f"):
            return digits[: int(found[1] or 9)]
        if text == "%E*S":
            return f"{moment:%S}.{digits.rstrip('0') or '0'}"
        if found[2] is not None:
            places = int(found[2])
            return f"{moment:%S}" + (f".{digits[:places]}" if places else "")
        if text == "%Ez":
            zone_text = f"{moment:%z}"
            return f"{zone_text[:3]}:{zone_text[3:5]}"
        return moment.strftime(text)

    return _TIME.sub(directive, pattern)


def _time(which: Callable[[StreamInfo, Moment], int | None], local: bool) -> Make:
    def make(argument: str | None, origin: Origin) -> Read:
        pattern = argument or (_DEFAULT_LOCAL if local else _DEFAULT_TIME)
        zone = None if local else UTC

        def read(info: StreamInfo, moment: Moment) -> Value:
            ns = which(info, moment)
            return None if ns is None else format_time(ns, pattern, zone)

        return read

    return make


_POINTS: Mapping[str, Callable[[StreamInfo], int | None]] = {
    "DS_RX_BEG": lambda info: 0,
    "DS_RX_END": lambda info: info.request_received_after,
    "US_TX_BEG": lambda info: info.upstream_request_began_after,
    "US_TX_END": lambda info: info.upstream_request_sent_after,
    "US_RX_BEG": lambda info: info.upstream_response_began_after,
    "US_RX_END": lambda info: info.upstream_response_received_after,
    "DS_TX_BEG": lambda info: info.response_began_after,
    "DS_TX_END": lambda info: info.request_duration,
}
_UNITS = {"ms": 1_000_000, "us": 1_000, "ns": 1}


def _between(begin: str, end: str, unit: int) -> Callable[[StreamInfo], int | None]:
    def read(info: StreamInfo) -> int | None:
        first, last = _POINTS[begin](info), _POINTS[end](info)
        return None if first is None or last is None or last < first else (last - first) // unit

    return read


def _common_duration(argument: str | None, origin: Origin) -> Read:
    begin, _, rest = (argument or "").partition(":")
    end, _, unit = rest.partition(":")
    if begin not in _POINTS or end not in _POINTS or (unit or "ms") not in _UNITS:
        known = ", ".join(_POINTS)
        raise FormatError(f"COMMON_DURATION takes two points of time and ms, us or ns; points: {known}")
    read = _between(begin, end, _UNITS[unit or "ms"])
    return lambda info, moment: read(info)


def _duration(begin: str, end: str) -> Make:
    return _plain(_between(begin, end, _UNITS["ms"]))


def _so_far(info: StreamInfo, moment: Moment) -> Value:
    """How long the exchange took, or takes already."""
    if info.request_duration is None and info.start_time is not None and moment.now:
        return max(0, moment.now - info.start_time) // 1_000_000
    return _between("DS_RX_BEG", "DS_TX_END", _UNITS["ms"])(info)


# --- metadata and state ---------------------------------------------------------------------------------


def _keys(argument: str | None) -> list[str]:
    if argument and argument.startswith("["):  # the older spelling: ["namespace", "key"]
        try:
            listed = json.loads(argument)
        except ValueError:
            listed = []
        keys = [str(key) for key in listed]
    else:
        keys = (argument or "").split(":")
    if not keys or not all(keys):
        raise FormatError("metadata is named like this: (namespace:key:key)")
    return keys


def _dig(value: object, keys: list[str]) -> Value:
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value  # type: ignore[return-value]  # metadata is JSON-like all through


def _metadata(of: Callable[[StreamInfo], Mapping[str, object] | None]) -> Make:
    def make(argument: str | None, origin: Origin) -> Read:
        keys = _keys(argument)
        return lambda info, moment: _dig(of(info), keys)

    return make


_METADATA: dict[str, Callable[[StreamInfo], Mapping[str, object] | None]] = {
    "DYNAMIC": lambda info: info.dynamic_metadata,
    "CLUSTER": lambda info: info.cluster_metadata,
    "ROUTE": lambda info: info.route_metadata,
}


def _any_metadata(argument: str | None, origin: Origin) -> Read:
    kind, _, rest = (argument or "").partition(":")
    if kind in ("UPSTREAM_HOST", "LISTENER", "VIRTUAL_HOST", "LISTENER_FILTER_CHAIN"):
        return lambda info, moment: None
    if kind not in _METADATA:
        raise FormatError(f"METADATA takes one of {', '.join(_METADATA)} first: %METADATA(ROUTE:name:key)%")
    return _metadata(_METADATA[kind])(rest, origin)


def _filter_state(argument: str | None, origin: Origin) -> Read:
    key, _, form = (argument or "").partition(":")
    if not key or form.partition(":")[0] not in ("", "PLAIN", "TYPED"):
        raise FormatError("FILTER_STATE takes a key, and PLAIN or TYPED: %FILTER_STATE(key:PLAIN)%")
    name = key.encode()
    return lambda info, moment: _text(info.filter_state.get(name))


# --- status ---------------------------------------------------------------------------------------------

_GRPC_NAMES = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
]


def grpc_status_of(info: StreamInfo) -> int | None:
    """The status of a gRPC call; None when it is none, or has none."""
    if not is_grpc(info.request_headers):
        return None
    for headers in (info.response_trailers, info.response_headers):
        raw = headers.first(b"grpc-status") if headers is not None else None
        if raw is not None:
            return int(raw) if raw.isdigit() and len(raw) < 10 else None
    code = info.response_code
    return None if not code or code == 200 else GRPC_STATUS.get(code, 2)


def _grpc_status(argument: str | None, origin: Origin) -> Read:
    form = argument or "CAMEL_STRING"
    if form not in ("CAMEL_STRING", "SNAKE_STRING", "NUMBER"):
        raise FormatError("GRPC_STATUS takes CAMEL_STRING, SNAKE_STRING or NUMBER")

    def read(info: StreamInfo, moment: Moment) -> Value:
        number = grpc_status_of(info)
        if number is None or form == "NUMBER":
            return number
        if number >= len(_GRPC_NAMES):
            return str(number)
        name = _GRPC_NAMES[number]
        if form == "SNAKE_STRING" and number:
            name = "CANCELLED" if number == 1 else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
        return name

    return read


def _code_details(argument: str | None, origin: Origin) -> Read:
    if argument not in (None, "ALLOW_WHITESPACES"):
        raise FormatError("RESPONSE_CODE_DETAILS takes ALLOW_WHITESPACES or nothing")

    def read(info: StreamInfo, moment: Moment) -> Value:
        details = info.response_code_details or None
        return details if details is None or argument else "_".join(details.split())

    return read


def _environment(argument: str | None, origin: Origin) -> Read:
    name, _, otherwise = (argument or "").partition(":")
    if not name:
        raise FormatError("ENVIRONMENT needs a name: %ENVIRONMENT(NAME)%")
    value = origin.environ.get(name) or otherwise or "-"
    return lambda info, moment: value


def _cluster(info: StreamInfo) -> str | None:
    return info.cluster_name or None


OPERATORS: Mapping[str, Make] = {
    "START_TIME": _time(lambda info, moment: info.start_time, False),
    "START_TIME_LOCAL": _time(lambda info, moment: info.start_time, True),
    "EMIT_TIME": _time(lambda info, moment: moment.now, False),
    "EMIT_TIME_LOCAL": _time(lambda info, moment: moment.now, True),
    "DURATION": lambda argument, origin: _so_far,
    "REQUEST_DURATION": _duration("DS_RX_BEG", "DS_RX_END"),
    "REQUEST_TX_DURATION": _duration("DS_RX_BEG", "US_TX_END"),
    "RESPONSE_DURATION": _duration("DS_RX_BEG", "US_RX_BEG"),
    "RESPONSE_TX_DURATION": _duration("US_RX_BEG", "DS_TX_END"),
    "COMMON_DURATION": _common_duration,
    "PROTOCOL": _fact("protocol"),
    "UPSTREAM_PROTOCOL": _plain(lambda info: "HTTP/1.1" if info.upstream_address else None),
    "BYTES_RECEIVED": _plain(lambda info: info.request_body_size),
    "BYTES_SENT": _plain(lambda info: info.response_body_size),
    "REQUEST_HEADERS_BYTES": _size(lambda info: info.request_headers),
    "RESPONSE_HEADERS_BYTES": _size(lambda info: info.response_headers),
    "RESPONSE_TRAILERS_BYTES": _size(lambda info: info.response_trailers),
    "RESPONSE_CODE": _plain(lambda info: info.response_code or 0),
    "RESPONSE_CODE_DETAILS": _code_details,
    "RESPONSE_FLAGS": _plain(lambda info: names_of(info.response_flags, SHORT_NAMES) or "-"),
    "RESPONSE_FLAGS_LONG": _plain(lambda info: names_of(info.response_flags, LONG_NAMES) or "-"),
    "CONNECTION_TERMINATION_DETAILS": _fact("connection_termination_details"),
    "GRPC_STATUS": _grpc_status,
    "GRPC_STATUS_NUMBER": _plain(grpc_status_of),
    **_address("source_address", "DOWNSTREAM_REMOTE"),
    **_address("destination_address", "DOWNSTREAM_LOCAL"),
    **_address("destination_address", "DOWNSTREAM_DIRECT_LOCAL"),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": _plain(_direct_remote),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": _plain(lambda info: _host(_direct_remote(info))),
    "DOWNSTREAM_DIRECT_REMOTE_PORT": _plain(lambda info: _port(_direct_remote(info))),
    **_address("upstream_address", "UPSTREAM_REMOTE"),
    **_address("upstream_local_address", "UPSTREAM_LOCAL"),
    "UPSTREAM_HOST": _fact("upstream_address"),
    "UPSTREAM_HOST_NAME": _fact("upstream_address"),
    "UPSTREAM_HOST_NAME_WITHOUT_PORT": _plain(lambda info: _host(info.upstream_address)),
    "UPSTREAM_CLUSTER": _plain(_cluster),
    "UPSTREAM_CLUSTER_RAW": _plain(_cluster),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": _fact("upstream_transport_failure_reason"),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": _plain(lambda info: info.upstream_attempt_count),
    "UPSTREAM_CONNECTION_POOL_READY_DURATION": _plain(
        lambda info: (
            None
            if info.upstream_pool_ready_duration is None
            else info.upstream_pool_ready_duration // 1_000_000
        )
    ),
    "CONNECTION_ID": _plain(lambda info: info.connection_id),
    "STREAM_ID": _plain(_request_header(b"x-request-id")),
    "HOSTNAME": lambda argument, origin: lambda info, moment: origin.hostname or None,
    "ENVIRONMENT": _environment,
    "ROUTE_NAME": _fact("route_name"),
    "FILTER_CHAIN_NAME": _fact("filter_chain_name"),
    "REQUESTED_SERVER_NAME": _fact("requested_server_name"),
    "LOCAL_REPLY_BODY": lambda argument, origin: lambda info, moment: moment.local_reply_body,
    "ACCESS_LOG_TYPE": lambda argument, origin: lambda info, moment: moment.access_log_type,
    "REQ": _header(lambda info: info.request_headers),
    "REQUEST_HEADER": _header(lambda info: info.request_headers),
    "RESP": _header(lambda info: info.response_headers),
    "RESPONSE_HEADER": _header(lambda info: info.response_headers),
    "TRAILER": _header(lambda info: info.response_trailers),
    "RESPONSE_TRAILER": _header(lambda info: info.response_trailers),
    "PATH": _path,
    "QUERY_PARAM": _query_parameter,
    "QUERY_PARAMS": _query,
    "METADATA": _any_metadata,
    "DYNAMIC_METADATA": _metadata(lambda info: info.dynamic_metadata),
    "CLUSTER_METADATA": _metadata(lambda info: info.cluster_metadata),
    "FILTER_STATE": _filter_state,
}
"""Operator -> what makes its reader of its argument."""

_UNAVAILABLE = """
    BYTES_RETRANSMITTED PACKETS_RETRANSMITTED CEL COALESCE CUSTOM_FLAGS DOWNSTREAM_CX_RTT
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT
    DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_HANDSHAKE_DURATION
    DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID
    DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN
    DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT
    DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1
    DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN
    DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_FINGERPRINT_256
    DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256
    DOWNSTREAM_PEER_ISSUER_SERIAL DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT
    DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_GROUP DOWNSTREAM_TLS_SESSION_ID
    DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED
    DOWNSTREAM_WIRE_BYTES_SENT ROUNDTRIP_DURATION SPAN_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID
    UNIQUE_ID UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT
    UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_FILTER_STATE UPSTREAM_HEADER_BYTES_RECEIVED
    UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT
    UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT UPSTREAM_LOCAL_CLOSE_REASON
    UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN UPSTREAM_LOCAL_URI_SAN UPSTREAM_METADATA UPSTREAM_PEER_CERT
    UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN
    UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID
    UPSTREAM_SERVER_NAME UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION
    UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME
"""

UNAVAILABLE = frozenset(_UNAVAILABLE.split())
"""Operators of Envoy's that are always missing here."""
