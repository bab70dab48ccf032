"""Route tables: virtual hosts, routes, matches.

Field tables after envoy.config.route.v3 (route.proto, route_components.proto). A route whose match has a
condition we cannot check is left out: taking it for every request could expose what it was meant to protect.
"""

from __future__ import annotations

import re
from typing import Any

from pywasmproxy.config.actions import direct_response, redirect, route_action
from pywasmproxy.config.common import metadata
from pywasmproxy.config.matchers import check_pattern, header_match, query_match, regex, runtime_fraction
from pywasmproxy.config.model_routes import (
    DirectResponse,
    Redirect,
    RequireTls,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualCluster,
    VirtualHost,
)
from pywasmproxy.config.mutations import MUTATION_FIELDS, field_name, mutations
from pywasmproxy.config.per_filter import per_filter
from pywasmproxy.config.retries import retry_policy
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    integer,
    later,
    repeated,
    text,
)

DIRECT_RESPONSE_LIMIT = 4096
"""Bytes of a direct response's body unless `max_direct_response_body_size_bytes` says otherwise."""

_LEFT_OUT = "not supported yet: this whole route is left out"
_CONDITIONS = "connect_matcher path_match_policy tls_context dynamic_metadata filter_state runtime cookies"

MATCH = Message(
    "envoy.config.route.v3.RouteMatch",
    {
        "prefix": text,
        "path": text,
        "safe_regex": regex,
        "regex": later,
        "path_separated_prefix": text,
        "case_sensitive": boolean,
        "headers": repeated(header_match),
        "query_parameters": repeated(query_match),
        "runtime_fraction": runtime_fraction,
        "grpc": anything,
    },
    notes=dict.fromkeys(_CONDITIONS.split(), _LEFT_OUT),
    one_of=("prefix path safe_regex path_separated_prefix connect_matcher path_match_policy regex",),
    legacy="regex runtime cookies",
)

_OF_ANY_LEVEL = {"typed_per_filter_config": per_filter, **MUTATION_FIELDS}
_BUFFER_LIMITS = {
    "per_request_buffer_limit_bytes": UINT32,
    "request_body_buffer_limit": integer(0, (1 << 64) - 1),
}

ROUTE = Message(
    "envoy.config.route.v3.Route",
    {
        "name": text,
        "match": later,
        "route": later,
        "redirect": later,
        "direct_response": later,
        "metadata": metadata,
        "decorator": anything,  # about traces, of which there are none
        "tracing": anything,
        "stat_prefix": text,
        "per_filter_config": anything,
        **_BUFFER_LIMITS,
        **_OF_ANY_LEVEL,
    },
    notes={"filter_action": _LEFT_OUT, "non_forwarding_action": _LEFT_OUT},
    one_of=("route redirect direct_response filter_action non_forwarding_action",),
    legacy="per_filter_config",
)

VIRTUAL_CLUSTER = Message(
    "envoy.config.route.v3.VirtualCluster",
    {"headers": repeated(header_match), "name": text},
    required="name",
)


def _virtual_cluster(cursor: Cursor) -> VirtualCluster:
    values = VIRTUAL_CLUSTER.read(cursor)
    return VirtualCluster(values["name"], tuple(values.get("headers", ())))


VIRTUAL_HOST = Message(
    "envoy.config.route.v3.VirtualHost",
    {
        "name": text,
        "domains": repeated(later),
        "routes": repeated(later),
        "require_tls": enum("TLS requirement", " ".join(choice.value for choice in RequireTls)),
        "retry_policy": retry_policy,
        "include_request_attempt_count": boolean,
        "include_attempt_count_in_response": boolean,
        "include_is_timeout_retry_header": boolean,
        "metadata": metadata,
        "virtual_clusters": repeated(_virtual_cluster),
        "per_filter_config": anything,
        **_BUFFER_LIMITS,
        **_OF_ANY_LEVEL,
    },
    ignored="matcher rate_limits cors retry_policy_typed_config hedge_policy request_mirror_policies",
    required="name domains",
    legacy="per_filter_config",
)

ROUTE_CONFIG = Message(
    "envoy.config.route.v3.RouteConfiguration",
    {
        "name": text,
        "virtual_hosts": repeated(later),
        "validate_clusters": boolean,
        "max_direct_response_body_size_bytes": UINT32,
        "ignore_port_in_host_matching": boolean,
        "most_specific_header_mutations_wins": boolean,
        "internal_only_headers": repeated(field_name),
        "metadata": anything,
        **_OF_ANY_LEVEL,
    },
    ignored="vhds cluster_specifier_plugins request_mirror_policies vhost_header "
    "ignore_path_parameters_in_path_matching",
)


def _buffer_limit(values: dict[str, Any]) -> int | None:
    found: int | None = values.get("request_body_buffer_limit", values.get("per_request_buffer_limit_bytes"))
    return found


