"""Envoy's format strings: `%REQ(x-id)% from %DOWNSTREAM_REMOTE_ADDRESS%`, in header values and access logs.

`Template` is one string made ready, `JsonTemplate` a structure of them. Both are compiled once and then
filled in from the facts of an exchange (`StreamInfo`). What each operator says was measured on Envoy
1.40; operators of Envoy's that nothing here can answer are accepted and always missing (`UNAVAILABLE`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.sansio.format_operators import OPERATORS, UNAVAILABLE
from pywasmproxy.sansio.format_parts import (
    MISSING,
    FormatError,
    Moment,
    Origin,
    Read,
    Value,
    as_text,
    shortened,
    to_json,
)
from pywasmproxy.sansio.format_wire import Need, need_of

__all__ = ["UNAVAILABLE", "FormatError", "JsonTemplate", "Moment", "Need", "Origin", "Template", "Value"]

_OPERATOR = re.compile(r"%%|%([A-Z0-9_]+)(?:\(((?:[^()]|\([^()]*\))*)\))?(?::([0-9]+))?%")

Part: TypeAlias = "str | Read"


class Template:
    """A format string. `omit_empty`: missing values become nothing instead of `-`, as in header values.

    FormatError says what is wrong with the string. `unavailable` names operators that can give nothing here,
    `needs` is what others want to be gathered for them (`Moment.facts`).
    """

    def __init__(self, text: str, *, omit_empty: bool = False, origin: Origin | None = None) -> None:
        self.text = text
        self._missing = "" if omit_empty else MISSING
        self.unavailable: list[str] = []
        self.needs = Need.NOTHING
        self._parts = self._compile(text, origin or Origin())
        self._constant = "".join(str(part) for part in self._parts) if self.is_constant else None

    @property
    def is_constant(self) -> bool:
        """Whether it says the same every time."""
        return all(isinstance(part, str) for part in self._parts)

    def _compile(self, text: str, origin: Origin) -> list[Part]:
        parts: list[Part] = []
        position = 0
        while True:
            at = text.find("%", position)
            literal = text[position:] if at < 0 else text[position:at]
            if literal:
                parts.append(literal)
            if at < 0:
                return parts
            found = _OPERATOR.match(text, at)
            if found is None:
                raise FormatError(
                    f"{text[at : at + 40]!r} is no operator such as %REQ(NAME)%; a % is written %%"
                )
            position = found.end()
            if found[1] is None:
                parts.append("%")
            else:
                parts.append(self._operator(found[1], found[2], found[3], origin))

    def _operator(self, name: str, argument: str | None, limit: str | None, origin: Origin) -> Read:
        make = OPERATORS.get(name)
        if make is None:
            if name not in UNAVAILABLE:
                raise FormatError(f"there is no operator %{name}%", name)
            self.unavailable.append(name)
            return _nothing
        self.needs |= need_of(name, argument)
        read = make(argument, origin)
        return read if limit is None else shortened(read, int(limit))

    def value(self, info: StreamInfo, moment: Moment) -> Value:
        """The value itself where the string is one operator and nothing else; None: it is missing."""
        if len(self._parts) == 1 and not isinstance(self._parts[0], str):
            return self._parts[0](info, moment)
        return self.fill(info, moment)

    def fill(self, info: StreamInfo, moment: Moment) -> str:
        """The string with everything filled in. Bytes of headers that are no UTF-8 are surrogates in it."""
        if self._constant is not None:
            return self._constant
        missing = self._missing
        return "".join(
            part if isinstance(part, str) else as_text(part(info, moment), missing) for part in self._parts
        )


def _nothing(info: StreamInfo, moment: Moment) -> Value:
    return None


Structure: TypeAlias = "Template | str | int | float | bool | dict[str, Structure] | list[Structure] | None"

_OMITTED = object()


class JsonTemplate:
    """A JSON object whose texts are format strings. A text that is one operator keeps the type of its value.

    Missing values are null; with `omit_empty` they, and what is empty without them, are left out.
    FormatError as for `Template`.
    """

    def __init__(
        self, structure: Mapping[str, object], *, omit_empty: bool = False, origin: Origin | None = None
    ) -> None:
        self._omit_empty = omit_empty
        self.unavailable: list[str] = []
        self.needs = Need.NOTHING
        self._structure = self._compile(structure, origin or Origin())

    def _compile(self, node: object, origin: Origin) -> Structure:
        if isinstance(node, str):
            template = Template(node, omit_empty=self._omit_empty, origin=origin)
            self.unavailable += template.unavailable
            self.needs |= template.needs
            return template
        if isinstance(node, Mapping):
            return {str(key): self._compile(child, origin) for key, child in node.items()}
        if isinstance(node, list | tuple):
            return [self._compile(child, origin) for child in node]
        if node is None or isinstance(node, int | float):
            return node
        raise FormatError(f"{node!r} is nothing JSON has")

    def line(self, info: StreamInfo, moment: Moment) -> str:
        """The object as one line of text, without a line break at its end."""
        filled = self._fill(self._structure, info, moment)
        return to_json({} if filled is _OMITTED else filled)

    def _fill(self, node: Structure, info: StreamInfo, moment: Moment) -> Any:
        if isinstance(node, Template):
            value = node.value(info, moment)
            return _OMITTED if value is None and self._omit_empty else value
        if isinstance(node, dict):
            entries = {key: self._fill(child, info, moment) for key, child in node.items()}
            entries = {key: child for key, child in entries.items() if child is not _OMITTED}
            return entries if entries or not self._omit_empty else _OMITTED
        if isinstance(node, list):
            items = [self._fill(child, info, moment) for child in node]
            return [item for item in items if item is not _OMITTED]
        return node
