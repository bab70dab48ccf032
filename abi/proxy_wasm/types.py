"""The numbers of the proxy-wasm ABI: statuses, levels, map, buffer, stream, peer and metric types.

Source: proxy-wasm specification 0.2.1, "Types"; `Action` joins what the specification's
`proxy_action_t` and the C++ style SDKs return from stream callbacks into one vocabulary.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class Status(IntEnum):
    """`proxy_status_t`, the result of every `proxy_*` host function."""

    OK = 0
    NOT_FOUND = 1
    BAD_ARGUMENT = 2
    SERIALIZATION_FAILURE = 3
    PARSE_FAILURE = 4
    BAD_EXPRESSION = 5
    INVALID_MEMORY_ACCESS = 6
    EMPTY = 7
    CAS_MISMATCH = 8
    RESULT_MISMATCH = 9
    INTERNAL_FAILURE = 10
    BROKEN_CONNECTION = 11
    UNIMPLEMENTED = 12


class Errno(IntEnum):
    """The WASI error numbers that proxy-wasm hosts answer (WASI preview 1, `errno`)."""

    SUCCESS = 0
    BADF = 8
    NOTDIR = 20
    FAULT = 21
    INVAL = 28
    NOENT = 44
    NOSYS = 52
    NOTSUP = 58
    NOTCAPABLE = 76


class LogLevel(IntEnum):
    """`proxy_log_level_t`; OFF is only ever an answer of `proxy_get_log_level`."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5
    OFF = 6


class MapType(IntEnum):
    """`proxy_map_type_t`; 4 to 7 are read-only."""

    HTTP_REQUEST_HEADERS = 0
    HTTP_REQUEST_TRAILERS = 1
    HTTP_RESPONSE_HEADERS = 2
    HTTP_RESPONSE_TRAILERS = 3
    GRPC_CALL_INITIAL_METADATA = 4
    GRPC_CALL_TRAILING_METADATA = 5
    HTTP_CALL_RESPONSE_HEADERS = 6
    HTTP_CALL_RESPONSE_TRAILERS = 7


class BufferType(IntEnum):
    """`proxy_buffer_type_t`; 4 to 8 are read-only."""

    HTTP_REQUEST_BODY = 0
    HTTP_RESPONSE_BODY = 1
    DOWNSTREAM_DATA = 2
    UPSTREAM_DATA = 3
    HTTP_CALL_RESPONSE_BODY = 4
    GRPC_CALL_MESSAGE = 5
    VM_CONFIGURATION = 6
    PLUGIN_CONFIGURATION = 7
    FOREIGN_FUNCTION_ARGUMENTS = 8


class StreamType(IntEnum):
    """`proxy_stream_type_t`."""

    HTTP_REQUEST = 0
    HTTP_RESPONSE = 1
    DOWNSTREAM = 2
    UPSTREAM = 3


class PeerType(IntEnum):
    """`proxy_peer_type_t`: who closed a connection."""

    UNKNOWN = 0
    LOCAL = 1
    REMOTE = 2


class MetricType(IntEnum):
    """`proxy_metric_type_t`."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class Action(Enum):
    """What a stream callback asks the filter chain to do next.

    The specification knows CONTINUE and PAUSE; Envoy's SDKs tell several ways of pausing apart, and the
    chain needs to know which one was meant.
    """

    CONTINUE = "continue"
    STOP_ITERATION = "stop iteration"  # headers, trailers: held here; body callbacks still come
    STOP_ALL_AND_BUFFER = "stop all and buffer"  # headers: everything held until continue; a guest's PAUSE
    STOP_ALL_AND_WATERMARK = "stop all and watermark"
    STOP_AND_BUFFER = "stop and buffer"  # body: held; the next callback sees everything held so far
    STOP_AND_WATERMARK = "stop and watermark"  # body: held; the next callback sees only what is new
    STOP_NO_BUFFER = "stop, no buffer"  # body: this piece is dropped

    @property
    def paused(self) -> bool:
        """Whether the stream stops at this filter."""
        return self is not Action.CONTINUE
