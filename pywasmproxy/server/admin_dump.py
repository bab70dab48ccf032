"""What the admin server says about configuration, clusters and listeners: Envoy's shapes (1.40, measured)."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pywasmproxy.server.admin_redacted import shown, snake
from pywasmproxy.server.view import HostView, PluginView, View
from pywasmvm import __version__

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

_TYPE = "type.googleapis.com/envoy.admin.v3."


def _part(document: Mapping[str, Any], *names: str) -> Any:
    """What is at a place, whichever way the names are spelt; None when nothing is."""
    found: Any = document
    for name in names:
        if not isinstance(found, Mapping):
            return None
        found = next((child for key, child in found.items() if snake(str(key)) == name), None)
    return found


def config_dump(server: Server, view: View) -> list[dict[str, Any]]:
    """What was loaded: Envoy's parts, and one of ours with what was ignored, what plugins became of it, and
    what each worker has: while a configuration is loaded anew, not all have the same one."""
    document = shown(server.bootstrap.document)
    updated = server.loaded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    listeners = _part(document, "static_resources", "listeners") or []
    clusters = _part(document, "static_resources", "clusters") or []
    secrets = _part(document, "static_resources", "secrets") or []
    routes = [route for listener in listeners for route in _route_configs(listener)]
    extensions = _discovered(server, "TypedExtensionConfig", updated)
    return [
        {"@type": f"{_TYPE}BootstrapConfigDump", "bootstrap": document, "last_updated": updated},
        {
            "@type": f"{_TYPE}ClustersConfigDump",
            "static_clusters": [{"cluster": one, "last_updated": updated} for one in clusters],
            **_discovered(server, "Cluster", updated),
        },
        {
            "@type": f"{_TYPE}ListenersConfigDump",
            "static_listeners": [{"listener": one, "last_updated": updated} for one in listeners],
            **_discovered(server, "Listener", updated),
        },
        {
            "@type": f"{_TYPE}RoutesConfigDump",
            "static_route_configs": [{"route_config": one, "last_updated": updated} for one in routes],
            **_discovered(server, "RouteConfiguration", updated),
        },
        {
            "@type": f"{_TYPE}SecretsConfigDump",
            "static_secrets": [{"name": str(_part(one, "name") or ""), "secret": one} for one in secrets],
            **_discovered(server, "Secret", updated),
        },
        *([{"@type": f"{_TYPE}EcdsConfigDump", **extensions}] if extensions else []),
        {
            "@type": "pywasmvm/Report",
            "source": server.bootstrap.source_name,
            "generation": server.generation,
            "ignored": [dataclasses.asdict(warning) for warning in server.bootstrap.warnings],
            "limits": dataclasses.asdict(server.bootstrap.limits),
            "files": list(server.bootstrap.files),
            "plugins": [_plugin(plugin, view) for plugin in view.plugins],
            "workers": [worker.as_dict() for worker in view.workers],
            "workers_agree": view.agree,
        },
    ]


_DYNAMIC = {
    "Cluster": ("dynamic_active_clusters", "cluster"),
    "Listener": ("dynamic_listeners", "listener"),
    "RouteConfiguration": ("dynamic_route_configs", "route_config"),
    "Secret": ("dynamic_active_secrets", "secret"),
    "TypedExtensionConfig": ("ecds_filters", "ecds_filter"),
}
"""Kinds of resources in files of their own: the list that they are in, and their name in it."""


def _discovered(server: Server, kind: str, updated: str) -> dict[str, Any]:
    """The resources of a kind that stand in files of their own, with the versions that the files say."""
    listed, name = _DYNAMIC[kind]
    found: list[dict[str, Any]] = []
    versions = set()
    for _, version, written in (one for one in server.bootstrap.discovered if one[0] == kind):
        versions.add(version)
        state = {name: shown(written), "last_updated": updated}
        if version:
            state = {"version_info": version, **state}
        called = str(_part(state[name], "name") or "")
        if kind == "Listener":
            state = {"name": called, "active_state": state}
        elif kind == "Secret":
            state = {"name": called, **state}
        found.append(state)
    if not found:
        return {}
    of_all = kind in ("Cluster", "Listener") and len(versions) == 1 and versions != {""}
    return {**({"version_info": next(iter(versions))} if of_all else {}), listed: found}


def _plugin(plugin: PluginView, view: View) -> dict[str, Any]:
    names = ("name", "root_id", "vm_id", "code", "sha256", "failure_policy", "abi")
    found = {name: getattr(plugin, name) for name in names} | {"failed": bool(plugin.failed)}
    if some := view.some(plugin.workers):
        found["workers"] = some
    if plugin.failed and (some := view.some(plugin.failed)):
        found["failed_in"] = some
    return found


def _route_configs(node: Any) -> Iterable[Any]:
    """Every `route_config` in a listener."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            if snake(str(key)) == "route_config":
                yield child
            else:
                yield from _route_configs(child)
    elif isinstance(node, list):
        for child in node:
            yield from _route_configs(child)


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def listeners(view: View) -> dict[str, Any]:
    """Names and addresses; those that only some workers have say which."""
    statuses = []
    for port in view.ports:
        status: dict[str, Any] = {"name": port.name, "local_address": _socket_address(port.host, port.port)}
        if some := view.some(port.workers):
            status["workers"] = some
        statuses.append(status)
    return {"listener_statuses": statuses}


