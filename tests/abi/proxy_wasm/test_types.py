"""The numbers of the ABI, as its document has them: guests were compiled with them."""

from __future__ import annotations

from enum import IntEnum

import pytest

from abi.proxy_wasm.types import (
    BufferType,
    Errno,
    LogLevel,
    MapType,
    MetricType,
    PeerType,
    Status,
    StreamType,
)

NUMBERS: dict[type[IntEnum], dict[str, int]] = {
    Status: {
        "OK": 0,
        "NOT_FOUND": 1,
        "BAD_ARGUMENT": 2,
        "SERIALIZATION_FAILURE": 3,
        "PARSE_FAILURE": 4,
        "BAD_EXPRESSION": 5,
        "INVALID_MEMORY_ACCESS": 6,
        "EMPTY": 7,
        "CAS_MISMATCH": 8,
        "RESULT_MISMATCH": 9,
        "INTERNAL_FAILURE": 10,
        "BROKEN_CONNECTION": 11,
        "UNIMPLEMENTED": 12,
    },
    Errno: {
        "SUCCESS": 0,
        "BADF": 8,
        "NOTDIR": 20,
        "FAULT": 21,
        "INVAL": 28,
        "NOENT": 44,
        "NOSYS": 52,
        "NOTSUP": 58,
        "NOTCAPABLE": 76,
    },
    LogLevel: {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4, "CRITICAL": 5, "OFF": 6},
    MapType: {
        "HTTP_REQUEST_HEADERS": 0,
        "HTTP_REQUEST_TRAILERS": 1,
        "HTTP_RESPONSE_HEADERS": 2,
        "HTTP_RESPONSE_TRAILERS": 3,
        "GRPC_CALL_INITIAL_METADATA": 4,
        "GRPC_CALL_TRAILING_METADATA": 5,
        "HTTP_CALL_RESPONSE_HEADERS": 6,
        "HTTP_CALL_RESPONSE_TRAILERS": 7,
    },
    BufferType: {
        "HTTP_REQUEST_BODY": 0,
        "HTTP_RESPONSE_BODY": 1,
        "DOWNSTREAM_DATA": 2,
        "UPSTREAM_DATA": 3,
        "HTTP_CALL_RESPONSE_BODY": 4,
        "GRPC_CALL_MESSAGE": 5,
        "VM_CONFIGURATION": 6,
        "PLUGIN_CONFIGURATION": 7,
        "FOREIGN_FUNCTION_ARGUMENTS": 8,
    },
    StreamType: {"HTTP_REQUEST": 0, "HTTP_RESPONSE": 1, "DOWNSTREAM": 2, "UPSTREAM": 3},
    PeerType: {"UNKNOWN": 0, "LOCAL": 1, "REMOTE": 2},
    MetricType: {"COUNTER": 0, "GAUGE": 1, "HISTOGRAM": 2},
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(kind: type[IntEnum]) -> None:
    assert {one.name: one.value for one in kind} == NUMBERS[kind]