def route_config(cursor: Cursor) -> RouteConfig:
    """A `RouteConfiguration`; clusters it names are noted for the check at the end of the load."""
    values = ROUTE_CONFIG.read(cursor)
    limit = values.get("max_direct_response_body_size_bytes", DIRECT_RESPONSE_LIMIT)
    validate = values.get("validate_clusters", True)
    hosts: list[VirtualHost] = []
    taken: dict[str, str] = {}
    names: set[str] = set()
    for place in values.get("virtual_hosts", ()):
        found = VIRTUAL_HOST.read(place)
        if found["name"] in names:
            place.fail(f"virtual host name {found['name']!r} is taken already")
        names.add(found["name"])
        domains = tuple(_domain(domain, found["name"], taken) for domain in found["domains"])
        routes = [_route(route, limit, validate) for route in found.get("routes", ())]
        hosts.append(_virtual_host(found, domains, tuple(route for route in routes if route is not None)))
    return RouteConfig(
        name=values.get("name", ""),
        virtual_hosts=tuple(hosts),
        ignore_port_in_host_matching=values.get("ignore_port_in_host_matching", False),
        mutations=mutations(values),
        disabled_filters=values.get("typed_per_filter_config", {}),
        most_specific_wins=values.get("most_specific_header_mutations_wins", False),
        internal_only_headers=values.get("internal_only_headers", ()),
    )


def _virtual_host(values: dict[str, Any], domains: tuple[str, ...], routes: tuple[Route, ...]) -> VirtualHost:
    return VirtualHost(
        name=values["name"],
        domains=domains,
        routes=routes,
        mutations=mutations(values),
        disabled_filters=values.get("typed_per_filter_config", {}),
        require_tls=RequireTls(values.get("require_tls", "NONE")),
        retry_policy=values.get("retry_policy"),
        request_attempt_count=values.get("include_request_attempt_count", False),
        response_attempt_count=values.get("include_attempt_count_in_response", False),
        is_timeout_retry_header=values.get("include_is_timeout_retry_header", False),
        buffer_limit=_buffer_limit(values),
        virtual_clusters=tuple(values.get("virtual_clusters", ())),
        metadata=values.get("metadata", {}),
    )


def _domain(cursor: Cursor, host: str, taken: dict[str, str]) -> str:
    name = text(cursor)
    if not name or "*" in name[1:-1] or (len(name) > 1 and name[0] == name[-1] == "*"):
        cursor.fail(f"domain {name!r}: '*' may stand alone, at the beginning, or at the end")
    if name.lower() in taken:
        cursor.fail(f"domain {name!r} is taken by virtual host {taken[name.lower()]!r}")
    taken[name.lower()] = host
    return name


def _route(cursor: Cursor, body_limit: int, validate: bool) -> Route | None:
    """A route, or None for one that is left out (and has warned about it)."""
    values = ROUTE.read(cursor)
    if "match" not in values:
        cursor.fail("a route needs 'match'")
    match = _match(values["match"])
    action: RouteAction | DirectResponse | Redirect
    if "route" in values:
        action = route_action(values["route"], validate)
    elif "direct_response" in values:
        action = direct_response(values["direct_response"], body_limit)
    elif "redirect" in values:
        action = redirect(values["redirect"])
    elif (
        cursor.get("filter_action", "filterAction", "non_forwarding_action", "nonForwardingAction")
        is not None
    ):
        return None
    else:
        cursor.fail("a route needs one of route, direct_response, redirect")
    if match is None:
        return None
    return Route(
        match,
        action,
        name=values.get("name", ""),
        metadata=values.get("metadata", {}),
        mutations=mutations(values),
        disabled_filters=values.get("typed_per_filter_config", {}),
        buffer_limit=_buffer_limit(values),
    )


_PATHS = ("prefix", "path", "safe_regex", "path_separated_prefix")


def _match(cursor: Cursor) -> RouteMatch | None:
    """A match; None when it has a condition that cannot be checked."""
    values = MATCH.read(cursor)
    if "regex" in values:  # API v2's; `regex` of v3 is a message of its own
        place: Cursor = values.pop("regex")
        check_pattern(text(place), place)
        values["safe_regex"] = text(place)
    if any(name in MATCH.notes for name in keys_of(cursor, MATCH)):
        return None
    if not values.keys() & set(_PATHS):
        cursor.fail(f"a match needs one of {', '.join(_PATHS)}")
    separated = values.get("path_separated_prefix")
    if separated is not None and (not separated.startswith("/") or re.search(r"[?#]|/$", separated)):
        cursor.fail("path_separated_prefix begins with / and has neither ? nor # nor a / at the end")
    paths = {name: values[name] for name in _PATHS if name in values}
    return RouteMatch(
        **paths,
        case_sensitive=values.get("case_sensitive", True),
        headers=values.get("headers", ()),
        query_parameters=values.get("query_parameters", ()),
        fraction=values.get("runtime_fraction"),
        grpc="grpc" in values,
    )


def keys_of(cursor: Cursor, table: Message) -> set[str]:
    """Names of the fields of a message that are set."""
    return {table.spellings[key] for key, child in cursor.entries() if not child.is_null}
