"""The route table: a request's head to a cluster, a direct response or a redirect. Pure.

Source: Envoy's RouteConfiguration as measured and documented: the most specific domain wins (exact, longest
suffix wildcard, longest prefix wildcard, `*`), then the first route of that virtual host whose conditions the
request meets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_routes import (
    HeaderMutations,
    Redirect,
    RegexRewrite,
    RequireTls,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from pywasmproxy.sansio.format import Origin
from pywasmproxy.sansio.local_reply import is_grpc
from pywasmproxy.sansio.matching import happens, header_test, query_of, query_test
from pywasmproxy.sansio.mutations import Mutations

Random = Callable[[], int]
"""Gives a non-negative random number, the same one each time within a request."""

Matcher = Callable[[bytes], "bytes | None"]
"""Takes a path without its query; gives the part of it that the route names, None when it does not match."""

Condition = Callable[[HeaderMap, bytes, Random], bool]
"""Whether a head meets a further condition; the bytes are the whole path."""

INTERNAL = b"x-envoy-internal"


def _no_random() -> int:
    return 0


@dataclass(slots=True)
class Choice:
    """The route taken for a request. `matched` is what a `prefix_rewrite` replaces.

    `cluster` is the one of the route that this request goes to ("": none); `disabled` says of HTTP filters,
    by name, that they are switched off (True) or on for it. Shared by all requests that go the same way.
    """

    virtual_host: VirtualHost
    route: Route
    matched: bytes
    cluster: str
    mutations: Mutations
    disabled: Mapping[str, bool]
    host_rewrite: str | None = None
    rewrites: bool = True
    """Whether path or host may become other ones."""

    retry_policy: RetryPolicy | None = field(init=False)
    """The route's policy, or that of its virtual host."""
    changes_responses: bool = field(init=False)
    """Whether something is done to responses."""
    buffer_limit: int | None = field(init=False)
    """Bytes of the request's body that may wait, where the route says so."""

    def __post_init__(self) -> None:
        route, host = self.route, self.virtual_host
        own = route.action.retry_policy if isinstance(route.action, RouteAction) else None
        self.retry_policy = own if own is not None else host.retry_policy
        self.changes_responses = self.mutations.of_responses or host.response_attempt_count
        self.buffer_limit = route.buffer_limit if route.buffer_limit is not None else host.buffer_limit


class _Target:
    """A cluster of a route, with what is special about going there."""

    __slots__ = ("cluster", "cluster_header", "disabled", "host_rewrite", "mutations")

    def __init__(
        self, mutations: Mutations, disabled: Mapping[str, bool], one: WeightedCluster | None
    ) -> None:
        self.mutations, self.disabled = mutations, disabled
        self.cluster = one.name if one is not None else ""
        self.cluster_header = one.cluster_header if one is not None else None
        self.host_rewrite = one.host_rewrite if one is not None else None


class _Entry:
    """A route made ready."""

    __slots__ = (
        "_conditions",
        "_host",
        "_matches",
        "_only",
        "_plain",
        "_rewrites",
        "_targets",
        "_total",
        "route",
    )

    def __init__(self, table: RouteConfig, host: VirtualHost, route: Route, origin: Origin | None) -> None:
        self.route = route
        self._host = host
        self._matches = _matcher(route.match)
        self._conditions = _conditions(route.match)
        levels = [route.mutations, host.mutations, table.mutations]
        disabled = {**table.disabled_filters, **host.disabled_filters, **route.disabled_filters}

        def mutations(*own: HeaderMutations) -> Mutations:
            ordered = [*own, *levels]
            return Mutations(reversed(ordered) if table.most_specific_wins else ordered, origin)

        self._plain = _Target(mutations(), disabled, None)
        action = route.action
        self._rewrites = isinstance(action, RouteAction) and (
            bool(action.weighted_clusters)
            or action.prefix_rewrite is not None
            or action.regex_rewrite is not None
            or action.host_rewrite_literal is not None
            or action.host_rewrite_header is not None
            or action.host_rewrite_path_regex is not None
        )
        self._targets: list[tuple[int, _Target]] = []
        self._total = 0
        if isinstance(action, RouteAction):
            self._plain.cluster, self._plain.cluster_header = action.cluster, action.cluster_header
            for one in action.weighted_clusters:
                self._total += one.weight
                target = _Target(mutations(one.mutations), {**disabled, **one.disabled_filters}, one)
                self._targets.append((self._total, target))

        named = _named(route.match)
        self._only: Choice | None = None  # that there can be
        if named is not None and not self._targets and self._plain.cluster_header is None:
            self._only = self._choice(self._plain, self._plain.cluster, named)

    def choose(self, headers: HeaderMap, path: bytes, bare: bytes, random: Random) -> Choice | None:
        """This route for a request that it takes."""
        matched = self._matches(bare)
        if matched is None:
            return None
        for meets in self._conditions:
            if not meets(headers, path, random):
                return None
        if self._only is not None:
            return self._only
        target = self._plain
        if self._targets:
            place = random() % self._total
            target = next(one for end, one in self._targets if place < end)
        cluster = target.cluster
        if target.cluster_header is not None:
            cluster = (headers.first(target.cluster_header.encode()) or b"").decode("latin-1")
        return self._choice(target, cluster, matched)

    def _choice(self, target: _Target, cluster: str, matched: bytes) -> Choice:
        return Choice(
            self._host,
            self.route,
            matched,
            cluster,
            target.mutations,
            target.disabled,
            target.host_rewrite,
            self._rewrites,
        )


