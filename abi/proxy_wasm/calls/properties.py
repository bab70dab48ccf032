"""Properties: the attribute table, its value encodings, and `proxy_get_property` / `proxy_set_property`.

Source: proxy-wasm specification 0.2.1, "Properties", and Envoy's attributes as measured. A path is parts
joined by NUL. The names of Envoy 2021 (`node`, `cluster_name`) and of today (`xds.node`) are both served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from abi.hostcall import Bytes, OutBytes, proxy_call
from abi.proxy_wasm import protobuf
from abi.proxy_wasm.extensions import extensions_of
from abi.proxy_wasm.filter_state import WASM, FilterState, LifeSpan
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import CertificateFacts, StreamInfo, TlsFacts
from abi.proxy_wasm.types import MapType, Status
from abi.proxy_wasm.wire import encode_double, encode_integer, encode_map

if TYPE_CHECKING:
    from abi.proxy_wasm.contexts import Context
    from abi.proxy_wasm.vm import Vm


class _Missing:
    """There is no such attribute, or it has no value now: NOT_FOUND."""


class _Opaque:
    """There is something, but it has no byte form: SERIALIZATION_FAILURE."""


MISSING, OPAQUE = _Missing(), _Opaque()


@dataclass(frozen=True, slots=True)
class Message:
    """A protobuf message: its wire bytes, and its fields for longer paths."""

    wire: bytes
    fields: Mapping[str, object]


Value: TypeAlias = object
Attribute: TypeAlias = Callable[["Context", StreamInfo], Value]


# --- encoding -------------------------------------------------------------------------------------------


def encode(item: Value) -> bytes | Status:
    """The bytes of a value; NOT_FOUND or SERIALIZATION_FAILURE when it has none."""
    if item is MISSING:
        return Status.NOT_FOUND
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8", "surrogateescape")
    if isinstance(item, bool):
        return bytes((item,))
    if isinstance(item, int):
        return encode_integer(item)
    if isinstance(item, float):
        return encode_double(item)
    if isinstance(item, Message):
        return item.wire
    if isinstance(item, HeaderMap):
        return encode_map(item.lines)
    if isinstance(item, Mapping):
        return _encode_pairs([(key, value) for key, value in item.items()])
    if isinstance(item, Sequence):
        return _encode_pairs([(element, b"") for element in item])
    return Status.SERIALIZATION_FAILURE


def _encode_pairs(pairs: Sequence[tuple[object, object]]) -> bytes | Status:
    lines = []
    for left, right in pairs:
        key, value = encode(left), encode(right)
        if isinstance(key, Status) or isinstance(value, Status):
            return Status.SERIALIZATION_FAILURE
        lines.append((key, value))
    return encode_map(lines)


def _number(item: Value) -> Value:
    """JSON numbers of metadata are doubles, whatever Python type the configuration reader gave them."""
    if isinstance(item, int) and not isinstance(item, bool):
        return float(item)
    if isinstance(item, Mapping):
        return {key: _number(value) for key, value in item.items()}
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        return [_number(value) for value in item]
    return OPAQUE if item is None else item


def step(item: Value, part: bytes) -> Value:
    """One more part of a path: into a message, a map, a header map or a list."""
    if isinstance(item, HeaderMap):
        values = item.all_bytes(part)
        return b",".join(values) if values else MISSING
    text = part.decode("utf-8", "surrogateescape")
    if isinstance(item, Message):
        return item.fields.get(text, MISSING)
    if isinstance(item, Mapping):
        return item.get(text, MISSING)
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        return item[int(part)] if part.isdigit() and int(part) < len(item) else MISSING
    return MISSING


# --- building blocks ------------------------------------------------------------------------------------


def _known(item: object | None) -> Value:
    return MISSING if item is None else item


def _request_header(name: bytes) -> Attribute:
    def attribute(context: Context, info: StreamInfo) -> Value:
        fields = context.readable_map(MapType.HTTP_REQUEST_HEADERS)
        return MISSING if fields is None else step(fields, name)

    return attribute


def _fields(map_type: MapType) -> Attribute:
    """A whole map; the empty one when it is not available."""

    def attribute(context: Context, info: StreamInfo) -> Value:
        fields = context.readable_map(map_type)
        return HeaderMap() if fields is None else fields

    return attribute


def _fact(name: str) -> Attribute:
    """A field of `StreamInfo` as it is."""

    def attribute(context: Context, info: StreamInfo) -> Value:
        return _known(getattr(info, name))

    return attribute


def _port(name: str) -> Attribute:
    def attribute(context: Context, info: StreamInfo) -> Value:
        address: str | None = getattr(info, name)
        port = "" if address is None else address.rpartition(":")[2]
        return int(port) if port.isdigit() else MISSING

    return attribute


def _metadata(owner: str, name: str | None) -> Attribute:
    """Metadata of something that is there once `owner` is known; `name` None: it never has any."""

    def attribute(context: Context, info: StreamInfo) -> Value:
        if getattr(info, owner) is None:
            return MISSING
        return _metadata_of(None if name is None else getattr(info, name))

    return attribute


def _metadata_of(namespaces: Mapping[str, object] | None) -> Message:
    namespaces = namespaces or {}
    fields = {"filter_metadata": _number(namespaces), "typed_filter_metadata": {}}
    return Message(protobuf.metadata_message(namespaces), fields)


def _constant(value: Value) -> Attribute:
    return lambda context, info: value


# --- request, response, connection ----------------------------------------------------------------------


def _path(pick: Callable[[bytes], bytes], absent: Value) -> Attribute:
    header, method = _request_header(b":path"), _request_header(b":method")

    def attribute(context: Context, info: StreamInfo) -> Value:
        path = header(context, info)
        if isinstance(path, bytes):
            return pick(path)
        return absent if method(context, info) == b"CONNECT" else MISSING

    return attribute


def _request_size(context: Context, info: StreamInfo) -> Value:
    length = _request_header(b"content-length")(context, info)
    return int(length) if isinstance(length, bytes) and length.isdigit() else info.request_body_size


def _map_size(context: Context, map_type: MapType) -> int:
    fields = context.readable_map(map_type)
    return 0 if fields is None else fields.byte_size


def _request_total_size(context: Context, info: StreamInfo) -> Value:
    return info.request_body_size + _map_size(context, MapType.HTTP_REQUEST_HEADERS)


def _response_total_size(context: Context, info: StreamInfo) -> Value:
    head = _map_size(context, MapType.HTTP_RESPONSE_HEADERS)
    return info.response_body_size + head + _map_size(context, MapType.HTTP_RESPONSE_TRAILERS)


def _code_details(context: Context, info: StreamInfo) -> Value:
    details = info.response_code_details
    return MISSING if details is None else "_".join(details.split(" "))


GRPC_STATUS_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC status of an HTTP response that has none of its own; any other code means UNKNOWN (2)."""


