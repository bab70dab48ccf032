"""Routes: which requests go where, and what is done to them on the way. After envoy.config.route.v3.

Readers of the whole configuration take these names from `pywasmproxy.config.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pywasmproxy.config.model_match import Fraction, HeaderMatch, QueryMatch

ROUTE_TIMEOUT = 15.0
"""Seconds a route waits for the whole response unless its `timeout` says otherwise."""


# --- what is done to headers ----------------------------------------------------------------------------


class AppendAction(Enum):
    """What an added header does where there is one of its name."""

    APPEND_IF_EXISTS_OR_ADD = "APPEND_IF_EXISTS_OR_ADD"
    ADD_IF_ABSENT = "ADD_IF_ABSENT"
    OVERWRITE_IF_EXISTS_OR_ADD = "OVERWRITE_IF_EXISTS_OR_ADD"
    OVERWRITE_IF_EXISTS = "OVERWRITE_IF_EXISTS"


@dataclass(frozen=True, slots=True)
class HeaderAddition:
    """A header to add; `value` is a valid format string, missing parts of it are empty.

    A value that comes out empty is not added unless `keep_empty`.
    """

    name: str
    value: str
    action: AppendAction = AppendAction.APPEND_IF_EXISTS_OR_ADD
    keep_empty: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMutations:
    """What one level (route table, virtual host, route, weighted cluster) does to headers: first remove."""

    request_remove: tuple[str, ...] = ()
    request_add: tuple[HeaderAddition, ...] = ()
    response_remove: tuple[str, ...] = ()
    response_add: tuple[HeaderAddition, ...] = ()


NO_MUTATIONS = HeaderMutations()


# --- matches --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """Which requests a route takes. Exactly one of the four path specifiers is set (all others None).

    All but `safe_regex` look at the path without its query; `safe_regex` must match that path completely.
    All conditions must be met.
    """

    prefix: str | None = None
    path: str | None = None
    safe_regex: str | None = None
    path_separated_prefix: str | None = None
    """Matches the path itself or it followed by `/...`."""
    case_sensitive: bool = True
    """For prefix, path and path_separated_prefix."""
    headers: tuple[HeaderMatch, ...] = ()
    query_parameters: tuple[QueryMatch, ...] = ()
    fraction: Fraction | None = None
    """Only so many of the requests, at random."""
    grpc: bool = False
    """Only gRPC requests."""


# --- actions --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    """Every match of `pattern` becomes `substitution`, in which `\\1` is the first group."""

    pattern: str
    substitution: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request is sent once more. `retry_on` are Envoy's names of conditions."""

    retry_on: frozenset[str] = frozenset()
    num_retries: int = 1
    per_try_timeout: float | None = None
    """Seconds from the end of the request (of each attempt) to its whole response."""
    retriable_status_codes: frozenset[int] = frozenset()
    retriable_headers: tuple[HeaderMatch, ...] = ()
    """Of the response, for the condition `retriable-headers`."""
    retriable_request_headers: tuple[HeaderMatch, ...] = ()
    """One of them must match, if there are any."""
    base_interval: float = 0.025
    """Seconds; the n-th wait is a random part of this times 2**n, but at most `max_interval`."""
    max_interval: float = 0.25


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One of the clusters that share a route's requests. `host_rewrite` replaces `:authority`."""

    name: str
    weight: int
    mutations: HeaderMutations = NO_MUTATIONS
    host_rewrite: str | None = None
    cluster_header: str | None = None
    """The request's field that names the cluster, where `name` is empty."""
    disabled_filters: Mapping[str, bool] = field(default_factory=dict)


class HashSource(Enum):
    """What of a request its hash is made of."""

    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source_ip"
    QUERY_PARAMETER = "query_parameter"


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """One part of a request's hash, by which RING_HASH and MAGLEV choose a host."""

    source: HashSource
    name: str = ""
    terminal: bool = False
    """If there is a hash after this one, the others do not count."""
    rewrite: RegexRewrite | None = None
    """HEADER: applied to its value first."""
    ttl: float | None = None
    """COOKIE: a client without it gets one that lives for so many seconds; 0: for its session."""
    path: str = ""


