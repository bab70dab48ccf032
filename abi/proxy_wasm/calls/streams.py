"""What a filter does to the exchange as a whole: continue, close, answer by itself, choose the route again.

Source: proxy-wasm specification 0.2.1, "HTTP streams" and "TCP streams"; all of these take effect after the
callback, in call order (`deferred.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import I32, U32, Bytes, proxy_call
from abi.proxy_wasm.calls.http_fields import clean
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status, StreamType
from abi.proxy_wasm.wire import decode_map

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


def _continue(vm: Vm, stream_type: int) -> Status:
    if stream_type > StreamType.UPSTREAM:
        return Status.BAD_ARGUMENT
    if stream_type == StreamType.UPSTREAM:
        return Status.UNIMPLEMENTED
    return vm.active.continue_stream(StreamType(stream_type))


@proxy_call
def proxy_continue_stream(vm: Vm, stream_type: U32) -> Status:
    """Resume a paused direction."""
    return _continue(vm, stream_type)


@proxy_call
def proxy_continue_request(vm: Vm) -> Status:
    """0.1.0's spelling of continuing the request."""
    return _continue(vm, StreamType.HTTP_REQUEST)


@proxy_call
def proxy_continue_response(vm: Vm) -> Status:
    """0.1.0's spelling of continuing the response."""
    return _continue(vm, StreamType.HTTP_RESPONSE)


@proxy_call
def proxy_close_stream(vm: Vm, stream_type: U32) -> Status:
    """End the exchange without a response (0, 1), or the connection after what was sent is out (2, 3).

    The kinds of the other protocol do nothing.
    """
    if stream_type > StreamType.UPSTREAM:
        return Status.BAD_ARGUMENT
    vm.active.close_stream(StreamType(stream_type))
    return Status.OK


@proxy_call
def proxy_clear_route_cache(vm: Vm) -> Status:
    """0.1.0: choose the route again; later versions do it through a foreign function."""
    vm.active.clear_route_cache()
    return Status.OK


@proxy_call
def proxy_send_local_response(
    vm: Vm, status: U32, details: Bytes, body: Bytes, headers: Bytes, grpc_status: I32
) -> Status:
    """Answer the client from here. Ignored outside of a stream, and when there was an answer before."""
    lines = [(name, value) for name, value in decode_map(headers) if name.lower() != b":status"]
    if not all(clean(name) and clean(value) for name, value in lines):
        return Status.BAD_ARGUMENT
    grpc = None if grpc_status == -1 else grpc_status
    vm.active.send_local_response(status, details, body, HeaderMap(lines), grpc)
    return Status.OK
