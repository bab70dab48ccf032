"""Parts that several messages use: addresses, data sources, node, metadata, HTTP/1 options.

Field tables after envoy.config.core.v3 (address.proto, base.proto, protocol.proto).
"""

from __future__ import annotations

import ipaddress
from importlib.util import find_spec
from typing import Any

from pywasmproxy.config.anyvalue import base64_bytes
from pywasmproxy.config.model import Address, Http1Options, Http2Options, Node
from pywasmproxy.config.model_manager import Underscores
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    integer,
    later,
    struct,
    text,
    timeout,
)

SOCKET_ADDRESS = Message(
    "envoy.config.core.v3.SocketAddress",
    {
        "protocol": enum("protocol", "TCP UDP"),
        "address": text,
        "port_value": integer(0, 65535),
        "named_port": later,
        "ipv4_compat": anything,
    },
    ignored="resolver_name network_namespace_filepath",
    one_of=("port_value named_port",),
    required="address",
)

ADDRESS = Message(
    "envoy.config.core.v3.Address",
    {"socket_address": SOCKET_ADDRESS.read, "pipe": later, "envoy_internal_address": later},
    one_of=("socket_address pipe envoy_internal_address",),
)


def address(cursor: Cursor, otherwise: str) -> Address | None:
    """A TCP address; for another kind None, after a warning that says what happens `otherwise`."""
    values = ADDRESS.read(cursor)
    if not values:
        cursor.fail("needs 'socket_address'")
    found: dict[str, Any] | None = values.get("socket_address")
    if found is None:
        cursor.warn(f"addresses of kind {next(iter(values))} are not supported yet: {otherwise}")
        return None
    if found.get("protocol") == "UDP":
        cursor.warn(f"UDP is not supported: {otherwise}")
        return None
    if "named_port" in found:
        cursor.warn(f"named ports are not supported: {otherwise}")
        return None
    if "port_value" not in found:
        cursor.fail("socket_address needs 'port_value'")
    return Address(found["address"], found["port_value"])