@dataclass(frozen=True, slots=True)
class RouteAction:
    """Send the request to a cluster. An empty `cluster` names none: answer 503."""

    cluster: str
    """Empty in the configuration of a route whose requests name it themselves, in `cluster_header`, and
    where there are `weighted_clusters`."""
    timeout: float | None = ROUTE_TIMEOUT
    """Seconds from the end of the request to the end of the response; 504 beyond it."""
    idle_timeout: float | None = None
    """Overrides the connection manager's `stream_idle_timeout` when set (0.0 switches it off)."""
    prefix_rewrite: str | None = None
    """Replaces the matched prefix (or path) of `:path`."""
    host_rewrite_literal: str | None = None
    """Replaces `:authority`."""
    cluster_header: str | None = None
    """The request's field whose first value names the cluster, for each request anew."""
    weighted_clusters: tuple[WeightedCluster, ...] = ()
    regex_rewrite: RegexRewrite | None = None
    """Changes `:path` without its query."""
    host_rewrite_header: str | None = None
    """The request's field that replaces `:authority`, if it is there."""
    host_rewrite_path_regex: RegexRewrite | None = None
    """`:authority` is what this makes of the path without its query."""
    auto_host_rewrite: bool = False
    """`:authority` is the name of the upstream host, for hosts that were found by name."""
    append_x_forwarded_host: bool = False
    """A host rewrite leaves the old one in `x-forwarded-host`."""
    retry_policy: RetryPolicy | None = None
    cluster_not_found_status: int = 503
    hash_policy: tuple[HashPolicy, ...] = ()
    high_priority: bool = False
    """Its requests have connections and limits of their own."""
    upgrades: Mapping[str, bool] = field(default_factory=dict)
    """Protocols (lower case) that requests may change to or not, whatever the connection manager says."""


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """Answer without an upstream."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with a `location`. Unset parts are those of the request."""

    status: int = 301
    https_redirect: bool = False
    scheme_redirect: str | None = None
    host_redirect: str | None = None
    port_redirect: int | None = None
    path_redirect: str | None = None
    """Replaces the path; keeps the query unless it has one itself or `strip_query` is set."""
    prefix_rewrite: str | None = None
    strip_query: bool = False
    regex_rewrite: RegexRewrite | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of a virtual host; the first whose `match` fits is taken."""

    match: RouteMatch
    action: RouteAction | DirectResponse | Redirect
    name: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    """`metadata.filter_metadata`, as filters read it under `xds.route_metadata`."""
    mutations: HeaderMutations = NO_MUTATIONS
    disabled_filters: Mapping[str, bool] = field(default_factory=dict)
    """Names of HTTP filters that are switched off here (True), or on (False)."""
    buffer_limit: int | None = None
    """Bytes of a request's body that may wait, where it differs from the listener's."""


class RequireTls(Enum):
    """Which requests must have come over TLS; others are redirected to `https`."""

    NONE = "NONE"
    EXTERNAL_ONLY = "EXTERNAL_ONLY"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class VirtualCluster:
    """A name for the requests that meet all conditions; the first one that fits is it."""

    name: str
    headers: tuple[HeaderMatch, ...]


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Routes for some domains: exact (`a.b`), suffix (`*.b`), prefix (`a.*`) or `*`; case does not count."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    mutations: HeaderMutations = NO_MUTATIONS
    disabled_filters: Mapping[str, bool] = field(default_factory=dict)
    require_tls: RequireTls = RequireTls.NONE
    retry_policy: RetryPolicy | None = None
    """Of its routes that have none."""
    request_attempt_count: bool = False
    """Upstreams are told in `x-envoy-attempt-count` which attempt this is."""
    response_attempt_count: bool = False
    """The client is told how many there were."""
    is_timeout_retry_header: bool = False
    """An attempt after one that took too long says so in `x-envoy-is-timeout-retry`."""
    buffer_limit: int | None = None
    virtual_clusters: tuple[VirtualCluster, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """A route table. No virtual host matches, or no route: 404."""

    name: str = ""
    virtual_hosts: tuple[VirtualHost, ...] = ()
    ignore_port_in_host_matching: bool = False
    mutations: HeaderMutations = NO_MUTATIONS
    disabled_filters: Mapping[str, bool] = field(default_factory=dict)
    most_specific_wins: bool = False
    """The route's header mutations come last instead of first."""
    internal_only_headers: tuple[str, ...] = ()
    """Fields that only requests from inside may have."""
