"""Route tables: virtual hosts, routes, matches, actions.

Field tables after envoy.config.route.v3 (route.proto, route_components.proto). A route whose match has a
condition we cannot check is left out: taking it for every request could expose what it was meant to protect.
"""

from __future__ import annotations

import re
from typing import Any

from pywasmproxy.config.common import data_source, metadata
from pywasmproxy.config.document import Node, plain
from pywasmproxy.config.matchers import regex
from pywasmproxy.config.model import (
    ROUTE_TIMEOUT,
    DirectResponse,
    Redirect,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualHost,
)
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    boolean,
    duration,
    enum,
    integer,
    later,
    repeated,
    text,
    timeout,
)

DIRECT_RESPONSE_LIMIT = 4096
"""Bytes of a direct response's body unless `max_direct_response_body_size_bytes` says otherwise."""

_HEADER_MUTATIONS = (
    "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove"
)
_LEFT_OUT = "not supported yet: this whole route is left out"

_CONDITIONS = (
    "connect_matcher path_match_policy runtime_fraction headers query_parameters grpc tls_context "
    "dynamic_metadata filter_state regex runtime cookies"
)

MATCH = Message(
    "envoy.config.route.v3.RouteMatch",
    {
        "prefix": text,
        "path": text,
        "safe_regex": regex,
        "path_separated_prefix": text,
        "case_sensitive": boolean,
    },
    notes=dict.fromkeys(_CONDITIONS.split(), _LEFT_OUT),
    harmless={"headers": ([],), "query_parameters": ([],)},
    one_of=("prefix path safe_regex path_separated_prefix connect_matcher path_match_policy regex",),
    legacy="regex runtime cookies",
)

_CLUSTER_CHOICES = (
    "cluster cluster_header weighted_clusters cluster_specifier_plugin inline_cluster_specifier_plugin"
)
_NO_CLUSTER = "not supported yet: requests on this route are answered with 503"

ACTION = Message(
    "envoy.config.route.v3.RouteAction",
    {
        "cluster": later,
        "cluster_header": later,
        "weighted_clusters": later,
        "timeout": timeout,
        "idle_timeout": duration,
        "prefix_rewrite": text,
        "host_rewrite_literal": text,
        "host_rewrite": text,
    },
    ignored="cluster_not_found_response_code metadata_match regex_rewrite path_rewrite_policy path_rewrite "
    "auto_host_rewrite host_rewrite_header host_rewrite_path_regex append_x_forwarded_host flush_timeout "
    "early_data_policy retry_policy retry_policy_typed_config request_mirror_policies priority rate_limits "
    "include_vh_rate_limits hash_policy cors max_grpc_timeout grpc_timeout_offset upgrade_configs "
    "internal_redirect_policy internal_redirect_action max_internal_redirects hedge_policy "
    "max_stream_duration request_mirror_policy use_websocket auto_host_rewrite_header",
    notes={
        "cluster_specifier_plugin": _NO_CLUSTER,
        "inline_cluster_specifier_plugin": _NO_CLUSTER,
    },
    harmless={"auto_host_rewrite": (False,), "priority": ("DEFAULT", "default")},
    one_of=(
        _CLUSTER_CHOICES,
        "host_rewrite_literal host_rewrite auto_host_rewrite host_rewrite_header host_rewrite_path_regex",
        "prefix_rewrite regex_rewrite path_rewrite_policy path_rewrite",
    ),
    legacy="request_mirror_policy use_websocket auto_host_rewrite_header",
)

DIRECT = Message(
    "envoy.config.route.v3.DirectResponseAction",
    {"status": integer(200, 599), "body": data_source},
    ignored="body_format",
    required="status",
)

_REDIRECT_CODES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}

REDIRECT = Message(
    "envoy.config.route.v3.RedirectAction",
    {
        "https_redirect": boolean,
        "scheme_redirect": text,
        "host_redirect": text,
        "port_redirect": integer(0, 65535),
        "path_redirect": text,
        "prefix_rewrite": text,
        "response_code": enum("redirect code", " ".join(_REDIRECT_CODES)),
        "strip_query": boolean,
    },
    ignored="regex_rewrite",
    one_of=("https_redirect scheme_redirect", "path_redirect prefix_rewrite regex_rewrite"),
)

ROUTE = Message(
    "envoy.config.route.v3.Route",
    {
        "name": text,
        "match": later,
        "route": later,
        "redirect": later,
        "direct_response": later,
        "metadata": metadata,
    },
    ignored="decorator typed_per_filter_config tracing per_request_buffer_limit_bytes stat_prefix "
    "request_body_buffer_limit per_filter_config " + _HEADER_MUTATIONS,
    notes={"filter_action": _LEFT_OUT, "non_forwarding_action": _LEFT_OUT},
    one_of=("route redirect direct_response filter_action non_forwarding_action",),
    legacy="per_filter_config",
)

