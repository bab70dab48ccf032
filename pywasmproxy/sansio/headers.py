"""What the proxy itself does to headers, before and after the filters. Pure functions; time and ids come in.

Source: Envoy 1.40 as measured (golden cases; order of the lines included): connection-wide fields go, request
id, scheme and timeout are added to requests, `server`, `date` and the service time to responses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.single_value import SINGLE_VALUE
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import MapType
from pywasmproxy.config.model import ServerHeaderTransformation
from pywasmproxy.sansio import client_cert as client_certs
from pywasmproxy.sansio.arrival import FORWARDED_FOR, FORWARDED_PROTO, INTERNAL, Arrival

REQUEST_PSEUDO = (b":authority", b":path", b":method", b":scheme")
"""The order in which filters see them."""

ABSOLUTE_PSEUDO = (b":authority", b":scheme", b":path", b":method")
"""The same for a request whose target named the scheme itself."""

HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding"))
"""Fields about one connection, not about the message (RFC 9110, section 7.6.1)."""

_NOT_IN_RESPONSES = frozenset((b"connection", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""What is taken out of a response behind the filters; an upstream's `keep-alive` does not get that far."""

FOR_ENVOYS = frozenset(
    b"""
    x-envoy-expected-rq-timeout-ms x-envoy-force-trace x-envoy-hedge-on-per-try-timeout x-envoy-internal
    x-envoy-ip-tags x-envoy-max-retries x-envoy-original-url x-envoy-retriable-header-names
    x-envoy-retriable-status-codes x-envoy-retry-grpc-on x-envoy-retry-on x-envoy-upstream-alt-stat-name
    x-envoy-upstream-rq-per-try-timeout-ms x-envoy-upstream-rq-timeout-alt-response
    x-envoy-upstream-rq-timeout-ms x-envoy-upstream-stream-duration-ms
    """.split()
)
"""Fields with which one Envoy tells another what to do; a client from outside must not."""

SERVICE_TIME = b"x-envoy-upstream-service-time"
UPSTREAM_TIMEOUT = b"x-envoy-upstream-rq-timeout-ms"
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
ORIGINAL_HOST = b"x-envoy-original-host"
ORIGINAL_PATH = b"x-envoy-original-path"

Line = tuple[bytes, bytes]


def uuid4(random: bytes) -> bytes:
    """The text of a version 4 UUID made of 16 random bytes (RFC 9562, section 5.4)."""
    text = random.hex()
    variant = "89ab"[random[8] >> 4 & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}".encode()


@lru_cache(maxsize=4)
def http_date(second: int) -> bytes:
    """The `date` field's value for a second since 1970 (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True).encode()


def join_single(lines: list[Line], single: frozenset[bytes]) -> list[Line]:
    """Lines as Envoy's maps keep them: several of a name that has one value only are joined with a comma."""
    if len({name for name, _ in lines}) == len(lines):
        return lines
    joined: list[Line] = []
    places: dict[bytes, int] = {}
    for name, value in lines:
        place = places.get(name)
        if place is None:
            if name in single:
                places[name] = len(joined)
            joined.append((name, value))
        elif value:
            before = joined[place][1]
            joined[place] = (name, before + b"," + value if before else value)
    return joined


_REFERER = re.compile(
    rb"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+(?:[/?][^#\s]*)?"  # no user, no fragment
    rb"|(?![^/]*:)[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)"  # relative: no colon before a slash
)


def is_referer(value: bytes) -> bool:
    """Whether it is a URL that may stand in `referer` (RFC 9110, section 10.1.3); all else is taken out."""
    return _REFERER.fullmatch(value) is not None


# --- requests -------------------------------------------------------------------------------------------


def prepare_request(
    headers: HeaderMap,
    info: StreamInfo,
    *,
    arrival: Arrival,
    request_id: Callable[[], bytes] | None,
    hidden: frozenset[bytes] = FOR_ENVOYS,
    upgrade: bool = False,
) -> None:
    """Make a request's head what the first filter sees, and `info` say who the client is.

    `request_id` makes an id where there is none; clients outside must not have `hidden` fields. With
    `upgrade` the request asks for another protocol, which `connection` must say as well.
    """
    fields, first = headers.fields, headers.firsts
    given = first
    if len(first) != headers.line_count:
        fields = join_single(fields, SINGLE_VALUE[MapType.HTTP_REQUEST_HEADERS])
        given = dict(reversed(fields))
    if not _LOOKED_AT.isdisjoint(given):
        fields = _acceptable(fields, upgrade)
        given = dict(reversed(fields))
    transport = b"http" if info.downstream_tls is None else b"https"
    if client_certs.FIELD in given or (arrival.writes_client_cert and info.tls):
        fields = client_certs.forwarded(arrival.config.client_cert, fields, info)
    internal, edge = False, False
    if not arrival.plain or FORWARDED_FOR in given:
        rest = HeaderMap.adopt(fields)
        internal, edge = arrival.apply(rest, info, transport)
        fields = rest.lines
        given = dict(reversed(fields))
    elif FORWARDED_PROTO not in given:
        fields.append((FORWARDED_PROTO, transport))
    if not internal and not hidden.isdisjoint(given):
        fields = [line for line in fields if line[0] not in hidden]
    forwarded = given.get(FORWARDED_PROTO)
    scheme = forwarded if forwarded == b"http" or forwarded == b"https" else transport
    if request_id is not None:
        forced = edge and not arrival.config.preserve_external_request_id
        if b"x-request-id" not in given:
            fields.append((b"x-request-id", request_id()))
        elif forced or not given[b"x-request-id"]:
            rest = HeaderMap.adopt(fields)
            rest.set_in_place(b"x-request-id", request_id())
            fields = rest.lines
    authority, path, method = first.get(b":authority"), first.get(b":path"), first.get(b":method")
    lines = _pseudo(authority, path, method, scheme, named_scheme=b":scheme" in first)
    lines += fields
    headers.adopt_all(lines)