def require_ip(host: str, cursor: Cursor, advice: str = "") -> None:
    """An error unless `host` is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        cursor.fail(f"malformed IP address: {host}{advice}")


DATA_SOURCE = Message(
    "envoy.config.core.v3.DataSource",
    {
        "filename": later,
        "inline_bytes": base64_bytes,
        "inline_string": text,
        "environment_variable": later,
        "watched_directory": anything,  # all files are watched
    },
    one_of=("filename inline_bytes inline_string environment_variable",),
)


def data_source(cursor: Cursor) -> tuple[bytes, str | None]:
    """Content, and the file name it came from. Files are relative to the working directory, as in Envoy."""
    values = DATA_SOURCE.read(cursor)
    if "filename" in values:
        name = text(values["filename"])
        return cursor.context.read_file(name, values["filename"]), name
    if "inline_bytes" in values:
        content: bytes = values["inline_bytes"]
        return content, None
    if "inline_string" in values:
        return values["inline_string"].encode(), None
    if "environment_variable" in values:
        place: Cursor = values["environment_variable"]
        variable = text(place)
        if variable not in cursor.context.environ:
            place.fail(f"environment variable {variable} is not set")
        return cursor.context.environ[variable].encode(), None
    cursor.fail("needs one of filename, inline_bytes, inline_string, environment_variable")


LOCALITY = Message("envoy.config.core.v3.Locality", {"region": text, "zone": text, "sub_zone": text})

NODE = Message(
    "envoy.config.core.v3.Node",
    {"id": text, "cluster": text, "metadata": struct, "locality": LOCALITY.read},
    ignored="dynamic_parameters user_agent_name user_agent_version user_agent_build_version extensions "
    "client_features listening_addresses build_version",
    legacy="build_version",
)


def node(cursor: Cursor) -> Node:
    values = NODE.read(cursor)
    return Node(
        id=values.get("id", ""),
        cluster=values.get("cluster", ""),
        metadata=values.get("metadata", {}),
        **values.get("locality", {}),
    )


METADATA = Message(
    "envoy.config.core.v3.Metadata", {"filter_metadata": struct}, ignored="typed_filter_metadata"
)


def metadata(cursor: Cursor) -> dict[str, object]:
    """The free part of a `Metadata` message."""
    found: dict[str, object] = METADATA.read(cursor).get("filter_metadata", {})
    return found


_HTTP1_IGNORED = (
    "allow_absolute_url header_key_format allow_chunked_length override_stream_error_on_invalid_http_message "
    "send_fully_qualified_url use_balsa_parser allow_custom_methods ignore_http_11_upgrade"
)

HTTP1_DOWNSTREAM = Message(
    "envoy.config.core.v3.Http1ProtocolOptions",
    {"enable_trailers": boolean, "accept_http_10": boolean, "default_host_for_http_10": text},
    ignored=_HTTP1_IGNORED,
    harmless={"allow_absolute_url": (True,)},
)

HTTP1_UPSTREAM = Message(
    "envoy.config.core.v3.Http1ProtocolOptions",
    {"enable_trailers": boolean, "accept_http_10": anything, "default_host_for_http_10": anything},
    ignored=_HTTP1_IGNORED,
    harmless={"allow_absolute_url": (True, False)},
)


def http1_downstream(cursor: Cursor) -> Http1Options:
    return Http1Options(**HTTP1_DOWNSTREAM.read(cursor))


def http1_upstream(cursor: Cursor) -> Http1Options:
    return Http1Options(enable_trailers=HTTP1_UPSTREAM.read(cursor).get("enable_trailers", False))


_WINDOW = integer(65535, (1 << 31) - 1)
HTTP2_UPSTREAM = Message(
    "envoy.config.core.v3.Http2ProtocolOptions",
    {
        "max_concurrent_streams": integer(1, (1 << 31) - 1),
        "initial_stream_window_size": _WINDOW,
        "initial_connection_window_size": _WINDOW,
        "allow_metadata": anything,  # is of no use to HTTP/1.1 clients
        # limits against clients that flood
        "max_inbound_priority_frames_per_stream": anything,
        "max_inbound_window_update_frames_per_data_frame_sent": anything,
        "use_oghttp2_codec": anything,
    },
    ignored="hpack_table_size allow_connect max_outbound_frames max_outbound_control_frames "
    "max_consecutive_inbound_frames_with_empty_payload stream_error_on_invalid_http_messaging "
    "override_stream_error_on_invalid_http_message custom_settings_parameters connection_keepalive "
    "max_metadata_size",
    harmless={"allow_connect": (False,)},
)

_NO_HTTP2 = "the package h2 is not installed (pip install 'pywasmvm[h2]'): HTTP/1.1 is spoken"


def http2_upstream(cursor: Cursor) -> Http2Options | None:
    """`Http2ProtocolOptions`; None, after a warning, where the library is missing."""
    values = HTTP2_UPSTREAM.read(cursor)
    values = {name: value for name, value in values.items() if value is not None}
    if find_spec("h2") is None:
        cursor.warn(_NO_HTTP2)
        return None
    return Http2Options(**values)


_UNDERSCORES = enum(
    "action on underscores in names of headers", " ".join(choice.value for choice in Underscores)
)

HTTP_DOWNSTREAM = Message(
    "envoy.config.core.v3.HttpProtocolOptions",
    {
        "idle_timeout": timeout,
        "max_headers_count": integer(1, (1 << 32) - 1),
        "headers_with_underscores_action": _UNDERSCORES,
        "max_requests_per_connection": UINT32,
        "max_connection_duration": timeout,
    },
    ignored="max_response_headers_kb max_stream_duration",
)

HTTP_UPSTREAM = Message(
    "envoy.config.core.v3.HttpProtocolOptions",
    {"idle_timeout": timeout, "headers_with_underscores_action": anything},  # that is about requests
    ignored="max_connection_duration max_response_headers_kb max_stream_duration "
    "max_requests_per_connection max_headers_count",
)

TRANSPORT_SOCKET = Message(
    "envoy.config.core.v3.TransportSocket",
    {"name": text, "typed_config": later},
    ignored="config",
    legacy="config",
)
