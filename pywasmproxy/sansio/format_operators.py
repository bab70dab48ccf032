"""The operators of format strings: which fact of an exchange each of them gives. The table is at the end.

Names and meanings are those of Envoy's substitution formatters, as measured on 1.40. An operator with an
argument is made from it once; FormatError when the argument makes no sense.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote_plus

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.sansio.format_parts import (
    FormatError,
    Make,
    Moment,
    Origin,
    Read,
    Value,
    host_of,
    plain,
    port_of,
    shortened,
    text_of,
)
from pywasmproxy.sansio.format_time import TIMES
from pywasmproxy.sansio.format_tls import TLS
from pywasmproxy.sansio.format_wire import (
    OF_FACTS,
    WIRE,
    alternatives,
    dig,
    keys_of,
    metadata_of_facts,
    new_id,
)
from pywasmproxy.sansio.local_reply import GRPC_STATUS, is_grpc
from pywasmproxy.sansio.response_flags import LONG_NAMES, SHORT_NAMES, names_of


def _fact(name: str) -> Make:
    """A field of StreamInfo as it is."""
    return plain(lambda info: getattr(info, name) or None)


# --- addresses ------------------------------------------------------------------------------------------


def _always(info: StreamInfo) -> bool:
    return True


def _connected(info: StreamInfo) -> bool:
    """Whether there was a connection to the host whose address is known."""
    return bool(info.upstream_local_address)


def _address(name: str, prefix: str, known: Callable[[StreamInfo], bool] = _always) -> dict[str, Make]:
    """An address and its two parts under Envoy's names for them."""

    def read(info: StreamInfo) -> str | None:
        found: str | None = getattr(info, name)
        return found if found and known(info) else None

    return {
        f"{prefix}_ADDRESS": plain(read),
        f"{prefix}_ADDRESS_WITHOUT_PORT": plain(lambda info: host_of(read(info))),
        f"{prefix}_PORT": plain(lambda info: port_of(read(info))),
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
            return text_of(
                next((value for name in names if (value := headers.first(name)) is not None), None)
            )

        return read

    return make


def _request_header(name: bytes) -> Callable[[StreamInfo], str | None]:
    return lambda info: (
        text_of(info.request_headers.first(name)) if info.request_headers is not None else None
    )


def _size(of: Callable[[StreamInfo], HeaderMap | None]) -> Make:
    def read(info: StreamInfo) -> int:
        headers = of(info)
        return 0 if headers is None else headers.byte_size

    return plain(read)


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


# --- metadata and state ---------------------------------------------------------------------------------


def _metadata(of: Callable[[StreamInfo], Mapping[str, object] | None]) -> Make:
    def make(argument: str | None, origin: Origin) -> Read:
        keys = keys_of(argument)
        return lambda info, moment: dig(of(info), keys)

    return make


_METADATA: dict[str, Callable[[StreamInfo], Mapping[str, object] | None]] = {
    "DYNAMIC": lambda info: info.dynamic_metadata,
    "CLUSTER": lambda info: info.cluster_metadata,
    "ROUTE": lambda info: info.route_metadata,
}


def _any_metadata(argument: str | None, origin: Origin) -> Read:
    kind, _, rest = (argument or "").partition(":")
    if kind in OF_FACTS:
        return metadata_of_facts(OF_FACTS[kind])(rest, origin)
    if kind not in _METADATA:
        raise FormatError(
            f"METADATA takes one of {', '.join((*_METADATA, *OF_FACTS))} first: %METADATA(ROUTE:name:key)%"
        )
    return _metadata(_METADATA[kind])(rest, origin)


def _filter_state(argument: str | None, origin: Origin) -> Read:
    key, _, form = (argument or "").partition(":")
    if not key or form.partition(":")[0] not in ("", "PLAIN", "TYPED"):
        raise FormatError("FILTER_STATE takes a key, and PLAIN or TYPED: %FILTER_STATE(key:PLAIN)%")
    name = key.encode()
    return lambda info, moment: text_of(info.filter_state.get(name))


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


def _coalesce(argument: str | None, origin: Origin) -> Read:
    """The first of several operators that has a value."""
    reads = []
    for command, param, most in alternatives(argument):
        if command in UNAVAILABLE:
            continue  # that one never has
        if command not in OPERATORS:
            raise FormatError(f"there is no operator %{command}%", command)
        read = OPERATORS[command](param, origin)
        reads.append(read if most is None else shortened(read, most))

    def first(info: StreamInfo, moment: Moment) -> Value:
        values = (read(info, moment) for read in reads)
        return next((value for value in values if value is not None), None)

    return first


def _cluster(info: StreamInfo) -> str | None:
    return info.cluster_name or None


OPERATORS: Mapping[str, Make] = {
    **TIMES,
    **TLS,
    **WIRE,
    "PROTOCOL": _fact("protocol"),
    "UPSTREAM_PROTOCOL": plain(
        lambda info: "HTTP/1.1" if _connected(info) and info.protocol is not None else None
    ),
    "BYTES_RECEIVED": plain(lambda info: info.request_body_size),
    "BYTES_SENT": plain(lambda info: info.response_body_size),
    "REQUEST_HEADERS_BYTES": _size(lambda info: info.request_headers),
    "RESPONSE_HEADERS_BYTES": _size(lambda info: info.response_headers),
    "RESPONSE_TRAILERS_BYTES": _size(lambda info: info.response_trailers),
    "RESPONSE_CODE": plain(lambda info: info.response_code or 0),
    "RESPONSE_CODE_DETAILS": _code_details,
    "RESPONSE_FLAGS": plain(lambda info: names_of(info.response_flags, SHORT_NAMES) or "-"),
    "RESPONSE_FLAGS_LONG": plain(lambda info: names_of(info.response_flags, LONG_NAMES) or "-"),
    "CONNECTION_TERMINATION_DETAILS": _fact("connection_termination_details"),
    "GRPC_STATUS": _grpc_status,
    "GRPC_STATUS_NUMBER": plain(grpc_status_of),
    **_address("source_address", "DOWNSTREAM_REMOTE"),
    **_address("destination_address", "DOWNSTREAM_LOCAL"),
    **_address("destination_address", "DOWNSTREAM_DIRECT_LOCAL"),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": plain(_direct_remote),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": plain(lambda info: host_of(_direct_remote(info))),
    "DOWNSTREAM_DIRECT_REMOTE_PORT": plain(lambda info: port_of(_direct_remote(info))),
    **_address("upstream_address", "UPSTREAM_REMOTE", _connected),
    **_address("upstream_local_address", "UPSTREAM_LOCAL"),
    "UPSTREAM_HOST": _fact("upstream_address"),
    "UPSTREAM_CLUSTER": plain(_cluster),
    "UPSTREAM_CLUSTER_RAW": plain(_cluster),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": _fact("upstream_transport_failure_reason"),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": plain(lambda info: info.upstream_attempt_count),
    "UPSTREAM_CONNECTION_POOL_READY_DURATION": plain(
        lambda info: (
            None
            if info.upstream_pool_ready_duration is None
            else info.upstream_pool_ready_duration // 1_000_000
        )
    ),
    "CONNECTION_ID": plain(lambda info: info.connection_id),
    "STREAM_ID": plain(lambda info: _request_header(b"x-request-id")(info) or new_id()),
    "HOSTNAME": lambda argument, origin: lambda info, moment: origin.hostname or None,
    "ENVIRONMENT": _environment,
    "ROUTE_NAME": _fact("route_name"),
    "FILTER_CHAIN_NAME": _fact("filter_chain_name"),
    "REQUESTED_SERVER_NAME": _fact("requested_server_name"),
    # There is no UDP here, no flag that a filter would set, no listener inside of the proxy, and no exchange
    # whose handshake failed.
    "BYTES_RETRANSMITTED": plain(lambda info: 0),
    "PACKETS_RETRANSMITTED": plain(lambda info: 0),
    "ROUNDTRIP_DURATION": plain(lambda info: None),
    "CUSTOM_FLAGS": plain(lambda info: ""),
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID": plain(lambda info: ""),
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID": plain(lambda info: ""),
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID": plain(lambda info: "" if _connected(info) else None),
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON": plain(lambda info: None),
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
    "COALESCE": _coalesce,
    "CLUSTER_METADATA": _metadata(lambda info: info.cluster_metadata),
    "FILTER_STATE": _filter_state,
}
"""Operator -> what makes its reader of its argument."""

_REASONS: Mapping[str, str] = {
    "there is no tracing": "TRACE_ID SPAN_ID",
    "there is no CEL": "CEL",
    "filters of upstreams, which would have it, are not supported": "UPSTREAM_FILTER_STATE",
    "nobody takes fingerprints of TLS greetings": "TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT",
    "Python's ssl does not tell it": """
        DOWNSTREAM_TLS_GROUP UPSTREAM_TLS_GROUP DOWNSTREAM_HANDSHAKE_DURATION
        DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256
        DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER_SERIAL""",
    "names of that kind are not read": "DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "the operating system is not asked for it": "DOWNSTREAM_CX_RTT",
    "event loops tell a reset and an orderly end apart in different ways": """
        DOWNSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_DETECTED_CLOSE_TYPE""",
    "these are words of Envoy's inside": "DOWNSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_CLOSE_REASON",
}

UNAVAILABLE: Mapping[str, str] = {name: why for why, names in _REASONS.items() for name in names.split()}
"""Operators of Envoy's that are always missing here, and why."""
