"""Which extension a filter entry asks for: the type URL decides, the `name` is free text.

Handles `typed_config` with the message itself or inside a TypedStruct (udpa and xds spelling), the legacy
`config` of API v2, and an empty or absent `typed_config`, where only the name is left to go by.
"""

from __future__ import annotations

from pywasmproxy.config.document import Mapping
from pywasmproxy.config.schema import Cursor, text

TYPED_STRUCTS = frozenset(("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"))


def message_name(cursor: Cursor) -> str:
    """The full message name in a type URL such as `type.googleapis.com/envoy...Router` (any prefix)."""
    url = text(cursor)
    prefix, slash, name = url.rpartition("/")
    if not slash or not prefix or not name:
        cursor.fail(f"{url!r} is no type URL", f"type.googleapis.com/{name}" if "." in name else None)
    return name


def resolve(typed: Cursor | None, legacy: Cursor | None = None) -> tuple[str | None, Cursor | None]:
    """Message name (None when the entry does not say) and the place of the message's fields (None: empty).

    At most one of the two is given: the tables of filters refuse both.
    """
    if typed is None:
        return None, legacy
    fields = typed.entries()
    url = typed.get("@type")
    if url is None:
        if fields:
            typed.fail("typed_config needs '@type'")
        return None, None
    name = message_name(url)
    if name not in TYPED_STRUCTS:
        return name, typed
    for key, child in fields:
        if key not in ("@type", "type_url", "typeUrl", "value"):
            child.fail(f"unknown field {key!r} in TypedStruct; the message's own fields belong under 'value'")
    inner = typed.get("type_url", "typeUrl")
    value = typed.get("value")
    if value is not None and not isinstance(value.node, Mapping):
        value.expected("a mapping")
    return (message_name(inner) if inner is not None else None), value
