"""Resources in files of their own: listeners, clusters, routes, configurations of filters.

Source: envoy.config.core.v3.ConfigSource with a path, envoy.service.discovery.v3.DiscoveryResponse. Such a
file belongs to the configuration like any other: it is watched, and a change of it loads all of it anew.
Sources that are servers (`api_config_source`, `ads`) are not there: who names one is told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pywasmproxy.config import document
from pywasmproxy.config.schema import Cursor, Message, anything, enum, later, repeated, text

PATH_SOURCE = Message(
    "envoy.config.core.v3.PathConfigSource",
    {"path": later, "watched_directory": anything},
    required="path",
)

CONFIG_SOURCE = Message(
    "envoy.config.core.v3.ConfigSource",
    {
        "path_config_source": PATH_SOURCE.read,
        "path": later,
        "resource_api_version": enum("API version", "AUTO V2 V3"),
        "initial_fetch_timeout": anything,  # a file is there or it is not
    },
    ignored="authorities api_config_source ads self",
    one_of=("path_config_source path api_config_source ads self",),
)

RESPONSE = Message(
    "envoy.service.discovery.v3.DiscoveryResponse",
    {"resources": repeated(later), "version_info": anything, "type_url": anything, "nonce": anything},
    ignored="canary control_plane resource_errors",
)

DYNAMIC_RESOURCES = Message(
    "envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
    {"lds_config": later, "cds_config": later},
    ignored="lds_resources_locator cds_resources_locator ads_config",
)

DISCOVERY = Message(
    "envoy.config.core.v3.ExtensionConfigSource",
    {
        "config_source": later,
        "default_config": later,
        "type_urls": anything,
        "apply_default_config_without_warming": anything,
    },
    required="config_source",
)

EXTENSION = Message(
    "envoy.config.core.v3.TypedExtensionConfig", {"name": text, "typed_config": later}, required="name"
)


def resources(source: Cursor, kind: str) -> list[Cursor] | None:
    """The resources of a kind (`Listener`, ...) in the file that a `ConfigSource` names.

    None for a source that is no file; then there has been a warning.
    """
    values = CONFIG_SOURCE.read(source)
    place: Cursor | None = values.get("path_config_source", {}).get("path") or values.get("path")
    if place is None:
        return None
    name = text(place)
    try:
        written = place.context.read_file(name, place).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place.fail(f"{name} is not UTF-8 text (byte {error.start})")
    context = replace(place.context, file=str(place.context.directory / name))
    response = Cursor(document.parse(written, context.file), "", context)
    found: list[Cursor] = RESPONSE.read(response).get("resources", [])
    said = response.get("version_info", "versionInfo")
    version = "" if said is None else text(said)
    for one in found:
        url = one.get("@type")
        if url is None or not text(url).endswith(f".{kind}"):
            one.fail(f"a {kind} was expected here, by its '@type'")
        resource = (kind, version, document.plain(one.node))
        if resource not in context.discovered:  # a file may be asked for several of its resources
            context.discovered.append(resource)
    return found


def dynamic(cursor: Cursor | None) -> tuple[list[Cursor], list[Cursor], bool]:
    """Listeners and clusters in files, and whether that is all there will be: no server was named."""
    if cursor is None:
        return [], [], True
    values = DYNAMIC_RESOURCES.read(cursor)
    complete = all(cursor.get(*spellings) is None for spellings in _SERVERS)
    found: dict[str, list[Cursor]] = {}
    for field, kind in (("lds_config", "Listener"), ("cds_config", "Cluster")):
        listed = resources(values[field], kind) if field in values else []
        complete = complete and listed is not None
        found[field] = listed or []
    return found["lds_config"], found["cds_config"], complete


_SERVERS = (
    ("ads_config", "adsConfig"),
    ("cds_resources_locator", "cdsResourcesLocator"),
    ("lds_resources_locator", "ldsResourcesLocator"),
)


def named(source: Cursor, kind: str, name: str) -> Cursor | None:
    """The resource with a name in the file of a `ConfigSource`; None for a source that is no file."""
    listed = resources(source, kind)
    if listed is None:
        return None
    for one in listed:
        place = one.get("name")
        if place is not None and text(place) == name:
            return one
    source.fail(f"the file has no {kind} called {name!r}")


def extension(cursor: Cursor, name: str) -> Cursor | None:
    """The `typed_config` of a filter by that name, found where an `ExtensionConfigSource` says; else its
    `default_config`; None where there is neither.
    """
    values: dict[str, Any] = DISCOVERY.read(cursor)
    found = named(values["config_source"], "TypedExtensionConfig", name)
    if found is None:
        return values.get("default_config")
    return EXTENSION.read(found).get("typed_config")