def _pseudo(
    authority: bytes | None, path: bytes | None, method: bytes | None, scheme: bytes, *, named_scheme: bool
) -> list[Line]:
    """The pseudo-headers there are, in the order in which filters see them."""
    if authority is not None and path is not None and method is not None and not named_scheme:
        return [(b":authority", authority), (b":path", path), (b":method", method), (b":scheme", scheme)]
    values = {b":authority": authority, b":path": path, b":method": method, b":scheme": scheme}
    found = ((name, values[name]) for name in (ABSOLUTE_PSEUDO if named_scheme else REQUEST_PSEUDO))
    return [(name, value) for name, value in found if value is not None]


_LOOKED_AT = HOP_BY_HOP | {b"te", b"referer", INTERNAL}
"""Fields that are not simply taken over."""


def _acceptable(fields: list[Line], upgrade: bool) -> list[Line]:
    """The fields of a request that are for those behind the proxy, as they may be."""
    accepted: list[Line] = []
    for name, value in fields:
        if name == b"te":
            if any(option.strip() == b"trailers" for option in value.lower().split(b",")):
                accepted.append((name, b"trailers"))
            elif not value:
                accepted.append((name, value))
        elif name == b"referer":
            if is_referer(value):
                accepted.append((name, value))
        elif (name not in HOP_BY_HOP or (upgrade and name == b"connection")) and name != INTERNAL:
            accepted.append((name, value))
    return accepted


def rewrite_path(headers: HeaderMap, prefix: str, matched: bytes, *, envoy_headers: bool) -> None:
    """Put `prefix` in the place of the part of the path that the route named, which is kept in a field."""
    path = headers.first(b":path") or b"/"
    if envoy_headers:
        headers.set(ORIGINAL_PATH, path)
    headers.set_in_place(b":path", prefix.encode() + path[len(matched) :])


def finish_call(headers: HeaderMap, timeout_ms: int) -> None:
    """What is done to a request of a guest's own; nothing stays that could contradict its framing."""
    for name in HOP_BY_HOP:
        headers.remove(name)
    headers.set_in_place(INTERNAL, b"true")
    if timeout_ms:
        headers.set_in_place(EXPECTED_TIMEOUT, b"%d" % timeout_ms)


def missing_from_request(headers: HeaderMap) -> str | None:
    """The pseudo-header without which a request cannot be sent, if the filters removed one."""
    firsts = headers.firsts
    if firsts.get(b":method") and firsts.get(b":path"):
        return None
    return ":path" if firsts.get(b":method") else ":method"


# --- responses ------------------------------------------------------------------------------------------


def prepare_response(headers: HeaderMap) -> None:
    """Make an upstream's head what the first filter, or the guest that asked for it, sees."""
    firsts = headers.firsts
    if len(firsts) == headers.line_count and b"keep-alive" not in firsts:
        return
    fields = [line for line in headers.lines if line[0] != b"keep-alive"]
    headers.adopt_all(join_single(fields, SINGLE_VALUE[MapType.HTTP_RESPONSE_HEADERS]))


def finish_response(
    headers: HeaderMap,
    *,
    server_name: bytes,
    transformation: ServerHeaderTransformation,
    date: bytes,
    upgraded: bool = False,
) -> None:
    """What the proxy does to every response after the filters, local ones included."""
    firsts = headers.firsts
    if not upgraded and not _NOT_IN_RESPONSES.isdisjoint(firsts):
        headers.adopt_all([line for line in headers.lines if line[0] not in _NOT_IN_RESPONSES])
        firsts = headers.firsts
    if b"date" not in firsts:
        headers.add(b"date", date)
    if transformation is ServerHeaderTransformation.OVERWRITE:
        headers.set_in_place(b"server", server_name)
    elif transformation is ServerHeaderTransformation.APPEND_IF_ABSENT and b"server" not in firsts:
        headers.add(b"server", server_name)


def status_of(headers: HeaderMap) -> int | None:
    """The response's status; None when it is missing or no number, and the response cannot be sent."""
    value = headers.firsts.get(b":status")
    return int(value) if value and len(value) <= 3 and value.isdigit() else None