class _Host:
    """A virtual host made ready."""

    __slots__ = ("config", "entries", "to_tls")

    def __init__(self, table: RouteConfig, config: VirtualHost, origin: Origin | None) -> None:
        self.config = config
        self.entries = [_Entry(table, config, route, origin) for route in config.routes]
        self.to_tls: _Entry | None = None
        if config.require_tls is not RequireTls.NONE:
            redirect = Route(RouteMatch(prefix=""), Redirect(https_redirect=True))
            bare = VirtualHost(config.name, config.domains)
            self.to_tls = _Entry(RouteConfig(), bare, redirect, origin)

    def choose(self, headers: HeaderMap, path: bytes, random: Random) -> Choice | None:
        bare = path.partition(b"?")[0]
        if self.to_tls is not None and headers.first(b"x-forwarded-proto") != b"https":
            inside = headers.first(INTERNAL) is not None
            if self.config.require_tls is RequireTls.ALL or not inside:
                return self.to_tls.choose(headers, path, bare, random)
        for entry in self.entries:
            choice = entry.choose(headers, path, bare, random)
            if choice is not None:
                return choice
        return None


class Router:
    """A route table made ready: domains sorted into kinds, conditions into functions."""

    def __init__(self, config: RouteConfig, origin: Origin | None = None) -> None:
        self.config = config
        self._exact: dict[bytes, _Host] = {}
        self._suffixes: list[tuple[bytes, _Host]] = []
        self._prefixes: list[tuple[bytes, _Host]] = []
        self._any: _Host | None = None
        for virtual_host in config.virtual_hosts:
            host = _Host(config, virtual_host, origin)
            for domain in virtual_host.domains:
                self._add_domain(domain.lower().encode(), host)
        self._suffixes.sort(key=_longest_first)
        self._prefixes.sort(key=_longest_first)

    def _add_domain(self, domain: bytes, host: _Host) -> None:
        if domain == b"*":
            self._any = self._any or host
        elif domain.startswith(b"*"):
            self._suffixes.append((domain[1:], host))
        elif domain.endswith(b"*"):
            self._prefixes.append((domain[:-1], host))
        else:
            self._exact.setdefault(domain, host)

    def virtual_host(self, authority: bytes) -> VirtualHost | None:
        """The virtual host for an `:authority`."""
        found = self._find(authority)
        return found.config if found is not None else None

    def _find(self, authority: bytes) -> _Host | None:
        host = authority.lower()
        if self.config.ignore_port_in_host_matching:
            host = re.sub(rb":\d+$", b"", host)
        if (exact := self._exact.get(host)) is not None:
            return exact
        # A wildcard stands for at least one character.
        for suffix, found in self._suffixes:
            if len(host) > len(suffix) and host.endswith(suffix):
                return found
        for prefix, found in self._prefixes:
            if len(host) > len(prefix) and host.startswith(prefix):
                return found
        return self._any

    def choose(self, headers: HeaderMap, random: Random = _no_random) -> Choice | None:
        """The route for a request as its headers are now; None when there is none (404).

        As in Envoy, a request whose `:path` or `x-forwarded-proto` a filter has removed has no route.
        """
        firsts = headers.firsts
        path = firsts.get(b":path")
        if firsts.get(b":method") == b"CONNECT":
            return None  # a tunnel needs a route of its own kind
        if not path or not firsts.get(b"x-forwarded-proto"):
            return None
        host = self._find(firsts.get(b":authority", b""))
        return None if host is None else host.choose(headers, path, random)


