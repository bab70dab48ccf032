"""Operators of format strings that only whoever moves the bytes can answer: hosts, connections, bytes.

What they need is gathered only where a format has one of them (`NEEDS`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Flag, auto
from functools import reduce
from operator import or_
from random import getrandbits
from typing import Any
from uuid import UUID

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.sansio.format_parts import (
    Attempt,
    Facts,
    FormatError,
    Make,
    Moment,
    Origin,
    Read,
    Value,
    Wire,
    host_of,
    without_argument,
)


class Need(Flag):
    """What has to be gathered for a format: which hosts were asked, how many bytes went where."""

    NOTHING = 0
    HOSTS = auto()
    DOWNSTREAM_BYTES = auto()
    UPSTREAM_BYTES = auto()


def _facts(read: Callable[[Facts], Value]) -> Make:
    return without_argument(lambda info, moment: read(moment.facts))


def _last(facts: Facts) -> Attempt | None:
    return facts.attempts[-1] if facts.attempts else None


def _name_of_last(change: Callable[[str], str | None]) -> Make:
    """The name of the host that was asked last, or its address."""

    def read(info: StreamInfo, moment: Moment) -> Value:
        last = _last(moment.facts)
        return change((info.upstream_address if last is None else last.name or last.host) or "") or None

    return without_argument(read)


def _attempted(what: Callable[[Attempt], str | None]) -> Make:
    def read(info: StreamInfo, moment: Moment) -> Value:
        # Envoy does not count a host among those of an HTTP exchange to which there was no connection.
        refused_too = info.protocol is None
        attempts = (one for one in moment.facts.attempts if refused_too or one.connection is not None)
        return ",".join(dict.fromkeys(found for one in attempts if (found := what(one)))) or None

    return without_argument(read)


def _connection(facts: Facts) -> Value:
    last = _last(facts)
    return 0 if last is None or last.connection is None else last.connection


def _upstream_wire(facts: Facts) -> Wire:
    """That of all attempts."""
    names = ("received", "sent", "received_fields", "sent_fields")
    return Wire(*(sum(getattr(one.wire, name) for one in facts.attempts) for name in names))


def _bytes(side: str, of: Callable[[Facts], Wire]) -> dict[str, Make]:
    found = {
        f"{side}_WIRE_BYTES_RECEIVED": _facts(lambda facts: of(facts).received),
        f"{side}_WIRE_BYTES_SENT": _facts(lambda facts: of(facts).sent),
    }
    # HTTP/1 compresses no heads, so both are the same.
    for prefix in (f"{side}_HEADER", f"{side}_DECOMPRESSED_HEADER"):
        found[f"{prefix}_BYTES_RECEIVED"] = _facts(lambda facts: of(facts).received_fields)
        found[f"{prefix}_BYTES_SENT"] = _facts(lambda facts: of(facts).sent_fields)
    return found


def keys_of(argument: str | None) -> list[str]:
    """`namespace:key:key` in its parts; FormatError."""
    if argument and argument.startswith("["):  # the older spelling: ["namespace", "key"]
        try:
            listed = json.loads(argument)
        except ValueError:
            listed = []
        keys = [str(key) for key in listed]
    else:
        keys = (argument or "").split(":")
    if not keys or not all(keys):
        raise FormatError("metadata is named like this: (namespace:key:key)")
    return keys


def dig(value: object, keys: list[str]) -> Value:
    """What is at a place; None when nothing is."""
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value  # type: ignore[return-value]  # metadata is JSON-like all through


def _host_metadata(facts: Facts) -> Mapping[str, object] | None:
    last = _last(facts)
    return None if last is None else last.metadata


OF_FACTS: Mapping[str, Callable[[Facts], Mapping[str, object] | None]] = {
    "UPSTREAM_HOST": _host_metadata,
    "LISTENER": lambda facts: facts.metadata.get("LISTENER"),
    "LISTENER_FILTER_CHAIN": lambda facts: facts.metadata.get("LISTENER_FILTER_CHAIN"),
    "VIRTUAL_HOST": lambda facts: facts.metadata.get("VIRTUAL_HOST"),
}
"""What has metadata and is not told by the exchange itself."""


def metadata_of_facts(of: Callable[[Facts], Mapping[str, object] | None]) -> Make:
    """An operator that digs in such metadata."""

    def make(argument: str | None, origin: Origin) -> Read:
        keys = keys_of(argument)
        return lambda info, moment: dig(of(moment.facts), keys)

    return make


def new_id() -> str:
    """An identifier that nothing else has."""
    return str(UUID(int=getrandbits(128), version=4))


WIRE: Mapping[str, Make] = {
    "UPSTREAM_HOST_NAME": _name_of_last(lambda name: name),
    "UPSTREAM_HOST_NAME_WITHOUT_PORT": _name_of_last(host_of),
    "UPSTREAM_HOSTS_ATTEMPTED": _attempted(lambda one: one.host),
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT": _attempted(lambda one: host_of(one.host)),
    "UPSTREAM_HOST_NAMES_ATTEMPTED": _attempted(lambda one: one.name or one.host),
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT": _attempted(lambda one: host_of(one.name or one.host)),
    "UPSTREAM_CONNECTION_ID": _facts(_connection),
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED": _attempted(
        lambda one: None if one.connection is None else str(one.connection)
    ),
    "UPSTREAM_METADATA": metadata_of_facts(_host_metadata),
    **_bytes("DOWNSTREAM", lambda facts: facts.downstream),
    **_bytes("UPSTREAM", _upstream_wire),
    "VIRTUAL_CLUSTER_NAME": _facts(lambda facts: facts.virtual_cluster),
    "UNIQUE_ID": without_argument(lambda info, moment: new_id()),
}
"""Operator -> what makes its reader of its argument."""


Entry = tuple[str, str | None, int | None]


def alternatives(argument: str | None) -> list[Entry]:
    """The operators of a `COALESCE`, each with its argument and the most characters of it. FormatError."""
    try:
        found = [_entry(one) for one in json.loads(argument or "")["operators"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        found = []
    if not found:
        raise FormatError(
            'COALESCE takes JSON: {"operators": [{"command": "REQ", "param": "x-name"}, "PROTOCOL"]}'
        )
    return found


def _entry(given: Any) -> Entry:
    """TypeError, KeyError, AttributeError for what is none."""
    if isinstance(given, str):
        return given, None, None
    command, param, most = given["command"], given.get("param"), given.get("max_length")
    if isinstance(command, str) and isinstance(param, str | None) and type(most) in (int, type(None)):
        return command, param, most
    raise TypeError


def need_of(name: str, argument: str | None) -> Need:
    """What has to be gathered for an operator."""
    if name == "COALESCE":
        needs = (need_of(command, param) for command, param, _ in alternatives(argument))
        return reduce(or_, needs, Need.NOTHING)
    if "_BYTES_" in name and name in WIRE:
        return Need.UPSTREAM_BYTES if name.startswith("UPSTREAM") else Need.DOWNSTREAM_BYTES
    if name in WIRE and name != "UNIQUE_ID":
        return Need.HOSTS
    if name == "METADATA" and (argument or "").partition(":")[0] in OF_FACTS:
        return Need.HOSTS
    return Need.NOTHING