def _grpc_status(context: Context, info: StreamInfo) -> Value:
    for map_type in (MapType.HTTP_RESPONSE_TRAILERS, MapType.HTTP_RESPONSE_HEADERS):
        fields = context.readable_map(map_type)
        given = None if fields is None else fields.first(b"grpc-status")
        if given is not None and given.isdigit():
            return int(given)
    code = info.response_code
    return MISSING if code is None else GRPC_STATUS_OF_HTTP.get(code, 2)


def _once_connected(value: Value) -> Attribute:
    return lambda context, info: MISSING if info.upstream_address is None else value


def _filter_chain_name(context: Context, info: StreamInfo) -> Value:
    return info.filter_chain_name or ""


def _mtls(context: Context, info: StreamInfo) -> Value:
    return info.downstream_tls is not None and info.downstream_tls.peer is not None


def _server_name(context: Context, info: StreamInfo) -> Value:
    return info.requested_server_name or ""


def _first_of(names: tuple[str, ...]) -> Value:
    return names[0] if names else MISSING


def _of_certificate(
    own: bool, pick: Callable[[CertificateFacts], Value], absent: Value
) -> Callable[[TlsFacts], Value]:
    """Something of our certificate, or of the peer's; `absent` where none was shown."""

    def value(tls: TlsFacts) -> Value:
        certificate = tls.local if own else tls.peer
        return absent if certificate is None else pick(certificate)

    return value


OF_TLS: dict[bytes, Callable[[TlsFacts], Value]] = {
    b"tls_version": lambda tls: tls.version,
    b"subject_local_certificate": _of_certificate(True, lambda one: one.subject, ""),
    b"subject_peer_certificate": _of_certificate(False, lambda one: one.subject, ""),
    b"dns_san_local_certificate": _of_certificate(True, lambda one: _first_of(one.dns_names), MISSING),
    b"dns_san_peer_certificate": _of_certificate(False, lambda one: _first_of(one.dns_names), MISSING),
    b"uri_san_local_certificate": _of_certificate(True, lambda one: _first_of(one.uris), MISSING),
    b"uri_san_peer_certificate": _of_certificate(False, lambda one: _first_of(one.uris), MISSING),
    b"sha256_peer_certificate_digest": _of_certificate(False, lambda one: one.sha256, MISSING),
}