# --- clusters -------------------------------------------------------------------------------------------


def clusters(view: View) -> dict[str, Any]:
    """Hosts and what they were asked."""
    statuses = [
        {
            "name": cluster.name,
            "host_statuses": [_host(host, view) for host in cluster.hosts],
            "circuit_breakers": {"thresholds": [cluster.thresholds]},
            "observability_name": cluster.name,
        }
        for cluster in view.clusters
    ]
    return {"cluster_statuses": statuses}


def _host(host: HostView, view: View) -> dict[str, Any]:
    def value(number: int) -> dict[str, str]:
        return {"value": str(number)} if number else {}

    stats: list[dict[str, Any]] = [{"name": name, **value(number)} for name, number in host.counters.items()]
    stats += [{"type": "GAUGE", "name": name, **value(number)} for name, number in host.gauges.items()]
    health: dict[str, Any] = {}
    if "failed_active_hc" in host.against:
        health["failed_active_health_check"] = True
    if "failed_outlier_check" in host.against:
        health["failed_outlier_check"] = True
    health["eds_health_status"] = "UNHEALTHY" if "failed_eds_health" in host.against else "HEALTHY"
    found: dict[str, Any] = {
        "address": _socket_address(host.host, host.port),
        "stats": stats,
        "health_status": health,
        "weight": host.weight,
    }
    said = {flag: some for flag, workers in host.against.items() if (some := view.some(workers))}
    if said:
        found["said_by_workers"] = said
    if some := view.some(host.workers):
        found["workers"] = some
    return found


def clusters_text(view: View) -> str:
    """The same as lines."""
    lines = []
    for cluster in view.clusters:
        name = cluster.name
        lines.append(f"{name}::observability_name::{name}")
        lines += [f"{name}::default_priority::{key}::{value}" for key, value in cluster.thresholds.items()]
        lines.append(f"{name}::added_via_api::false")
        for host in cluster.hosts:
            of_host = f"{name}::{host.name}"
            numbers = sorted((host.counters | host.gauges).items())
            lines += [f"{of_host}::{key}::{value}" for key, value in numbers]
            lines.append(f"{of_host}::hostname::{host.hostname}")
            lines.append(f"{of_host}::health_flags::{host.flags}")
            for flag, workers in host.against.items():
                if some := view.some(workers):
                    lines.append(f"{of_host}::{flag}_in_workers::{_listed(some)}")
            if some := view.some(host.workers):
                lines.append(f"{of_host}::workers::{_listed(some)}")
            lines.append(f"{of_host}::weight::{host.weight}")
            lines.append(f"{of_host}::priority::{host.priority}")
    return "".join(f"{line}\n" for line in lines)


def _listed(workers: Iterable[int]) -> str:
    return ",".join(map(str, workers))


# --- the process ----------------------------------------------------------------------------------------


def certificates(server: Server) -> list[dict[str, Any]]:
    """Files of certificates that listeners and clusters name."""
    found: list[dict[str, Any]] = []

    def look(node: Any) -> None:
        if isinstance(node, Mapping):
            for key, child in node.items():
                if snake(str(key)) in ("certificate_chain", "trusted_ca") and isinstance(child, Mapping):
                    which = "cert_chain" if snake(str(key)) == "certificate_chain" else "ca_cert"
                    found.append({which: [{"path": str(_part(child, "filename") or "<inline>")}]})
                else:
                    look(child)
        elif isinstance(node, list):
            for child in node:
                look(child)

    look(shown(server.bootstrap.document))
    return found


def server_info(server: Server, view: View) -> dict[str, Any]:
    """Version, state and how the process was started; with several workers, all of them."""
    workers = {"workers": [worker.as_dict() for worker in view.workers]} if server.seat is not None else {}
    seconds = f"{server.measures.uptime}s"
    return {
        "version": f"pywasmvm/{__version__}/{platform.python_implementation()}-{platform.python_version()}",
        "state": view.state,
        "uptime_current_epoch": seconds,
        "uptime_all_epochs": seconds,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "base_id": "0",
            "concurrency": len(server.seat.balance) if server.seat is not None else 1,
            "config_path": server.bootstrap.source_name,
            "drain_time": f"{server.drain_time:g}s",
            "mode": "Serve",
            "restart_epoch": 0,
        },
        "node": shown(server.bootstrap.node.as_dict()),
        "process": {
            "pid": os.getpid(),
            "http_parser": server.parser.name,
            "started_at": server.started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        },
        **workers,
    }


def now() -> datetime.datetime:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC)
