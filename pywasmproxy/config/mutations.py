"""Header mutations: what routes, virtual hosts and route tables add and remove.

Field tables after envoy.config.core.v3 (base.proto). Pseudo-headers and `host` cannot be changed this way.
"""

from __future__ import annotations

import re
from typing import Any

from pywasmproxy.config.access_log import checked_format
from pywasmproxy.config.model_routes import NO_MUTATIONS, AppendAction, HeaderAddition, HeaderMutations
from pywasmproxy.config.schema import Cursor, Kind, Message, boolean, enum, later, repeated, text

HEADER_VALUE = Message(
    "envoy.config.core.v3.HeaderValue",
    {"key": later, "value": later},
    notes={"raw_value": "raw_value means nothing here, in Envoy neither: the value is empty"},
    one_of=("value raw_value",),
    required="key",
)

_ACTIONS = " ".join(action.value for action in AppendAction)

HEADER_OPTION = Message(
    "envoy.config.core.v3.HeaderValueOption",
    {
        "header": HEADER_VALUE.read,
        "append": boolean,
        "append_action": enum("append action", _ACTIONS),
        "keep_empty_value": boolean,
    },
    one_of=("append append_action",),
    required="header",
)

_NAME = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def field_name(cursor: Cursor) -> str:
    """The name of a header, in lower case."""
    name = text(cursor)
    if not _NAME.fullmatch(name):
        cursor.fail(f"{name!r} is no name of a header")
    return name.lower()


def _changeable(cursor: Cursor, what: str) -> str:
    name = field_name(cursor)
    if name.startswith(":") or name == "host":
        cursor.fail(f":-prefixed or host headers may not be {what}")
    return name


def addition(cursor: Cursor) -> HeaderAddition:
    """A `HeaderValueOption`."""
    values = HEADER_OPTION.read(cursor)
    header: dict[str, Any] = values["header"]
    if "value" in header:
        value = checked_format(text(header["value"]), header["value"])
    else:
        value = ""
    if re.search(r"[\r\n\0]", value):
        cursor.fail("the value of a header has no line breaks")
    action = AppendAction(values.get("append_action", AppendAction.APPEND_IF_EXISTS_OR_ADD.value))
    if not values.get("append", True):
        action = AppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    name = _changeable(header["key"], "modified")
    return HeaderAddition(name, value, action, values.get("keep_empty_value", False))


def _removed(cursor: Cursor) -> str:
    return _changeable(cursor, "removed")


MUTATION_FIELDS: dict[str, Kind] = {
    "request_headers_to_add": repeated(addition),
    "request_headers_to_remove": repeated(_removed),
    "response_headers_to_add": repeated(addition),
    "response_headers_to_remove": repeated(_removed),
}
"""The four fields that every level has."""


def mutations(values: dict[str, Any]) -> HeaderMutations:
    """What the four fields say."""
    found = HeaderMutations(
        request_remove=values.get("request_headers_to_remove", ()),
        request_add=values.get("request_headers_to_add", ()),
        response_remove=values.get("response_headers_to_remove", ()),
        response_add=values.get("response_headers_to_add", ()),
    )
    return NO_MUTATIONS if found == NO_MUTATIONS else found