def _longest_first(entry: tuple[bytes, _Host]) -> int:
    return -len(entry[0])


# --- conditions -----------------------------------------------------------------------------------------


def _matcher(match: RouteMatch) -> Matcher:
    """The path rule of a route as a function."""
    if match.safe_regex is not None:
        pattern = re.compile(match.safe_regex.encode())
        return lambda path: path if pattern.fullmatch(path) else None
    rule, text = _rule(match)
    wanted = text.encode()
    if match.case_sensitive:
        return lambda path: wanted if rule(path, wanted) else None
    folded = wanted.lower()
    return lambda path: path[: len(wanted)] if rule(path.lower(), folded) else None


def _rule(match: RouteMatch) -> tuple[Callable[[bytes, bytes], bool], str]:
    """How a path is compared, and with what."""
    if match.path is not None:
        return bytes.__eq__, match.path
    if match.path_separated_prefix is not None:
        return _is_below, match.path_separated_prefix
    return bytes.startswith, match.prefix if match.prefix is not None else ""


def _named(match: RouteMatch) -> bytes | None:
    """The part of the path that the route names, where that is always the same."""
    return _rule(match)[1].encode() if match.safe_regex is None and match.case_sensitive else None


def _is_below(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


def _conditions(match: RouteMatch) -> list[Condition]:
    """What a request must meet beside the path rule."""
    conditions: list[Condition] = []
    if match.fraction is not None:
        share = match.fraction
        conditions.append(lambda headers, path, random: happens(share, random()))
    if match.grpc:
        conditions.append(lambda headers, path, random: is_grpc(headers))
    if match.headers:
        of_headers = [header_test(one) for one in match.headers]
        conditions.append(lambda headers, path, random: all(test(headers) for test in of_headers))
    if match.query_parameters:
        of_query = [query_test(one) for one in match.query_parameters]

        def query(headers: HeaderMap, path: bytes, random: Random) -> bool:
            parameters = query_of(path)
            return all(test(parameters) for test in of_query)

        conditions.append(query)
    return conditions


# --- rewrites and redirects -----------------------------------------------------------------------------


def substitute(rewrite: RegexRewrite, text: bytes) -> bytes:
    """A text with every match of the pattern replaced."""
    substitution = rewrite.substitution.encode()

    def replacement(found: re.Match[bytes]) -> bytes:
        return re.sub(
            rb"\\(.)",
            lambda escaped: b"\\" if escaped[1] == b"\\" else found[int(escaped[1])] or b"",
            substitution,
        )

    return re.sub(rewrite.pattern.encode(), replacement, text)


def substitute_path(rewrite: RegexRewrite, path: bytes) -> bytes:
    """A path whose part before the query is rewritten."""
    bare, mark, query = path.partition(b"?")
    return substitute(rewrite, bare) + mark + query


HERE = Redirect()
"""A redirect to the place where the request was."""


def location(redirect: Redirect, headers: HeaderMap, matched: bytes) -> bytes:
    """The `location` of a redirect for this request."""
    old_scheme = headers.first(b":scheme") or b"http"
    scheme = old_scheme
    if redirect.https_redirect:
        scheme = b"https"
    elif redirect.scheme_redirect is not None:
        scheme = redirect.scheme_redirect.encode()
    host, port = split_port(headers.first(b":authority") or b"")
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
    elif redirect.regex_rewrite is not None:
        bare = substitute(redirect.regex_rewrite, bare)
    return bare if redirect.strip_query else bare + mark + query


def split_port(authority: bytes) -> tuple[bytes, bytes]:
    """Host and `:port` (or nothing) of an authority."""
    found = re.fullmatch(rb"(.*?)(:\d+)?", authority, re.DOTALL)
    return (found[1], found[2] or b"") if found is not None else (authority, b"")
