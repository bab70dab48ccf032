"""`local_reply_config`: how the proxy's own answers look.

Field tables after envoy.extensions.filters.network.http_connection_manager.v3.
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config.access_log import FORMAT, log_filter, log_format
from pywasmproxy.config.common import data_source
from pywasmproxy.config.model_manager import BodyFormat, LocalReplies, ReplyMapper
from pywasmproxy.config.mutations import addition
from pywasmproxy.config.schema import Cursor, Message, integer, later, repeated

_NAME = "envoy.extensions.filters.network.http_connection_manager.v3"

MAPPER = Message(
    f"{_NAME}.ResponseMapper",
    {
        "filter": later,
        "status_code": integer(200, 599),
        "body": data_source,
        "body_format_override": later,
        "headers_to_add": repeated(addition),
    },
    required="filter",
)

REPLIES = Message(f"{_NAME}.LocalReplyConfig", {"mappers": repeated(later), "body_format": later})


def _format(cursor: Cursor) -> BodyFormat:
    values: dict[str, Any] = log_format(cursor)
    kind = "application/json" if "json" in values else "text/plain"
    return BodyFormat(**values, content_type=FORMAT.read(cursor).get("content_type") or kind)


def _mapper(cursor: Cursor) -> ReplyMapper:
    values = MAPPER.read(cursor)
    body, _ = values.get("body", (None, None))
    override: Cursor | None = values.get("body_format_override")
    return ReplyMapper(
        filter=log_filter(values["filter"]),
        status=values.get("status_code"),
        body=body,
        format=None if override is None else _format(override),
        headers=values.get("headers_to_add", ()),
    )


def local_replies(cursor: Cursor) -> LocalReplies:
    """A `LocalReplyConfig`."""
    values = REPLIES.read(cursor)
    default: Cursor | None = values.get("body_format")
    mappers = tuple(_mapper(place) for place in values.get("mappers", ()))
    return LocalReplies(mappers, None if default is None else _format(default))
