"""What operators of format strings are made of: their types, and what they ask beside the exchange itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from abi.proxy_wasm.stream_info import StreamInfo

Value: TypeAlias = "str | int | float | bool | dict[str, Value] | list[Value] | None"
"""What an operator gives: JSON's types. None: it is missing."""

Read: TypeAlias = "Callable[[StreamInfo, Moment], Value]"
Make: TypeAlias = "Callable[[str | None, Origin], Read]"


class FormatError(ValueError):
    """A format string that cannot be used. `operator` is the one nobody knows, if it is that."""

    def __init__(self, message: str, operator: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.operator = operator


@dataclass(frozen=True, slots=True)
class Origin:
    """What a format string takes from the process, once, when it is compiled."""

    hostname: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Wire:
    """Bytes that one connection carried for an exchange, and those of them that were fields of heads."""

    received: int = 0
    sent: int = 0
    received_fields: int = 0
    sent_fields: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A host that was asked. `connection`: the number of the connection; None: there was none."""

    host: str
    name: str = ""
    """The host's name with its port where it has one, else its address."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    connection: int | None = None
    wire: Wire = field(default_factory=Wire)


@dataclass(slots=True, eq=False)
class Facts:
    """What only whoever moves the bytes knows of an exchange or a connection that is over."""

    downstream: Wire = field(default_factory=Wire)
    attempts: Sequence[Attempt] = ()
    """All of them, the last one last."""
    virtual_cluster: str | None = None
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """By what has it: LISTENER, LISTENER_FILTER_CHAIN, VIRTUAL_HOST."""


NO_FACTS = Facts()


@dataclass(slots=True)
class Moment:
    """What is known only when a string is filled in, beside the exchange."""

    now: int = 0
    """Nanoseconds since 1970."""
    local_reply_body: str = ""
    access_log_type: str = "NotSet"
    facts: Facts = field(default=NO_FACTS, repr=False)


def text_of(raw: bytes | None) -> str | None:
    """Bytes of a header as text; what is no UTF-8 are surrogates."""
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def without_argument(read: Read) -> Make:
    """An operator that takes none."""

    def make(argument: str | None, origin: Origin) -> Read:
        if argument is not None:
            raise FormatError(f"({argument}) is not wanted here")
        return read

    return make


def plain(read: Callable[[StreamInfo], Value]) -> Make:
    """An operator without an argument that asks the exchange alone."""
    return without_argument(lambda info, moment: read(info))


def host_of(address: str | None) -> str | None:
    """The host in `host:port`."""
    if not address:
        return None
    host = address.rpartition(":")[0]
    return host.removeprefix("[").removesuffix("]")


def port_of(address: str | None) -> int | None:
    """The port in `host:port`."""
    port = (address or "").rpartition(":")[2]
    return int(port) if port.isdigit() else None


# --- values as texts ------------------------------------------------------------------------------------

MISSING = "-"
"""What stands for a value that is not there, unless empty values are omitted."""


def shortened(read: Read, limit: int) -> Read:
    """What an operator says, as a text of so many characters at most."""

    def short(info: StreamInfo, moment: Moment) -> Value:
        value = read(info, moment)
        return value if value is None else as_text(value, "")[:limit]

    return short


def as_text(value: Value, missing: str = MISSING) -> str:
    """A value within a text."""
    if value is None:
        return missing
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return to_json(value)


def to_json(value: Any) -> str:
    """Compact JSON with sorted keys, as Envoy writes it. Bytes that are no UTF-8 stand for themselves."""
    return json.dumps(_clean(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogateescape").decode("latin-1")
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(_clean(key)): _clean(child) for key, child in value.items()}
    return [_clean(child) for child in value] if isinstance(value, list | tuple) else value