VIRTUAL_HOST = Message(
    "envoy.config.route.v3.VirtualHost",
    {"name": text, "domains": repeated(later), "routes": repeated(later)},
    ignored="matcher virtual_clusters rate_limits cors typed_per_filter_config include_request_attempt_count "
    "include_attempt_count_in_response retry_policy retry_policy_typed_config hedge_policy "
    "include_is_timeout_retry_header per_request_buffer_limit_bytes request_body_buffer_limit "
    "request_mirror_policies metadata per_filter_config require_tls " + _HEADER_MUTATIONS,
    harmless={"require_tls": ("NONE", "none")},
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
    },
    ignored="vhds internal_only_headers most_specific_header_mutations_wins cluster_specifier_plugins "
    "request_mirror_policies vhost_header ignore_path_parameters_in_path_matching typed_per_filter_config "
    "metadata " + _HEADER_MUTATIONS,
)


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
        hosts.append(
            VirtualHost(found["name"], domains, tuple(route for route in routes if route is not None))
        )
    return RouteConfig(
        values.get("name", ""), tuple(hosts), values.get("ignore_port_in_host_matching", False)
    )


def _domain(cursor: Cursor, host: str, taken: dict[str, str]) -> str:
    name = text(cursor)
    if not name or "*" in name[1:-1] or (len(name) > 1 and name[0] == name[-1] == "*"):
        cursor.fail(f"domain {name!r}: '*' may stand alone, at the beginning, or at the end")
    if name.lower() in taken:
        cursor.fail(f"domain {name!r} is taken by virtual host {taken[name.lower()]!r}")
    taken[name.lower()] = host
    return name


def _route(cursor: Cursor, body_limit: int, validate_clusters: bool) -> Route | None:
    """One route, or None for one that is left out (and has warned about it)."""
    values = ROUTE.read(cursor)
    if "match" not in values:
        cursor.fail("a route needs 'match'")
    match = _match(values["match"])
    action: RouteAction | DirectResponse | Redirect
    if "route" in values:
        action = _action(values["route"], validate_clusters)
    elif "direct_response" in values:
        action = _direct(values["direct_response"], body_limit)
    elif "redirect" in values:
        action = _redirect(values["redirect"])
    elif (
        cursor.get("filter_action", "filterAction", "non_forwarding_action", "nonForwardingAction")
        is not None
    ):
        return None
    else:
        cursor.fail("a route needs one of route, direct_response, redirect")
    if match is None:
        return None
    return Route(match, action, values.get("name", ""), values.get("metadata", {}))


def _match(cursor: Cursor) -> RouteMatch | None:
    before = len(cursor.context.warnings)
    values = MATCH.read(cursor)
    if len(cursor.context.warnings) > before:
        return None
    if not values.keys() & {"prefix", "path", "safe_regex", "path_separated_prefix"}:
        cursor.fail("a match needs one of prefix, path, safe_regex, path_separated_prefix")
    separated = values.get("path_separated_prefix")
    if separated is not None and (not separated.startswith("/") or re.search(r"[?#]|/$", separated)):
        cursor.fail("path_separated_prefix begins with / and has neither ? nor # nor a / at the end")
    return RouteMatch(**values)


def _action(cursor: Cursor, validate: bool) -> RouteAction:
    values = ACTION.read(cursor)
    place: Cursor | None = values.get("cluster")
    name = "" if place is None else text(place)
    if "weighted_clusters" in values:
        place = values["weighted_clusters"]
        name = _heaviest(place.node)
        place.warn(f"not supported yet: all requests go to {name!r}" if name else _NO_CLUSTER)
    elif place is not None and not name:
        place.fail("the name of a cluster is needed")
    elif place is None and not any(cursor.get(choice) for choice in _choices()):
        cursor.fail("a route needs 'cluster'")
    if name and validate and place is not None:
        cursor.context.cluster_references.append((name, place))
    return RouteAction(
        cluster=name,
        cluster_header=_field_name(values["cluster_header"]) if "cluster_header" in values else None,
        timeout=values.get("timeout", ROUTE_TIMEOUT),
        idle_timeout=values.get("idle_timeout"),
        prefix_rewrite=values.get("prefix_rewrite") or None,
        host_rewrite_literal=values.get("host_rewrite_literal") or values.get("host_rewrite") or None,
    )


def _field_name(cursor: Cursor) -> str:
    name = text(cursor)
    if not re.fullmatch(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        cursor.fail(f"{name!r} is no name of a header")
    return name.lower()


def _choices() -> list[str]:
    return [spelling for spelling, name in ACTION.spellings.items() if name in _CLUSTER_CHOICES.split()]


def _heaviest(node: Node) -> str:
    """The cluster with the largest weight in a `WeightedCluster`, "" if that cannot be told."""
    value: Any = plain(node)
    entries = value.get("clusters") if isinstance(value, dict) else None
    best, name = -1, ""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            weight = entry.get("weight", 0)
            if isinstance(weight, int) and weight > best:
                best, name = weight, entry["name"]
    return name


def _direct(cursor: Cursor, limit: int) -> DirectResponse:
    values = DIRECT.read(cursor)
    body, _ = values.get("body", (b"", None))
    if len(body) > limit:
        cursor.fail(f"response body size is {len(body)} bytes; maximum is {limit}")
    return DirectResponse(values["status"], body)


def _redirect(cursor: Cursor) -> Redirect:
    values = REDIRECT.read(cursor)
    return Redirect(
        status=_REDIRECT_CODES[values.get("response_code", "MOVED_PERMANENTLY")],
        https_redirect=values.get("https_redirect", False),
        scheme_redirect=values.get("scheme_redirect"),
        host_redirect=values.get("host_redirect") or None,
        port_redirect=values.get("port_redirect") or None,
        path_redirect=values.get("path_redirect") or None,
        prefix_rewrite=values.get("prefix_rewrite"),
        strip_query=values.get("strip_query", False),
    )
