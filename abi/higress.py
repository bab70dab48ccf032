"""Higress' extension of the ABI, version 0.2.100: Redis calls, bodies out of turn, choice of upstream hosts.

An add-on on the means that every package has (`abi.proxy_wasm.extensions`): nothing of the core knows of it.
Source: what Higress' SDKs send and read, and Higress' host for statuses: a call belongs to the root context,
its token ends in binary 11, the answer's bytes are in buffer 9 as Redis sent them, and a call without an
answer has status 1 and the status 11, "reset", of failed HTTP calls. Where this host differs: each plugin has
connections of its own, and a query must be one command, because anything else would mix up the answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from abi.hostcall import U32, Bytes, HostCall, OutBytes, OutToken, proxy_call
from abi.proxy_wasm.callouts import FURTHER_CALL, Answer
from abi.proxy_wasm.calls.buffers import MAX_BODY
from abi.proxy_wasm.contexts import HttpContext
from abi.proxy_wasm.deferred import CallOut, StreamEffect
from abi.proxy_wasm.extensions import Extension
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status, StreamType
from abi.proxy_wasm.versions import AbiVersion, Callback, HostFunction
from abi.proxy_wasm.wire import encode_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from abi.proxy_wasm.contexts import Context
    from abi.proxy_wasm.plugin import Plugin
    from abi.proxy_wasm.vm import Vm

VERSION = AbiVersion("0_2_100", AbiVersion.V0_2_1, headers_stop_alone=True)

REDIS_CALL_RESPONSE = 9
"""The buffer type of a reply; empty outside of its callback."""

MAX_SETTING = 1 << 16
"""Bytes of a cluster's name, a user's name or a password."""

MAX_WORDS = 1 << 20
"""Words of one command, as many as Redis takes."""

OK, NETWORK_ERROR = 0, 1
"""What the callback is told."""

DEFAULT_TIMEOUT_MS = 1000
"""For plugins that call without `proxy_redis_init`."""


# --- Redis ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RedisInit(CallOut):
    """How a plugin's calls to a cluster log in from now on. The token is that of all this plugin has to do
    with this cluster, and lasts as long as the plugin.

    `timeout_ms` is for a connection and for each answer, 0 is none. `database` is selected when there is one.
    """

    cluster: str
    user: bytes = b""
    password: bytes = b""
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    database: int | None = None


@dataclass(frozen=True, slots=True)
class RedisCall(CallOut):
    """Send a command; `answered` or `failed` ends it. `session` is the token of its `RedisInit`."""

    session: int
    query: bytes


def answered(plugin: Plugin, token: int, reply: bytes) -> None:
    """Bring a reply to the plugin, as Redis sent it. For this and `failed`: see `Plugin.deliver`."""
    answer = Answer(buffers={REDIS_CALL_RESPONSE: reply})
    plugin.deliver(token, "proxy_on_redis_call_response", answer, OK, len(reply), ends=True)


def failed(plugin: Plugin, token: int) -> None:
    """There will be no reply: no connection, it broke off, or it took too long."""
    status = (int(Status.BROKEN_CONNECTION), b"reset")
    name = "proxy_on_redis_call_response"
    plugin.deliver(token, name, Answer(), NETWORK_ERROR, 0, ends=True, status=status)


def _target(vm: Vm, target: bytes) -> tuple[str, dict[bytes, bytes]] | None:
    """Cluster and parameters of `cluster?db=1`; None when there is no such cluster."""
    name, _, query = target.partition(b"?")
    cluster = name.decode("utf-8", "surrogateescape")
    pairs = (part.partition(b"=") for part in query.split(b"&") if part)
    return (cluster, {key: value for key, _, value in pairs}) if vm.host.has_cluster(cluster) else None


_sessions: WeakKeyDictionary[Plugin, dict[str, int]] = WeakKeyDictionary()


def _session(plugin: Plugin, cluster: str) -> tuple[int | None, bool]:
    """The token of a plugin's session with a cluster (None: too many calls), and whether it is new."""
    known = _sessions.setdefault(plugin, {})
    token = known.get(cluster)
    if token is not None and plugin.vm.calls.find(plugin, token) is not None:
        return token, False
    token = plugin.vm.calls.begin(FURTHER_CALL, plugin, 3 * MAX_SETTING, lasting=True)
    if token is not None:
        known[cluster] = token
    return token, True


