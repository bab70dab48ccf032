"""Secrets that are written apart: in `static_resources.secrets`, or in files of their own (SDS).

Field tables after envoy.extensions.transport_sockets.tls.v3 (secret.proto). A file with secrets is one of the
configuration's like any other: it is watched, and a change of it is refused or put to use with all the rest.
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config import discovery
from pywasmproxy.config.limits import suggest
from pywasmproxy.config.schema import Cursor, Message, anything, later, text

_NAME = "envoy.extensions.transport_sockets.tls.v3"

SECRET = Message(
    f"{_NAME}.Secret",
    {
        "name": text,
        "tls_certificate": later,
        "validation_context": later,
        "session_ticket_keys": anything,  # nothing asks for these
        "generic_secret": anything,
    },
    one_of=("tls_certificate validation_context session_ticket_keys generic_secret",),
)

SDS_CONFIG = Message(f"{_NAME}.SdsSecretConfig", {"name": text, "sds_config": later}, required="name")


def static_secrets(cursor: Cursor) -> None:
    """Note where a `Secret` of the bootstrap is, for those that ask for it by name."""
    name: str = SECRET.read(cursor).get("name", "")
    known = cursor.context.secrets
    if name in known:
        cursor.fail(f"secret name {name!r} is taken already")
    known[name] = cursor


def secret(cursor: Cursor, kind: str) -> Cursor | None:
    """What an `SdsSecretConfig` stands for, of a kind: a `tls_certificate` or a `validation_context`.

    None for secrets that a server would have to send; then there has been a warning.
    """
    values: dict[str, Any] = SDS_CONFIG.read(cursor)
    name: str = values["name"]
    if "sds_config" in values:
        found = discovery.named(values["sds_config"], "Secret", name)
        if found is None:
            return None
    else:
        known = cursor.context.secrets
        if name not in known:
            cursor.fail(f"unknown secret {name!r}", suggest(name, sorted(known)))
        found = known[name]
    place: Cursor | None = SECRET.read(found).get(kind)
    if place is None:
        found.fail(f"secret {name!r} has no {kind!r}, which is wanted of it at {cursor.path}")
    return place
