"""Header mutations of routes, evaluated: which fields are removed and added, in Envoy's order. Pure.

Source: Envoy 1.40 as measured. The levels act one after the other, the most specific one first (or last, if
the route table says so). Each one removes, then overwrites, then adds; an overwritten field moves to the end,
a field that has one value only is joined by a comma.
"""

from __future__ import annotations

from collections.abc import Iterable

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.single_value import SINGLE_VALUE
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import MapType
from pywasmproxy.config.model_routes import AppendAction, HeaderAddition, HeaderMutations
from pywasmproxy.sansio.format import Moment, Origin, Template

_OVERWRITE = (AppendAction.OVERWRITE_IF_EXISTS_OR_ADD, AppendAction.OVERWRITE_IF_EXISTS)


class _Addition:
    """A header to add, its value compiled."""

    __slots__ = ("action", "keep_empty", "name", "value")

    def __init__(self, config: HeaderAddition, origin: Origin | None) -> None:
        self.name = config.name.encode()
        self.value = Template(config.value, omit_empty=True, origin=origin)
        self.action = config.action
        self.keep_empty = config.keep_empty


class Level:
    """What one level does to headers of one direction."""

    __slots__ = ("_add", "_remove", "_single")

    def __init__(
        self,
        remove: Iterable[str],
        add: Iterable[HeaderAddition],
        single: frozenset[bytes],
        origin: Origin | None,
    ) -> None:
        self._remove = [name.encode() for name in remove]
        self._add = [_Addition(one, origin) for one in add]
        self._single = single

    def __bool__(self) -> bool:
        return bool(self._remove or self._add)

    def apply(self, headers: HeaderMap, info: StreamInfo, moment: Moment) -> None:
        """Change the headers."""
        for name in self._remove:
            headers.remove(name)
        overwritten: list[tuple[bytes, bytes]] = []
        added: list[tuple[bytes, bytes]] = []
        for one in self._add:
            value = one.value.fill(info, moment).encode("utf-8", "surrogateescape")
            if not value and not one.keep_empty:
                continue
            present = headers.first(one.name) is not None
            if one.action is AppendAction.ADD_IF_ABSENT and present:
                continue
            if one.action is AppendAction.OVERWRITE_IF_EXISTS and not present:
                continue
            (overwritten if one.action in _OVERWRITE else added).append((one.name, value))
        for name, value in overwritten:
            headers.set(name, value)
        for name, value in added:
            append(headers, name, value, self._single)


def append(headers: HeaderMap, name: bytes, value: bytes, single: frozenset[bytes]) -> None:
    """Add a line, or a value to the one of a name that has one line only."""
    before = headers.first(name) if name in single else None
    if before is None:
        headers.add(name, value)
    else:
        headers.set_in_place(name, before + b"," + value if before else value)


class Mutations:
    """The levels that concern one route (or one weighted cluster of it), in the order they act."""

    __slots__ = ("_request", "_response", "of_requests", "of_responses")

    def __init__(self, levels: Iterable[HeaderMutations], origin: Origin | None = None) -> None:
        listed = list(levels)
        request = SINGLE_VALUE[MapType.HTTP_REQUEST_HEADERS]
        response = SINGLE_VALUE[MapType.HTTP_RESPONSE_HEADERS]
        requests = [Level(one.request_remove, one.request_add, request, origin) for one in listed]
        responses = [Level(one.response_remove, one.response_add, response, origin) for one in listed]
        self._request = [level for level in requests if level]
        self._response = [level for level in responses if level]
        self.of_requests = bool(self._request)  # whether they are changed at all
        self.of_responses = bool(self._response)

    def change_request(self, headers: HeaderMap, info: StreamInfo, moment: Moment) -> None:
        """What is done to a request on its way out."""
        for level in self._request:
            level.apply(headers, info, moment)

    def change_response(self, headers: HeaderMap, info: StreamInfo, moment: Moment) -> None:
        """What is done to a response on its way in."""
        for level in self._response:
            level.apply(headers, info, moment)