@proxy_call
def proxy_redis_init(vm: Vm, target: Bytes, user: Bytes, password: Bytes, timeout: U32) -> Status:
    """Say how calls to a cluster log in. BAD_ARGUMENT: unknown cluster, or no number after `?db=`.

    `timeout` is in ms, 0 is none. INTERNAL_FAILURE outside of a plugin, for settings that are too long, and
    when the VM has too many calls under way.
    """
    plugin, found = vm.active.plugin, _target(vm, target)
    if found is None:
        return Status.BAD_ARGUMENT
    cluster, parameters = found
    number = parameters.get(b"db", b"")
    if number and (not number.isdigit() or len(number) > 9):
        return Status.BAD_ARGUMENT
    if plugin is None or max(len(target), len(user), len(password)) > MAX_SETTING:
        return Status.INTERNAL_FAILURE
    session, _ = _session(plugin, cluster)
    if session is None:
        return Status.INTERNAL_FAILURE
    if any(isinstance(one, RedisInit) and one.token == session for one in vm.deferred):
        # Only the last one counts: calls in between would be broken off by it anyway.
        kept = [one for one in vm.deferred if not (isinstance(one, RedisInit) and one.token == session)]
        vm.deferred.clear()
        vm.deferred.extend(kept)
    database = int(number) if number else None
    vm.deferred.append(RedisInit(plugin, session, cluster, user, password, timeout, database))
    return Status.OK


def is_command(query: bytes) -> bool:
    """Whether bytes are one command of Redis: an array of words, and nothing behind it."""
    head, found, _ = query[:16].partition(b"\r\n")
    count = head[1:]
    if not found or head[:1] != b"*" or not count.isdigit() or not 0 < int(count) <= MAX_WORDS:
        return False
    at = len(head) + 2
    for _word in range(int(count)):
        end = query.find(b"\r\n", at, at + 16)
        size = query[at + 1 : end] if end >= 0 else b""
        if query[at : at + 1] != b"$" or not size.isdigit():
            return False
        at = end + 2 + int(size) + 2
        if query[at - 2 : at] != b"\r\n":
            return False
    return at == len(query)


@proxy_call
def proxy_redis_call(vm: Vm, target: Bytes, query: Bytes) -> Status | OutToken:
    """Send a command; its token. BAD_ARGUMENT: unknown cluster, or the query is not one command.

    INTERNAL_FAILURE: the cluster has no hosts, the VM has too many calls under way, no plugin is acting.
    """
    plugin, found = vm.active.plugin, _target(vm, target)
    if found is None or not is_command(query):
        return Status.BAD_ARGUMENT
    cluster, _ = found
    hosts = getattr(vm.host, "cluster_hosts", None)
    if plugin is None or (hosts is not None and not hosts(cluster)):
        return Status.INTERNAL_FAILURE
    session, is_new = _session(plugin, cluster)
    if session is None:
        return Status.INTERNAL_FAILURE
    if is_new:  # it lasts, also when there is no room for this call
        vm.deferred.append(RedisInit(plugin, session, cluster))
    token = vm.calls.begin(FURTHER_CALL, plugin, len(query))
    if token is None:
        return Status.INTERNAL_FAILURE
    vm.deferred.append(RedisCall(plugin, token, session, query))
    return token


# --- the exchange -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InjectBody(StreamEffect):
    """Send bytes to the client from this filter on, and complete the response when `end_of_stream`."""

    data: bytearray
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class OverrideHost(StreamEffect):
    """Let the request go to this host of its cluster, if there is such a host."""

    address: str


@proxy_call
def proxy_inject_encoded_data_to_filter_chain(vm: Vm, data: Bytes, end_of_stream: U32) -> Status:
    """Send part of a response's body out of turn, for instance from the answer to a call.

    Ignored outside of an exchange. INTERNAL_FAILURE when too much is waiting for the callback's end.
    """
    context = vm.active
    if not isinstance(context, HttpContext):
        return Status.OK
    last = vm.deferred[-1] if vm.deferred else None
    goes_on = isinstance(last, InjectBody) and last.context is context and not last.end_of_stream
    if goes_on and isinstance(last, InjectBody) and not end_of_stream:
        if len(last.data) + len(data) > MAX_BODY:
            return Status.INTERNAL_FAILURE
        last.data.extend(data)
        return Status.OK
    waiting = sum(len(one.data) + 128 for one in vm.deferred if isinstance(one, InjectBody))
    if waiting + len(data) > MAX_BODY or len(vm.deferred) > 1024:
        return Status.INTERNAL_FAILURE
    vm.deferred.append(InjectBody(context, bytearray(data), bool(end_of_stream)))
    return Status.OK