def _tls(side: str) -> dict[bytes, Attribute]:
    """What there is to know about the TLS session of one side."""

    def attribute(pick: Callable[[TlsFacts], Value]) -> Attribute:
        def value(context: Context, info: StreamInfo) -> Value:
            tls: TlsFacts | None = getattr(info, side)
            return MISSING if tls is None else pick(tls)

        return value

    return {name: attribute(pick) for name, pick in OF_TLS.items()}


STREAM: dict[bytes, dict[bytes, Attribute]] = {
    b"request": {
        b"path": _path(lambda path: path, MISSING),
        b"url_path": _path(lambda path: path.partition(b"?")[0], b""),
        b"query": _path(lambda path: path.partition(b"?")[2], b""),
        b"host": _request_header(b":authority"),
        b"scheme": _request_header(b":scheme"),
        b"method": _request_header(b":method"),
        b"referer": _request_header(b"referer"),
        b"useragent": _request_header(b"user-agent"),
        b"id": _request_header(b"x-request-id"),
        b"headers": _fields(MapType.HTTP_REQUEST_HEADERS),
        b"protocol": _fact("protocol"),
        b"time": _fact("start_time"),
        b"duration": _fact("request_duration"),
        b"size": _request_size,
        b"total_size": _request_total_size,
    },
    b"response": {
        b"code": _fact("response_code"),
        b"code_details": _code_details,
        b"flags": _fact("response_flags"),
        b"grpc_status": _grpc_status,
        b"headers": _fields(MapType.HTTP_RESPONSE_HEADERS),
        b"trailers": _fields(MapType.HTTP_RESPONSE_TRAILERS),
        b"size": _fact("response_body_size"),
        b"total_size": _response_total_size,
        b"backend_latency": _fact("backend_latency"),
    },
    b"source": {b"address": _fact("source_address"), b"port": _port("source_address")},
    b"destination": {b"address": _fact("destination_address"), b"port": _port("destination_address")},
    b"connection": {
        b"id": _fact("connection_id"),
        b"mtls": _mtls,
        b"requested_server_name": _server_name,
        b"termination_details": _fact("connection_termination_details"),
        **_tls("downstream_tls"),
    },
    b"upstream": {
        b"address": _fact("upstream_address"),
        b"port": _port("upstream_address"),
        b"local_address": _fact("upstream_local_address"),
        b"transport_failure_reason": _fact("upstream_transport_failure_reason"),
        b"request_attempt_count": _fact("upstream_attempt_count"),
        b"cx_pool_ready_duration": _fact("upstream_pool_ready_duration"),
        b"locality": _once_connected(Message(b"", {"region": "", "zone": "", "sub_zone": ""})),
        **_tls("upstream_tls"),
    },
    b"xds": {
        b"cluster_name": _fact("cluster_name"),
        b"cluster_metadata": _metadata("cluster_name", "cluster_metadata"),
        b"route_name": _fact("route_name"),
        b"route_metadata": _metadata("route_name", "route_metadata"),
        b"virtual_host_name": _fact("virtual_host_name"),
        b"virtual_host_metadata": _metadata("virtual_host_name", None),
        b"upstream_host_metadata": _once_connected(OPAQUE),
        b"filter_chain_name": _filter_chain_name,
        b"listener_direction": _fact("listener_direction"),
        b"listener_metadata": _constant(_metadata_of(None)),
    },
}
"""Attributes of a stream in groups; a group's bare name exists but has no byte form."""

ABSENT: Mapping[str, str] = {
    "connection.transport_failure_reason": "a connection whose handshake fails has no exchange to ask",
}
"""Attributes of Envoy's that have no value here, and why: NOT_FOUND at all times."""

OLDER_NAMES = (
    b"cluster_name",
    b"cluster_metadata",
    b"route_name",
    b"route_metadata",
    b"listener_direction",
    b"listener_metadata",
    b"upstream_host_metadata",
)
"""Members of `xds` that Envoy of 2021 had at top level, where filters of that time look for them."""

