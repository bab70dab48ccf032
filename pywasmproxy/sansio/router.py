"""The route table: host and path of a request to a cluster, a direct response or a redirect. Pure.

Source: Envoy's RouteConfiguration as measured and documented: the most specific domain wins (exact, longest
suffix wildcard, longest prefix wildcard, `*`), then the first matching route of that virtual host.

More kinds of match (headers, query) come as further predicates in `_matcher`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model import Redirect, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost

Matcher = Callable[[bytes], "bytes | None"]
"""Takes a path without its query; gives the part of it that the route names, None when it does not match."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The route taken for a request. `matched` is what a `prefix_rewrite` replaces."""

    virtual_host: VirtualHost
    route: Route
    matched: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    matches: Matcher
    route: Route


class Router:
    """A route table made ready: domains sorted into kinds, path rules into functions."""

    def __init__(self, config: RouteConfig) -> None:
        self.config = config
        self._exact: dict[bytes, VirtualHost] = {}
        self._suffixes: list[tuple[bytes, VirtualHost]] = []
        self._prefixes: list[tuple[bytes, VirtualHost]] = []
        self._any: VirtualHost | None = None
        self._routes: dict[str, list[_Entry]] = {}
        for virtual_host in config.virtual_hosts:
            self._routes[virtual_host.name] = [
                _Entry(_matcher(route.match), route) for route in virtual_host.routes
            ]
            for domain in virtual_host.domains:
                self._add_domain(domain.lower().encode(), virtual_host)
        self._suffixes.sort(key=_longest_first)
        self._prefixes.sort(key=_longest_first)

    def _add_domain(self, domain: bytes, virtual_host: VirtualHost) -> None:
        if domain == b"*":
            self._any = self._any or virtual_host
        elif domain.startswith(b"*"):
            self._suffixes.append((domain[1:], virtual_host))
        elif domain.endswith(b"*"):
            self._prefixes.append((domain[:-1], virtual_host))
        else:
            self._exact.setdefault(domain, virtual_host)

    def virtual_host(self, authority: bytes) -> VirtualHost | None:
        """The virtual host for an `:authority`."""
        host = authority.lower()
        if self.config.ignore_port_in_host_matching:
            host = re.sub(rb":\d+$", b"", host)
        if (exact := self._exact.get(host)) is not None:
            return exact
        # A wildcard stands for at least one character.
        for suffix, virtual_host in self._suffixes:
            if len(host) > len(suffix) and host.endswith(suffix):
                return virtual_host
        for prefix, virtual_host in self._prefixes:
            if len(host) > len(prefix) and host.startswith(prefix):
                return virtual_host
        return self._any

    def choose(self, headers: HeaderMap) -> Choice | None:
        """The route for a request as its headers are now; None when there is none (404).

        As in Envoy, a request whose `:path` or `x-forwarded-proto` a filter has removed has no route.
        """
        path = headers.first(b":path")
        if headers.first(b":method") == b"CONNECT":
            return None  # a tunnel needs a route of its own kind
        if not path or not headers.first(b"x-forwarded-proto"):
            return None
        virtual_host = self.virtual_host(headers.first(b":authority") or b"")
        if virtual_host is None:
            return None
        bare = path.partition(b"?")[0]
        for entry in self._routes[virtual_host.name]:
            matched = entry.matches(bare)
            if matched is not None:
                return Choice(virtual_host, _named_by(headers, entry.route), matched)
        return None


def _named_by(headers: HeaderMap, route: Route) -> Route:
    """The route with the cluster that the request names, where that is left to the request."""
    action = route.action
    if not isinstance(action, RouteAction) or action.cluster_header is None:
        return route
    name = headers.first(action.cluster_header.encode()) or b""
    return replace(route, action=replace(action, cluster=name.decode("latin-1")))


def _longest_first(entry: tuple[bytes, VirtualHost]) -> int:
    return -len(entry[0])


# --- path rules -----------------------------------------------------------------------------------------


def _matcher(match: RouteMatch) -> Matcher:
    """The path rule of a route as a function."""
    if match.safe_regex is not None:
        pattern = re.compile(match.safe_regex.encode())
        return lambda path: path if pattern.fullmatch(path) else None
    rule, wanted = next(
        (rule, text.encode())
        for text, rule in (
            (match.path, _is),
            (match.path_separated_prefix, _is_below),
            (match.prefix if match.prefix is not None else "", _starts),
        )
        if text is not None
    )
    if match.case_sensitive:
        return lambda path: path[: len(wanted)] if rule(path, wanted) else None
    folded = wanted.lower()
    return lambda path: path[: len(wanted)] if rule(path.lower(), folded) else None


def _starts(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix)


def _is(path: bytes, wanted: bytes) -> bool:
    return path == wanted


def _is_below(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


# --- redirects ------------------------------------------------------------------------------------------


def location(redirect: Redirect, headers: HeaderMap, matched: bytes) -> bytes:
    """The `location` of a redirect for this request."""
    old_scheme = headers.first(b":scheme") or b"http"
    scheme = old_scheme
    if redirect.https_redirect:
        scheme = b"https"
    elif redirect.scheme_redirect is not None:
        scheme = redirect.scheme_redirect.encode()
    host, port = _split_port(headers.first(b":authority") or b"")
    if redirect.host_redirect is not None:
        host, port = redirect.host_redirect.encode(), b""
    if redirect.port_redirect is not None:
        port = b":%d" % redirect.port_redirect
    elif scheme != old_scheme and port in (b":80", b":443"):
        port = b""  # the old scheme's default port means nothing to the new one
    return scheme + b"://" + host + port + _redirect_path(redirect, headers.first(b":path") or b"/", matched)


def _redirect_path(redirect: Redirect, path: bytes, matched: bytes) -> bytes:
    bare, mark, query = path.partition(b"?")
    if redirect.path_redirect is not None:
        bare = redirect.path_redirect.encode()
        if b"?" in bare:
            return bare
    elif redirect.prefix_rewrite is not None:
        bare = redirect.prefix_rewrite.encode() + bare[len(matched) :]
    return bare if redirect.strip_query else bare + mark + query


def _split_port(authority: bytes) -> tuple[bytes, bytes]:
    """Host and `:port` (or nothing) of an authority."""
    found = re.fullmatch(rb"(.*?)(:\d+)?", authority, re.DOTALL)
    return (found[1], found[2] or b"") if found is not None else (authority, b"")
