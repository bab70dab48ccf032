"""Where gRPC calls go: the `GrpcService` message, names, and what is neither."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.grpc_service import GrpcTarget, read_target
from abi.proxy_wasm.protobuf import field, varint
from abi.proxy_wasm.types import Status

CLUSTERS = frozenset(("svc", "a-name-of-nine", "aabcdefgh"))


def read(service: bytes) -> GrpcTarget | Status:
    return read_target(service, CLUSTERS.__contains__)


def envoy(*fields: bytes) -> bytes:
    return field(1, b"".join(fields))


SVC = envoy(field(1, "svc"))


def test_a_cluster() -> None:
    assert read(SVC) == GrpcTarget("svc", "svc")


def test_everything_in_the_message() -> None:
    message = b"".join(
        (
            envoy(field(1, "svc"), field(2, "auth.test"), field(4, b"\x08\x80\x08"), field(3, b"")),
            field(3, b"\x08\x01" + b"\x10" + varint(500_000_000)),
            field(5, field(1, "X-A") + field(2, "1")),
            field(5, field(1, "x-b") + field(3, b"\xff")),
            field(6, b"\x08\x01"),  # retry_policy
            b"\x78\x01" + b"\x7d" + bytes(4) + b"\x79" + bytes(8),  # unknown fields of every wire type
        )
    )
    metadata = ((b"x-a", b"1"), (b"x-b", b"\xff"))
    assert read(message) == GrpcTarget("svc", "auth.test", 1500, metadata, 1024)


@pytest.mark.parametrize(
    ("duration", "milliseconds"),
    [
        (b"", 0),
        (b"\x08\x02", 2000),
        (b"\x10" + varint(999_999), 0),
        (b"\x08" + varint((1 << 64) - 1), 0),  # minus one
        (b"\x10" + varint(1_000_000_000), 0),  # more than a second of nanoseconds
        (b"\x08" + varint(1 << 62), 0xFFFF_FFFF),
        (field(1, "text"), 0),
    ],
)
def test_timeouts(duration: bytes, milliseconds: int) -> None:
    target = read(SVC + field(3, duration))
    assert isinstance(target, GrpcTarget)
    assert target.timeout_ms == milliseconds


def test_a_plain_name() -> None:
    assert read(b"svc") == GrpcTarget("svc", "svc")
    assert read(b"a-name-of-nine") == GrpcTarget("a-name-of-nine", "a-name-of-nine")
    # "a" and eight bytes are a message with one unknown field.
    assert read(b"aabcdefgh") == GrpcTarget("aabcdefgh", "aabcdefgh")


@pytest.mark.parametrize(
    ("service", "status"),
    [
        (b"nothing", Status.PARSE_FAILURE),
        (b"\xff\xff", Status.PARSE_FAILURE),
        (SVC[:-1], Status.PARSE_FAILURE),
        (b"\x08\x01", Status.PARSE_FAILURE),  # envoy_grpc as a number
        (envoy(b"\x08\x01"), Status.PARSE_FAILURE),  # cluster_name as a number
        (envoy(field(1, b"\xff")), Status.PARSE_FAILURE),  # not UTF-8
        (envoy(field(4, b"\x09")), Status.PARSE_FAILURE),
        (b"\x00\x00", Status.PARSE_FAILURE),  # field number 0
        (b"\x0b\x0c", Status.PARSE_FAILURE),  # a group
        (b"\x0a" + b"\xff" * 9 + b"\x01", Status.PARSE_FAILURE),  # a size of 2^64 - 1
        (b"\x0a" + b"\x80" * 10 + b"\x01", Status.PARSE_FAILURE),  # a number that does not end
        (b"", Status.BAD_ARGUMENT),
        (envoy(), Status.BAD_ARGUMENT),
        (field(3, b""), Status.BAD_ARGUMENT),
        (field(2, field(1, "127.0.0.1:1")), Status.BAD_ARGUMENT),  # google_grpc
        (SVC + field(2, b""), Status.BAD_ARGUMENT),  # the last target counts
        (envoy(field(1, "other")), Status.INTERNAL_FAILURE),
    ],
)
def test_what_is_refused(service: bytes, status: Status) -> None:
    assert read(service) is status


@pytest.mark.protobufs
def test_messages_of_the_official_library() -> None:
    from envoy.config.core.v3.grpc_service_pb2 import GrpcService  # type: ignore[import-untyped]  # it has no types

    message = GrpcService()
    message.envoy_grpc.cluster_name = "svc"
    message.envoy_grpc.authority = "a"
    message.envoy_grpc.max_receive_message_length.value = 77
    message.timeout.FromMilliseconds(2345)
    message.initial_metadata.add(key="k", value="v")
    expected = GrpcTarget("svc", "a", 2345, ((b"k", b"v"),), 77)
    assert read(message.SerializeToString()) == expected
