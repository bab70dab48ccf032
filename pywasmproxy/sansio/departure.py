"""What the router does to a request on its way out: time limits, mutations, rewrites, retries. Pure.

Source: Envoy 1.40's router as measured, the order of the steps included: what a filter has written into
`x-envoy-*` fields counts, and these end here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model_routes import Redirect, RouteAction
from pywasmproxy.sansio.format import Moment
from pywasmproxy.sansio.headers import EXPECTED_TIMEOUT, ORIGINAL_HOST, UPSTREAM_TIMEOUT, rewrite_path
from pywasmproxy.sansio.retry import Retries, retries_of
from pywasmproxy.sansio.router import Choice, substitute, substitute_path

PER_TRY_TIMEOUT = b"x-envoy-upstream-rq-per-try-timeout-ms"
ATTEMPT_COUNT = b"x-envoy-attempt-count"
IS_TIMEOUT_RETRY = b"x-envoy-is-timeout-retry"
FORWARDED_HOST = b"x-forwarded-host"

_FOR_THE_ROUTER = frozenset(
    b"""
    x-envoy-hedge-on-per-try-timeout x-envoy-max-retries x-envoy-retriable-header-names
    x-envoy-retriable-status-codes x-envoy-retry-grpc-on x-envoy-retry-on
    x-envoy-upstream-rq-per-try-timeout-ms x-envoy-upstream-rq-timeout-ms
    """.split()
)
"""Fields that tell the router what to do, and end there."""


@dataclass(slots=True)
class Departure:
    """What goes with a request that leaves. Seconds; None: no limit."""

    timeout: float | None
    per_try_timeout: float | None
    retries: Retries | None


@lru_cache(maxsize=64)
def expected_timeout(timeout: float | None, per_try: float | None, elapsed: float = 0.0) -> int | None:
    """Milliseconds that an attempt has, `elapsed` seconds after the request was complete."""
    if timeout is None:
        return None if per_try is None else round(per_try * 1000)
    left = timeout - elapsed
    return max(0, round((left if per_try is None else min(left, per_try)) * 1000))


def depart(
    headers: HeaderMap,
    choice: Choice,
    info: StreamInfo,
    moment: Callable[[], Moment],
    *,
    envoy_headers: bool,
) -> Departure:
    """Make the request's head what the upstream gets. The route's action must be a `RouteAction`."""
    action = choice.route.action
    if not isinstance(action, RouteAction):
        raise TypeError("only requests to clusters leave")
    policy = choice.retry_policy
    timeout, per_try = action.timeout, policy.per_try_timeout if policy is not None else None
    asked = not _FOR_THE_ROUTER.isdisjoint(headers.firsts)
    if asked:
        timeout = _asked(headers, UPSTREAM_TIMEOUT, timeout)
        per_try = _asked(headers, PER_TRY_TIMEOUT, per_try)
        for name in (UPSTREAM_TIMEOUT, PER_TRY_TIMEOUT):
            headers.remove(name)
    if per_try is not None and timeout is not None and per_try >= timeout:
        per_try = None
    expected = expected_timeout(timeout, per_try)
    if expected is not None and envoy_headers:
        headers.set_in_place(EXPECTED_TIMEOUT, b"%d" % expected)
    if choice.virtual_host.request_attempt_count:
        headers.set_in_place(ATTEMPT_COUNT, b"1")
    if choice.mutations.of_requests:
        choice.mutations.change_request(headers, info, moment())
        asked = asked or not _FOR_THE_ROUTER.isdisjoint(headers.firsts)
    if choice.rewrites:
        _rewrite(headers, choice, action, envoy_headers=envoy_headers)
    retries = retries_of(policy, headers) if asked or policy is not None else None
    if asked:
        headers.replace_all([line for line in headers.lines if line[0] not in _FOR_THE_ROUTER])
    return Departure(timeout, per_try, retries)


def _asked(headers: HeaderMap, name: bytes, otherwise: float | None) -> float | None:
    """Seconds that a field asks for in milliseconds; 0 is no limit."""
    written = headers.first(name)
    if written is None or not written.isdigit() or len(written) > 18:
        return otherwise
    return int(written) / 1000 or None


def _rewrite(headers: HeaderMap, choice: Choice, action: RouteAction, *, envoy_headers: bool) -> None:
    """The path and the host as the route wants them."""
    path = headers.first(b":path") or b"/"
    if choice.host_rewrite is not None:  # a weighted cluster's; the route's own comes on top
        headers.set_in_place(b":authority", choice.host_rewrite)
    if action.prefix_rewrite is not None:
        rewrite_path(headers, action.prefix_rewrite, choice.matched, envoy_headers=envoy_headers)
    elif action.regex_rewrite is not None:
        put_path(headers, substitute_path(action.regex_rewrite, path), envoy_headers=envoy_headers)
    host: bytes | None = None
    if action.host_rewrite_literal is not None:
        host = action.host_rewrite_literal.encode()
    elif action.host_rewrite_header is not None:
        host = headers.first(action.host_rewrite_header.encode()) or None
    elif action.host_rewrite_path_regex is not None:
        host = substitute(action.host_rewrite_path_regex, path.partition(b"?")[0])
    if host is not None:
        put_host(headers, host, forwarded=action.append_x_forwarded_host, envoy_headers=envoy_headers)


def rewrite_for(redirect: Redirect, headers: HeaderMap, matched: bytes, *, envoy_headers: bool) -> None:
    """A redirect's new path in the request itself, for those who look at it afterwards."""
    if redirect.prefix_rewrite is not None:
        rewrite_path(headers, redirect.prefix_rewrite, matched, envoy_headers=envoy_headers)
    elif redirect.regex_rewrite is not None:
        path = substitute_path(redirect.regex_rewrite, headers.first(b":path") or b"/")
        put_path(headers, path, envoy_headers=envoy_headers)


def put_path(headers: HeaderMap, path: bytes, *, envoy_headers: bool) -> None:
    """Another path; the old one is kept in a field."""
    if envoy_headers:
        headers.set(b"x-envoy-original-path", headers.first(b":path") or b"/")
    headers.set_in_place(b":path", path)


def put_host(headers: HeaderMap, host: bytes, *, forwarded: bool, envoy_headers: bool) -> None:
    """Another host; the old one is kept in a field, and in `x-forwarded-host` if that is wanted."""
    old = headers.first(b":authority") or b""
    if envoy_headers:
        headers.set(ORIGINAL_HOST, old)
    if forwarded:
        before = headers.first(FORWARDED_HOST)
        headers.set_in_place(FORWARDED_HOST, before + b"," + old if before else old)
    headers.set_in_place(b":authority", host)