@proxy_call
def proxy_get_upstream_hosts(vm: Vm) -> Status | OutBytes:
    """The hosts of the route's cluster: a map of addresses to JSON with `health_status` and `metrics`.

    NOT_FOUND outside of an exchange, and without a route to a cluster. There are no health checks here that
    could find a host sick or ask it for metrics, so all are healthy.
    """
    info, hosts = vm.active.info, getattr(vm.host, "cluster_hosts", None)
    if info is None or not info.cluster_name or hosts is None:
        return Status.NOT_FOUND
    state = json.dumps({"health_status": "Healthy", "metrics": ""}).encode()
    lines = [(host.encode(), state) for host in hosts(info.cluster_name)]
    return encode_map(lines) if lines else b""


@proxy_call
def proxy_set_upstream_override_host(vm: Vm, address: Bytes) -> Status:
    """Let the request go to this host (`ip:port`) of its cluster. Ignored when there is no such host, when
    the request is on its way already, and outside of an exchange."""
    context = vm.active
    if not isinstance(context, HttpContext):
        return Status.OK
    if len(address) > MAX_SETTING or len(vm.deferred) > 1024:
        return Status.INTERNAL_FAILURE
    vm.deferred.append(OverrideHost(context, address.decode("utf-8", "replace")))
    return Status.OK


# --- settings by property, and Higress' foreign functions ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepRoute(StreamEffect):
    """Let the request go where these headers lead: those it had when the guest asked."""

    headers: HeaderMap


@dataclass(frozen=True, slots=True)
class LimitBuffer(StreamEffect):
    """Let so many bytes of the request's or response's body wait."""

    stream_type: StreamType
    size: int


def _keep_route(context: Context, value: bytes) -> None:
    if value != b"off" or not isinstance(context, HttpContext) or context.info.request_headers is None:
        return
    queue = context.vm.deferred
    if not any(isinstance(one, KeepRoute) and one.context is context for one in queue):
        queue.append(KeepRoute(context, HeaderMap(context.info.request_headers.lines)))


def _limits(stream_type: StreamType) -> Callable[[Context, bytes], None]:
    def limit(context: Context, value: bytes) -> None:
        if value.isdigit() and len(value) <= 10 and isinstance(context, HttpContext):
            size = min(int(value), MAX_BODY)
            effect = LimitBuffer(context, stream_type, size)
            if effect not in context.vm.deferred and len(context.vm.deferred) <= 1024:
                context.vm.deferred.append(effect)

    return limit


COMMANDS = {
    b"clear_route_cache": _keep_route,
    b"set_decoder_buffer_limit": _limits(StreamType.HTTP_REQUEST),
    b"set_encoder_buffer_limit": _limits(StreamType.HTTP_RESPONSE),
}
"""What guests set as a property of the exchange, and what is done about it. `clear_route_cache` is `off` or
nothing; a limit is a number of bytes in decimal, at most `MAX_BODY` here."""


def get_log_level(context: Context, arguments: bytes) -> bytes:
    """The level below which lines are not shown, as a u32: the SDKs do not format what nobody will see."""
    return int(context.vm.host.log_level).to_bytes(4, "little")


def _function(call: HostCall, signature: str) -> HostFunction:
    return HostFunction("env", call.name, signature, frozenset((VERSION,)), call)


EXTENSION = Extension(
    versions=(VERSION,),
    functions=(
        _function(proxy_redis_init, "i32 i32 i32 i32 i32 i32 i32 -> i32"),
        _function(proxy_redis_call, "i32 i32 i32 i32 i32 -> i32"),
        _function(proxy_inject_encoded_data_to_filter_chain, "i32 i32 i32 -> i32"),
        _function(proxy_get_upstream_hosts, "i32 i32 -> i32"),
        _function(proxy_set_upstream_override_host, "i32 i32 -> i32"),
    ),
    callbacks=(Callback("proxy_on_redis_call_response", "i32 i32 i32 i32 -> ", frozenset((VERSION,))),),
    buffers=frozenset((REDIS_CALL_RESPONSE,)),
    foreign_functions={"get_log_level": get_log_level},
    commands=COMMANDS,
)
