"""gRPC: calls of one message, streams of messages, and how both are ended by the guest.

Source: proxy-wasm specification 0.2.1, "gRPC calls"; statuses as measured on Envoy 1.40. The two low bits of
an id tell its kind (`callouts.py`). A call leaves through `Vm.deferred`; what comes of it arrives at the
plugin's root context (`Plugin.grpc_message` and its neighbours), whoever asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, Bytes, OutId, proxy_call
from abi.proxy_wasm.callouts import GRPC_CALL, GRPC_STREAM, SEND_COST, Call
from abi.proxy_wasm.calls.http_fields import clean
from abi.proxy_wasm.deferred import GrpcCall, GrpcClose, GrpcSend, GrpcStream
from abi.proxy_wasm.grpc_service import GrpcTarget, read_target
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.wire import decode_map

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


def _prepared(vm: Vm, service: bytes, *texts: bytes) -> GrpcTarget | Status:
    """What calls and streams have in common before they begin; `texts` go on the wire as they are."""
    refusal = getattr(vm.host, "refuses_grpc", str)()
    if refusal:
        vm.host_error(refusal)
        return Status.INTERNAL_FAILURE
    target = read_target(service, vm.host.has_cluster)
    if isinstance(target, Status):
        return target
    lines = (text for line in target.metadata for text in line)
    return target if all(map(clean, (*texts, *lines))) else Status.BAD_ARGUMENT


@proxy_call
def proxy_grpc_call(
    vm: Vm,
    service: Bytes,
    service_name: Bytes,
    method: Bytes,
    initial_metadata: Bytes,
    message: Bytes,
    timeout: U32,
) -> Status | OutId:
    """Call a method with one message; the call's id.

    `timeout` is in ms. 0 is the `timeout` of the service, or none; Envoy lets such a call fail at once.
    INTERNAL_FAILURE when the VM has too many calls under way.
    """
    lines = decode_map(initial_metadata)
    target = _prepared(vm, service, service_name, method, *(text for line in lines for text in line))
    if isinstance(target, Status):
        return target
    plugin = vm.active.plugin
    size = len(message) + len(initial_metadata) + len(service)
    token = None if plugin is None else vm.calls.begin(GRPC_CALL, plugin, size)
    if plugin is None or token is None:
        return Status.INTERNAL_FAILURE
    limit = timeout or target.timeout_ms
    vm.deferred.append(
        GrpcCall(plugin, token, target, service_name, method, HeaderMap(lines), message, limit)
    )
    return token


@proxy_call
def proxy_grpc_stream(
    vm: Vm, service: Bytes, service_name: Bytes, method: Bytes, initial_metadata: Bytes
) -> Status | OutId:
    """Open a stream of messages; its id."""
    lines = decode_map(initial_metadata)
    target = _prepared(vm, service, service_name, method, *(text for line in lines for text in line))
    if isinstance(target, Status):
        return target
    plugin = vm.active.plugin
    size = len(initial_metadata) + len(service)
    token = None if plugin is None else vm.calls.begin(GRPC_STREAM, plugin, size)
    if plugin is None or token is None:
        return Status.INTERNAL_FAILURE
    vm.deferred.append(GrpcStream(plugin, token, target, service_name, method, HeaderMap(lines)))
    return token


@proxy_call
def proxy_grpc_send(vm: Vm, token: U32, message: Bytes, end_of_stream: U32) -> Status:
    """Send a message on a stream, an empty one too; ignored when the stream has ended on either side.

    INTERNAL_FAILURE when too much waits to be sent.
    """
    if token & 3 != GRPC_STREAM:
        return Status.BAD_ARGUMENT
    call = _find(vm, token)
    if call is None:
        return Status.NOT_FOUND
    if call.ended_here or call.ended_there:
        return Status.OK
    if not vm.calls.hold(call, len(message) + SEND_COST):
        return Status.INTERNAL_FAILURE
    call.ended_here = bool(end_of_stream)
    vm.deferred.append(GrpcSend(call.plugin, token, message, call.ended_here))
    return Status.OK


@proxy_call
def proxy_grpc_close(vm: Vm, token: U32) -> Status:
    """Send nothing more on a stream; give a call up."""
    if token & 3 not in (GRPC_CALL, GRPC_STREAM):
        return Status.BAD_ARGUMENT
    call = _find(vm, token)
    if call is None:
        return Status.NOT_FOUND
    if call.kind == GRPC_CALL:
        vm.calls.give_up(call, vm.deferred)
    elif call.ended_there:
        vm.calls.end(token)
    elif not call.ended_here:
        call.ended_here = True
        vm.deferred.append(GrpcClose(call.plugin, token))
    return Status.OK


@proxy_call
def proxy_grpc_cancel(vm: Vm, token: U32) -> Status:
    """Give a call or stream up; no callback about it follows."""
    if token & 3 not in (GRPC_CALL, GRPC_STREAM):
        return Status.BAD_ARGUMENT
    call = _find(vm, token)
    if call is None:
        return Status.NOT_FOUND
    vm.calls.give_up(call, vm.deferred)
    return Status.OK


def _find(vm: Vm, token: int) -> Call | None:
    """A call of the acting context's plugin."""
    plugin = vm.active.plugin
    return None if plugin is None else vm.calls.find(plugin, token)