TOP: dict[bytes, Attribute] = {
    b"connection_id": _fact("connection_id"),
    b"metadata": lambda context, info: _metadata_of(info.dynamic_metadata),
    b"filter_state": lambda context, info: info.filter_state,
    **{name: STREAM[b"xds"][name] for name in OLDER_NAMES},
}
"""Attributes of a stream outside of any group."""


# --- lookup ---------------------------------------------------------------------------------------------


def _plugin_property(context: Context, name: bytes) -> Value:
    plugin = context.plugin
    if name == b"plugin_name":
        return "" if plugin is None else plugin.name
    if name == b"plugin_root_id":
        return "" if plugin is None else plugin.root_id
    return context.vm.vm_id if name == b"plugin_vm_id" else MISSING


def _node(context: Context) -> Value:
    """The proxy's own identity: the exchange's, or what the host knows outside of one."""
    node: Mapping[str, object] = {}
    if context.info is not None:
        node = context.info.node
    if not node:
        node = getattr(context.vm.host, "node", None) or {}
    if not node:
        return MISSING
    metadata, locality = node.get("metadata"), node.get("locality")
    place = locality if isinstance(locality, Mapping) else {}
    fields = {
        "id": node.get("id", ""),
        "cluster": node.get("cluster", ""),
        "metadata": _number(metadata if isinstance(metadata, Mapping) else {}),
        "locality": Message(
            protobuf.locality_message(place),
            {name: place.get(name, "") for name in ("region", "zone", "sub_zone")},
        ),
    }
    return Message(protobuf.node_message(node), fields)


def is_group(context: Context, name: bytes) -> bool:
    """Whether attributes are found behind this name, and nothing else (outside of a stream: `xds`)."""
    return name in STREAM if context.info is not None else name == b"xds"


def attribute(context: Context, group: bytes, name: bytes) -> Value:
    """A member of a group; MISSING when it has none of this name, or has no value now."""
    return _first(context, [group, name])[0]


def variable(context: Context, name: bytes) -> Value:
    """What stands under a name of its own; MISSING when nothing does."""
    return _first(context, [name])[0]


def _first(context: Context, parts: list[bytes]) -> tuple[Value, list[bytes]]:
    """The value of the first one or two parts, and the parts that are left."""
    name, rest = parts[0], parts[1:]
    own = _plugin_property(context, name)
    if own is not MISSING:
        return own, rest
    if name == b"node":
        return _node(context), rest
    if name == b"xds" and rest[:1] == [b"node"]:
        return _node(context), rest[1:]
    info = context.info
    if info is None:  # outside of a stream only `xds` exists as a group
        return (OPAQUE if name == b"xds" and not rest else MISSING), []
    group = STREAM.get(name)
    if group is not None:
        if not rest:
            return OPAQUE, []
        attribute = group.get(rest[0])
        return (MISSING if attribute is None else attribute(context, info)), rest[1:]
    attribute = TOP.get(name)
    if attribute is not None:
        return attribute(context, info), rest
    return _known(info.filter_state.get(WASM + name)), rest


def find(context: Context, path: bytes) -> bytes | Status:
    """The bytes of a property for a context, or why there are none."""
    if not path:
        return Status.SERIALIZATION_FAILURE
    parts = path.removesuffix(b"\0").split(b"\0")
    item, rest = _first(context, parts)
    if parts[:2] == [b"request", b"headers"] and rest and rest[0].lower() == b"host":
        rest[0] = b":authority"
    for part in rest:
        if isinstance(item, FilterState):
            item = _known(item.get(part))
        else:
            item = step(item, part)
    return encode(item)


@proxy_call
def proxy_get_property(vm: Vm, path: Bytes) -> Status | OutBytes:
    """An attribute of the exchange, the connection, the plugin or the proxy."""
    return find(vm.active, path)


@proxy_call
def proxy_set_property(vm: Vm, path: Bytes, value: Bytes) -> Status:
    """Store bytes under the literal path for this exchange; all its filters can read them."""
    context = vm.active
    info = context.info
    if info is None:
        return Status.NOT_FOUND
    declared = None if context.plugin is None else context.plugin.root.declared.get(path)
    name, span = WASM + path, LifeSpan.FILTER_CHAIN
    if declared is not None:
        if declared.read_only and info.filter_state.get(name) is not None:
            return Status.BAD_ARGUMENT
        span = declared.span
    for extension in extensions_of(vm.version):
        command = extension.commands.get(path)
        if command is not None:
            command(context, value)
    return Status.OK if info.filter_state.put(name, value, span) else Status.INTERNAL_FAILURE
