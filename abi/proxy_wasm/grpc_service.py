"""`GrpcTarget`: where a guest's gRPC calls go, read from the `GrpcService` message (or the name) it gives.

Source: envoy.config.core.v3.GrpcService, of which `envoy_grpc`, `timeout` and `initial_metadata` are used;
which input counts as what is as measured on Envoy 1.40 (a target that is missing crashes it; here it is an
error). Only clusters of the proxy can be called: `google_grpc`, which names an address, cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from abi.proxy_wasm.protobuf import read_fields
from abi.proxy_wasm.types import Status

# Field numbers
_ENVOY_GRPC, _GOOGLE_GRPC, _TIMEOUT, _INITIAL_METADATA = 1, 2, 3, 5
_CLUSTER_NAME, _AUTHORITY, _MAX_RECEIVE = 1, 2, 4

_LONGEST_MS = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class GrpcTarget:
    """A cluster, and what goes with every call to it. For `timeout_ms` and `max_receive`, 0 is no limit."""

    cluster: str
    authority: str
    timeout_ms: int = 0
    metadata: tuple[tuple[bytes, bytes], ...] = ()
    max_receive: int = 0


def read_target(service: bytes, has_cluster: Callable[[str], bool]) -> GrpcTarget | Status:
    """The target a guest means. PARSE_FAILURE: neither a message nor a cluster; BAD_ARGUMENT: a message
    without a target that we can call; INTERNAL_FAILURE: its cluster does not exist."""
    try:
        found = _read_message(service)
    except ValueError:
        found = Status.PARSE_FAILURE
    if isinstance(found, Status):
        # Some names happen to be messages, too, though empty ones.
        name = service.decode("utf-8", "surrogateescape")
        return GrpcTarget(name, name) if has_cluster(name) else found
    return found if has_cluster(found.cluster) else Status.INTERNAL_FAILURE


def _read_message(data: bytes) -> GrpcTarget | Status:
    """ValueError when it is no `GrpcService`."""
    cluster = authority = ""
    timeout = limit = 0
    metadata: list[tuple[bytes, bytes]] = []
    for number, value in read_fields(data):
        if number in (_ENVOY_GRPC, _GOOGLE_GRPC, _TIMEOUT, _INITIAL_METADATA):
            if not isinstance(value, bytes):
                raise ValueError(f"field {number} is no message")
            inner = read_fields(value)
        else:
            continue
        if number == _ENVOY_GRPC:
            for field, content in inner:
                if field in (_CLUSTER_NAME, _AUTHORITY):
                    text = _text(content).decode()  # a UnicodeDecodeError is a ValueError
                    cluster, authority = (text, authority) if field == _CLUSTER_NAME else (cluster, text)
                elif field == _MAX_RECEIVE:
                    limit = _wrapped(content)
        elif number == _GOOGLE_GRPC:
            cluster = ""  # a message has one target, the last one
        elif number == _TIMEOUT:
            timeout = _milliseconds(inner)
        else:
            line = {field: _text(content) for field, content in inner if field in (1, 2, 3)}
            metadata.append((line.get(1, b"").lower(), line.get(3) or line.get(2, b"")))
    if not cluster:
        return Status.BAD_ARGUMENT
    return GrpcTarget(cluster, authority or cluster, timeout, tuple(metadata), limit)


def _text(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text belongs")
    return value


def _wrapped(value: int | bytes) -> int:
    """`google.protobuf.UInt32Value`."""
    numbers = [number for field, number in read_fields(_text(value)) if field == 1]
    return numbers[-1] if numbers and isinstance(numbers[-1], int) else 0


def _milliseconds(fields: list[tuple[int, int | bytes]]) -> int:
    """`google.protobuf.Duration`; nothing below zero."""
    parts = {field: value for field, value in fields if isinstance(value, int)}
    seconds, nanoseconds = parts.get(1, 0), parts.get(2, 0)
    if seconds >= 1 << 63 or nanoseconds >= 1_000_000_000:
        return 0
    return min(seconds * 1000 + nanoseconds // 1_000_000, _LONGEST_MS)
