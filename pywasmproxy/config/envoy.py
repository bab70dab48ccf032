"""An Envoy bootstrap file to the typed model: `load` and `load_file`.

Field table after envoy.config.bootstrap.v3; the parts are read by listeners.py, clusters.py and the files
below them. Afterwards come the checks that need the whole: unique names, routes that name existing clusters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pywasmproxy import stores
from pywasmproxy.config import common, discovery, document
from pywasmproxy.config.clusters import cluster
from pywasmproxy.config.errors import ConfigError
from pywasmproxy.config.extras import bootstrap_extensions, stats_config
from pywasmproxy.config.limits import LimitError, Limits, override, suggest
from pywasmproxy.config.listeners import listener
from pywasmproxy.config.model import (
    SNAPSHOTS_IN_MEMORY,
    SNAPSHOTS_OFF,
    Address,
    Admin,
    Bootstrap,
    Cluster,
    Listener,
    Node,
)
from pywasmproxy.config.model_stats import DEFAULT_STATS
from pywasmproxy.config.schema import Context, Cursor, Message, anything, enum, later, repeated
from pywasmproxy.config.schema import text as text_of
from pywasmproxy.config.secrets import static_secrets


def _admin_address(cursor: Cursor) -> Address | None:
    return common.address(cursor, "there is no admin server")


ADMIN = Message(
    "envoy.config.bootstrap.v3.Admin",
    {"address": _admin_address, "profile_path": anything, "ignore_global_conn_limit": anything},
    ignored="access_log access_log_path socket_options allow_paths",
    harmless={"access_log_path": ("/dev/null", "")},
)

STATIC_RESOURCES = Message(
    "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
    {"listeners": repeated(later), "clusters": repeated(later), "secrets": repeated(later)},
)

BOOTSTRAP = Message(
    "envoy.config.bootstrap.v3.Bootstrap",
    {
        "node": later,
        "admin": later,
        "static_resources": later,
        "stats_config": stats_config,
        "bootstrap_extensions": bootstrap_extensions,
        "dynamic_resources": later,
    },
    ignored="node_context_params cluster_manager hds_config flags_path stats_sinks "
    "deferred_stat_options stats_flush_interval stats_flush_on_admin stats_eviction_interval "
    "watchdog watchdogs tracing layered_runtime overload_manager enable_dispatcher_stats header_prefix "
    "stats_server_version_override use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config "
    "fatal_actions config_sources default_config_source default_socket_interface "
    "certificate_provider_instances inline_headers perf_tracing_file_path default_regex_engine "
    "xds_delegate_extension xds_config_tracker_extension listener_manager application_log_config "
    "grpc_async_client_manager_config memory_allocator_manager runtime stats_server_version "
    "rate_limit_service",
    legacy="runtime stats_server_version rate_limit_service",
)

SETTINGS_KEY = "pywasmvm"
"""Key of our own settings in `node.metadata`."""

_OTHER_SETTINGS = ["struct_configuration", "snapshots", "store"]


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a configuration file. ConfigError if it cannot be read."""
    name = os.fspath(path)
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(name, 0, "", f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(name, 0, "", f"is not UTF-8 text (byte {error.start})") from None


def load_file(path: str | os.PathLike[str]) -> Bootstrap:
    """Reads a bootstrap file. ConfigError if it cannot be read or used; see `load`."""
    name = os.fspath(path)
    text = read_text(path)
    bootstrap = load(text, name)
    return replace(bootstrap, files=(name, *bootstrap.files))


def load(
    text: str,
    source_name: str = "<string>",
    *,
    directory: str | os.PathLike[str] = "",
    environ: Mapping[str, str] | None = None,
) -> Bootstrap:
    """Reads the text of a bootstrap (YAML or JSON).

    Files it names are looked up from `directory` (default: the working directory, as Envoy does), environment
    variables in `environ` (default: this process's). ConfigError with file, line, path, and where one can be
    guessed a suggestion, for anything unknown, malformed or contradictory.
    """
    root = document.parse(text, source_name)
    variables = dict(os.environ) if environ is None else environ
    context = Context(source_name, Path(directory), variables)
    values = BOOTSTRAP.read(Cursor(root, "", context))
    node, ours = Node(), Settings()
    if "node" in values:
        ours = _settings(values["node"])
        node = common.node(values["node"])
    admin = _admin(values["admin"]) if "admin" in values else None
    listeners, clusters = _resources(values.get("static_resources"), values.get("dynamic_resources"))
    return Bootstrap(
        listeners=listeners,
        clusters=clusters,
        admin=admin,
        node=node,
        limits=ours.limits,
        snapshots=ours.snapshots,
        store=ours.store,
        services=values.get("bootstrap_extensions", ()),
        stats=values.get("stats_config", DEFAULT_STATS),
        honoured=tuple((title, tuple(names)) for title, names in context.honoured.items()),
        warnings=tuple(sorted(context.warnings, key=lambda warning: warning.line)),
        source_name=source_name,
        document=document.plain(root) if isinstance(root, document.Mapping) else {},
        files=tuple(str(context.directory / name) for name in context.files),
        discovered=tuple(context.discovered),
    )


def _admin(cursor: Cursor) -> Admin | None:
    """None for an admin section without an address: Envoy does not listen either."""
    where = ADMIN.read(cursor).get("address")
    return None if where is None else Admin(where)


class Settings(NamedTuple):
    """Our own settings, as in `Bootstrap`."""

    limits: Limits = Limits()
    snapshots: str = ""
    store: str = ""


def _settings(node: Cursor) -> Settings:
    """What `node.metadata.pywasmvm` says. Also sets how Structs reach the guest."""
    limits, snapshots, store = Settings()
    metadata = node.get("metadata")
    ours = metadata.get(SETTINGS_KEY) if metadata is not None else None
    for key, place in ours.entries() if ours is not None else ():
        if key == "struct_configuration":
            node.context.wire_structs = enum("form of a Struct", "JSON PROTOBUF")(place) == "PROTOBUF"
            continue
        value: Any = document.plain(place.node)
        if key == "snapshots":
            snapshots = SNAPSHOTS_OFF if value is False else text_of(place) or SNAPSHOTS_OFF
            if snapshots not in (SNAPSHOTS_OFF, SNAPSHOTS_IN_MEMORY):
                snapshots = str(node.context.directory / snapshots)
            continue
        if key == "store":
            store = _store(place)
            continue
        try:
            limits = override(limits, key, value)
        except LimitError as error:
            place.fail(error.message, error.suggestion or suggest(key, _OTHER_SETTINGS))
    return Settings(limits, snapshots, store)


def _store(place: Cursor) -> str:
    """The name of a store; a relative path is one from the folder of other relative paths."""
    name = text_of(place)
    if name and not stores.known(name):
        place.fail(f"a store is {stores.FORMS}, not {name!r}")
    if name.startswith(stores.SQLITE):
        return stores.SQLITE + str(place.context.directory / name.removeprefix(stores.SQLITE))
    return name


def _resources(
    static: Cursor | None, dynamic: Cursor | None
) -> tuple[tuple[Listener, ...], tuple[Cluster, ...]]:
    """Listeners and clusters, with the checks that need both."""
    values = {} if static is None else STATIC_RESOURCES.read(static)
    for place in values.get("secrets", ()):
        static_secrets(place)
    more_listeners, more_clusters, complete = discovery.dynamic(dynamic)
    places = [*values.get("clusters", ()), *more_clusters]
    clusters = _unique("cluster", [(cluster(place), place) for place in places])
    read = [(listener(place), place) for place in (*values.get("listeners", ()), *more_listeners)]
    listeners = _unique("listener", [(found, place) for found, place in read if found is not None])
    names = [found.name for found in clusters]
    known = static or dynamic
    if known is not None and complete:
        context = known.context
        for name, place in context.cluster_references:
            if name not in names:
                place.fail(f"unknown cluster {name!r}", suggest(name, names))
        for name, place in context.named_host_references:
            if not any(found.host_name for found in clusters if found.name == name):
                place.warn(f"the hosts of cluster {name!r} have not one name for all: requests keep theirs")
        for name, place in context.tcp_cluster_references:
            if name not in names:
                place.warn(f"unknown cluster {name!r}: connections are closed")
    return listeners, clusters


_Named = TypeVar("_Named", Listener, Cluster)


def _unique(what: str, found: list[tuple[_Named, Cursor]]) -> tuple[_Named, ...]:
    """The things found; an error if two have one name."""
    taken: set[str] = set()
    for thing, place in found:
        if thing.name in taken:
            place.fail(f"{what} name {thing.name!r} is taken already")
        taken.add(thing.name)
    return tuple(thing for thing, _ in found)
