"""What routes do with a request: send it to a cluster, answer it, redirect it.

Field tables after envoy.config.route.v3 (route_components.proto).
"""

from __future__ import annotations

import re

from pywasmproxy.config.common import data_source
from pywasmproxy.config.matchers import SUBSTITUTE
from pywasmproxy.config.model_routes import (
    ROUTE_TIMEOUT,
    DirectResponse,
    HashPolicy,
    HashSource,
    Redirect,
    RegexRewrite,
    RouteAction,
    WeightedCluster,
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
    duration,
    enum,
    integer,
    later,
    repeated,
    text,
    timeout,
)


def rewrite(cursor: Cursor) -> RegexRewrite:
    """A `RegexMatchAndSubstitute`."""
    values = SUBSTITUTE.read(cursor)
    found = RegexRewrite(values["pattern"], values.get("substitution", ""))
    groups = re.compile(found.pattern.encode()).groups
    for escaped in re.findall(r"\\(.?)", found.substitution, re.DOTALL):
        if escaped != "\\" and not (escaped.isascii() and escaped.isdigit()):
            cursor.fail(
                f"substitution {found.substitution!r}: a backslash stands before a digit or another one"
            )
        if escaped.isdigit() and int(escaped) > groups:
            cursor.fail(f"substitution {found.substitution!r}: the pattern has {groups} groups")
    return found


_NAME = "envoy.config.route.v3.WeightedCluster"

CLUSTER_WEIGHT = Message(
    f"{_NAME}.ClusterWeight",
    {
        "name": later,
        "cluster_header": field_name,
        "weight": UINT32,
        "host_rewrite_literal": text,
        "typed_per_filter_config": per_filter,
        "per_filter_config": per_filter,
        **MUTATION_FIELDS,
    },
    ignored="metadata_match",
    one_of=("name cluster_header",),
    legacy="per_filter_config",
)

WEIGHTED = Message(
    _NAME,
    {
        "clusters": repeated(later),
        "total_weight": integer(1, (1 << 32) - 1),
        "runtime_key_prefix": anything,  # there is no runtime
    },
    ignored="header_name use_hash_policy",
    required="clusters",
)

_HASH = "envoy.config.route.v3.RouteAction.HashPolicy"

HASH_HEADER = Message(
    f"{_HASH}.Header", {"header_name": field_name, "regex_rewrite": rewrite}, required="header_name"
)
HASH_COOKIE = Message(
    f"{_HASH}.Cookie", {"name": text, "ttl": duration, "path": text}, ignored="attributes", required="name"
)
HASH_CONNECTION = Message(f"{_HASH}.ConnectionProperties", {"source_ip": boolean})
HASH_QUERY = Message(f"{_HASH}.QueryParameter", {"name": text}, required="name")

HASH_POLICY = Message(
    _HASH,
    {
        "header": HASH_HEADER.read,
        "cookie": HASH_COOKIE.read,
        "connection_properties": HASH_CONNECTION.read,
        "query_parameter": HASH_QUERY.read,
        "terminal": boolean,
    },
    ignored="filter_state",
    one_of=("header cookie connection_properties query_parameter filter_state",),
)


def _hash_policy(cursor: Cursor) -> HashPolicy | None:
    values = HASH_POLICY.read(cursor)
    terminal = values.get("terminal", False)
    match values:
        case {"header": found}:
            name = found["header_name"]
            return HashPolicy(HashSource.HEADER, name, terminal, found.get("regex_rewrite"))
        case {"cookie": found}:
            where = found.get("path", "")
            return HashPolicy(HashSource.COOKIE, found["name"], terminal, None, found.get("ttl"), where)
        case {"query_parameter": found}:
            return HashPolicy(HashSource.QUERY_PARAMETER, found["name"], terminal)
        case {"connection_properties": found} if found.get("source_ip"):
            return HashPolicy(HashSource.SOURCE_IP, "", terminal)
    return None


UPGRADE = Message(
    "envoy.config.route.v3.RouteAction.UpgradeConfig",
    {"upgrade_type": text, "enabled": boolean},
    ignored="connect_config",
)


def route_upgrade(cursor: Cursor) -> tuple[str, bool]:
    """A protocol in lower case, and whether requests may change to it."""
    values = UPGRADE.read(cursor)
    return upgrade_name(values.get("upgrade_type", ""), cursor), values.get("enabled", True)


def upgrade_name(written: str, cursor: Cursor) -> str:
    """A protocol to change to, in lower case."""
    name = written.lower()
    if name in ("", "connect", "connect-udp"):
        cursor.warn(f"upgrade type {written!r} is not supported: such requests are refused")
    return name


_CLUSTER_CHOICES = (
    "cluster cluster_header weighted_clusters cluster_specifier_plugin inline_cluster_specifier_plugin"
)
_NO_CLUSTER = "not supported yet: requests on this route are answered with 503"
_NOT_FOUND = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500}

