"""A `google.protobuf.Any` in a plugin configuration, turned into the bytes the guest reads.

StringValue and BytesValue give their content, Struct gives JSON text in written order (or wire bytes, on
request), everything else the wire bytes of the message. Forms only found in older files are understood as
well: a bare string, and a StringValue that holds a mapping.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable

from pywasmproxy.config import document, wire
from pywasmproxy.config.extension import TYPED_STRUCTS, message_name
from pywasmproxy.config.limits import suggest
from pywasmproxy.config.schema import Cursor, boolean, duration_parts, integer, struct, text

_PREFIX = "google.protobuf."


def configuration(cursor: Cursor) -> bytes:
    """What `proxy_on_configure` (or `proxy_on_vm_start`) announces for this value."""
    if isinstance(cursor.node, document.Scalar):
        return text(cursor).encode()
    if not cursor.entries():
        return b""
    name, value = _split(cursor)
    if name == _PREFIX + "StringValue":
        if value is not None and isinstance(value.node, document.Mapping):
            return json_text(value)
        return b"" if value is None else text(value).encode()
    if name == _PREFIX + "BytesValue":
        return b"" if value is None else base64_bytes(value)
    if name == _PREFIX + "Struct" and not cursor.context.wire_structs:
        return json_text(value) if value is not None and struct(value) else b""
    return message_bytes(name, cursor, value)


def json_text(cursor: Cursor) -> bytes:
    """Compact JSON, keys in written order, characters outside ASCII as themselves."""
    plain = document.plain(cursor.node)
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()


def base64_bytes(cursor: Cursor) -> bytes:
    """The bytes of a base64 text, standard or URL alphabet, padding optional."""
    written = text(cursor).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(written + "=" * (-len(written) % 4), validate=True)
    except (binascii.Error, ValueError):
        cursor.fail("this is no base64 text")


def message_bytes(name: str, cursor: Cursor, value: Cursor | None) -> bytes:
    """Wire bytes of the well-known message `name`, whose `value` key (if there is one) is at `value`."""
    if name in TYPED_STRUCTS:
        url = cursor.get("type_url", "typeUrl")
        fields = None if value is None else struct(value)
        return wire.typed_struct("" if url is None else text(url), fields)
    encode = _ENCODERS.get(name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else "")
    if encode is None:
        known = [_PREFIX + short for short in _ENCODERS] + sorted(TYPED_STRUCTS)
        cursor.fail(f"a configuration of type {name} is not supported", suggest(name, known))
    if name == _PREFIX + "Empty" and value is not None:
        value.fail("unknown field 'value' in Empty")
    if value is None and name == _PREFIX + "Value":
        return wire.value(None)
    return b"" if value is None else encode(value)


def _split(cursor: Cursor) -> tuple[str, Cursor | None]:
    """Message name and place of `value`; other keys are refused."""
    url = cursor.get("@type")
    if url is None:
        cursor.fail("a configuration needs '@type', for example type.googleapis.com/google.protobuf.Struct")
    name = message_name(url)
    allowed = ("@type", "value", "type_url", "typeUrl") if name in TYPED_STRUCTS else ("@type", "value")
    for key, child in cursor.entries():
        if key not in allowed:
            child.fail(f"unknown field {key!r} in {name}; its content belongs under 'value'")
    return name, cursor.get("value")


def _any(cursor: Cursor) -> bytes:
    url = cursor.get("@type")
    name, value = _split(cursor)
    inner = message_bytes(name, cursor, value)
    return wire.any_value("" if url is None else text(url), inner)


def _number(cursor: Cursor) -> float:
    node = cursor.node
    if isinstance(node, document.Scalar):
        special = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.get(node.text)
        if special is not None:
            return special
        found = document.resolve(node.text, quoted=False)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return float(found)
    cursor.expected("a number")


def _float(cursor: Cursor) -> bytes:
    try:
        return wire.float_value(_number(cursor))
    except OverflowError:
        cursor.fail("the number is too large for a FloatValue")


def _list(cursor: Cursor) -> bytes:
    if not isinstance(cursor.node, document.Sequence):
        cursor.expected("a list")
    return wire.list_value([document.plain(item.node) for item in cursor.items()])


def _integer(low: int, high: int) -> Callable[[Cursor], bytes]:
    read = integer(low, high)
    return lambda cursor: wire.integer_value(read(cursor))


_ENCODERS: dict[str, Callable[[Cursor], bytes]] = {
    "StringValue": lambda cursor: wire.string_value(text(cursor)),
    "BytesValue": lambda cursor: wire.bytes_value(base64_bytes(cursor)),
    "Int32Value": _integer(-(1 << 31), (1 << 31) - 1),
    "UInt32Value": _integer(0, (1 << 32) - 1),
    "Int64Value": _integer(-(1 << 63), (1 << 63) - 1),
    "UInt64Value": _integer(0, (1 << 64) - 1),
    "BoolValue": lambda cursor: wire.integer_value(int(boolean(cursor))),
    "FloatValue": _float,
    "DoubleValue": lambda cursor: wire.double_value(_number(cursor)),
    "Duration": lambda cursor: wire.duration_value(*duration_parts(cursor)),
    "Struct": lambda cursor: wire.struct_value(struct(cursor)),
    "Value": lambda cursor: wire.value(document.plain(cursor.node)),
    "ListValue": _list,
    "Empty": lambda cursor: b"",
    "Any": _any,
}