ACTION = Message(
    "envoy.config.route.v3.RouteAction",
    {
        "cluster": later,
        "cluster_header": field_name,
        "weighted_clusters": later,
        "timeout": timeout,
        "idle_timeout": duration,
        "prefix_rewrite": text,
        "regex_rewrite": rewrite,
        "host_rewrite_literal": text,
        "host_rewrite": text,
        "host_rewrite_header": field_name,
        "auto_host_rewrite_header": field_name,
        "host_rewrite_path_regex": rewrite,
        "auto_host_rewrite": boolean,
        "append_x_forwarded_host": boolean,
        "retry_policy": retry_policy,
        "priority": enum("priority", "DEFAULT HIGH"),
        "hash_policy": repeated(_hash_policy),
        "upgrade_configs": repeated(route_upgrade),
        "cluster_not_found_response_code": enum("response code", " ".join(_NOT_FOUND)),
    },
    ignored="metadata_match path_rewrite_policy path_rewrite flush_timeout "
    "early_data_policy retry_policy_typed_config request_mirror_policies rate_limits "
    "include_vh_rate_limits cors max_grpc_timeout grpc_timeout_offset "
    "internal_redirect_policy internal_redirect_action max_internal_redirects hedge_policy "
    "max_stream_duration request_mirror_policy use_websocket",
    notes={
        "cluster_specifier_plugin": _NO_CLUSTER,
        "inline_cluster_specifier_plugin": _NO_CLUSTER,
    },
    harmless={"include_vh_rate_limits": (True, False)},
    one_of=(
        _CLUSTER_CHOICES,
        "host_rewrite_literal host_rewrite auto_host_rewrite host_rewrite_header auto_host_rewrite_header "
        "host_rewrite_path_regex",
        "prefix_rewrite regex_rewrite path_rewrite_policy path_rewrite",
    ),
    legacy="request_mirror_policy use_websocket auto_host_rewrite_header",
)


def route_action(cursor: Cursor, validate: bool) -> RouteAction:
    """A `RouteAction`; clusters it names are noted for the check at the end of the load if `validate`."""
    values = ACTION.read(cursor)
    place: Cursor | None = values.get("cluster")
    name = "" if place is None else _cluster(place, validate)
    if place is None and not any(cursor.get(choice) for choice in _choices()):
        cursor.fail("a route needs 'cluster'")
    if values.get("auto_host_rewrite") and name:
        cursor.context.named_host_references.append(
            (name, cursor.get("auto_host_rewrite", "autoHostRewrite") or cursor)
        )
    weighted = _weighted(values["weighted_clusters"], validate) if "weighted_clusters" in values else ()
    return RouteAction(
        cluster=name,
        cluster_header=values.get("cluster_header"),
        weighted_clusters=weighted,
        timeout=values.get("timeout", ROUTE_TIMEOUT),
        idle_timeout=values.get("idle_timeout"),
        prefix_rewrite=values.get("prefix_rewrite") or None,
        regex_rewrite=values.get("regex_rewrite"),
        host_rewrite_literal=values.get("host_rewrite_literal") or values.get("host_rewrite") or None,
        host_rewrite_header=values.get("host_rewrite_header") or values.get("auto_host_rewrite_header"),
        host_rewrite_path_regex=values.get("host_rewrite_path_regex"),
        auto_host_rewrite=values.get("auto_host_rewrite", False),
        append_x_forwarded_host=values.get("append_x_forwarded_host", False),
        retry_policy=values.get("retry_policy"),
        high_priority=values.get("priority") == "HIGH",
        hash_policy=tuple(one for one in values.get("hash_policy", ()) if one is not None),
        upgrades=dict(values.get("upgrade_configs", ())),
        cluster_not_found_status=_NOT_FOUND[
            values.get("cluster_not_found_response_code", "SERVICE_UNAVAILABLE")
        ],
    )


def _cluster(cursor: Cursor, validate: bool) -> str:
    name = text(cursor)
    if not name:
        cursor.fail("the name of a cluster is needed")
    if validate:
        cursor.context.cluster_references.append((name, cursor))
    return name


def _choices() -> list[str]:
    return [spelling for spelling, name in ACTION.spellings.items() if name in _CLUSTER_CHOICES.split()]


def _weighted(cursor: Cursor, validate: bool) -> tuple[WeightedCluster, ...]:
    values = WEIGHTED.read(cursor)
    found: list[WeightedCluster] = []
    for place in values["clusters"]:
        entry = CLUSTER_WEIGHT.read(place)
        header: str | None = entry.get("cluster_header")
        if "name" not in entry and header is None:
            place.fail("a weighted cluster needs 'name' or 'cluster_header'")
        found.append(
            WeightedCluster(
                name=_cluster(entry["name"], validate) if "name" in entry else "",
                weight=entry.get("weight", 0),
                mutations=mutations(entry),
                host_rewrite=entry.get("host_rewrite_literal") or None,
                cluster_header=header,
                disabled_filters=entry.get("typed_per_filter_config", {}),
            )
        )
    if not sum(one.weight for one in found):
        cursor.fail("the weights of the clusters must not all be zero")
    return tuple(found)


# --- answers ----------------------------------------------------------------------------------------------

DIRECT = Message(
    "envoy.config.route.v3.DirectResponseAction",
    {"status": integer(200, 599), "body": data_source},
    ignored="body_format",
    required="status",
)


def direct_response(cursor: Cursor, limit: int) -> DirectResponse:
    """A `DirectResponseAction` with a body of at most `limit` bytes."""
    values = DIRECT.read(cursor)
    body, _ = values.get("body", (b"", None))
    if len(body) > limit:
        cursor.fail(f"response body size is {len(body)} bytes; maximum is {limit}")
    return DirectResponse(values["status"], body)


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
        "regex_rewrite": rewrite,
        "response_code": enum("redirect code", " ".join(_REDIRECT_CODES)),
        "strip_query": boolean,
    },
    one_of=("https_redirect scheme_redirect", "path_redirect prefix_rewrite regex_rewrite"),
)


def redirect(cursor: Cursor) -> Redirect:
    """A `RedirectAction`."""
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
        regex_rewrite=values.get("regex_rewrite"),
    )
