"""What the admin server says about configuration, clusters and listeners: Envoy's shapes (1.40, measured)."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pywasmproxy.config.model import Address
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.hosts import Host
from pywasmvm import __version__

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

_TYPE = "type.googleapis.com/envoy.admin.v3."

REDACTED = "[redacted]"

_SECRET = frozenset(
    ("private_key", "password", "session_ticket_keys", "pkcs12", "generic_secret", "hmac_secret", "secret")
)
"""Fields whose content is not shown, in whatever spelling."""

LONGEST_TEXT = 4096
"""Characters of a text that are shown: code may be written into a configuration."""


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def shown(value: Any) -> Any:
    """A configuration as it may be seen: without secrets and without megabytes."""
    if isinstance(value, Mapping):
        return {
            str(key): _redacted(child) if _snake(str(key)) in _SECRET else shown(child)
            for key, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [shown(child) for child in value]
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"[{len(value)} characters]"
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _redacted(value: Any) -> Any:
    """The form of a secret: Envoy keeps it, too."""
    if isinstance(value, Mapping):
        return {str(key): _redacted(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(child) for child in value]
    return REDACTED


def _part(document: Mapping[str, Any], *names: str) -> Any:
    """What is at a place, whichever way the names are spelt; None when nothing is."""
    found: Any = document
    for name in names:
        if not isinstance(found, Mapping):
            return None
        found = next((child for key, child in found.items() if _snake(str(key)) == name), None)
    return found


def config_dump(server: Server) -> list[dict[str, Any]]:
    """What was loaded: Envoy's parts, and one of ours with what was ignored and what plugins became of it."""
    document = shown(server.bootstrap.document)
    updated = server.loaded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    listeners = _part(document, "static_resources", "listeners") or []
    clusters = _part(document, "static_resources", "clusters") or []
    secrets = _part(document, "static_resources", "secrets") or []
    routes = [route for listener in listeners for route in _route_configs(listener)]
    return [
        {"@type": f"{_TYPE}BootstrapConfigDump", "bootstrap": document, "last_updated": updated},
        {
            "@type": f"{_TYPE}ClustersConfigDump",
            "static_clusters": [{"cluster": one, "last_updated": updated} for one in clusters],
        },
        {
            "@type": f"{_TYPE}ListenersConfigDump",
            "static_listeners": [{"listener": one, "last_updated": updated} for one in listeners],
        },
        {
            "@type": f"{_TYPE}RoutesConfigDump",
            "static_route_configs": [{"route_config": one, "last_updated": updated} for one in routes],
        },
        {
            "@type": f"{_TYPE}SecretsConfigDump",
            "static_secrets": [{"name": str(_part(one, "name") or ""), "secret": one} for one in secrets],
        },
        {
            "@type": "pywasmvm/Report",
            "source": server.bootstrap.source_name,
            "generation": server.generation,
            "ignored": [dataclasses.asdict(warning) for warning in server.bootstrap.warnings],
            "limits": dataclasses.asdict(server.bootstrap.limits),
            "files": list(server.bootstrap.files),
            "plugins": [_plugin(slot) for slot in server.filters.slots],
        },
    ]


def _plugin(slot: Any) -> dict[str, Any]:
    config = slot.config
    return {
        "name": config.name,
        "root_id": config.root_id,
        "vm_id": config.vm_id,
        "code": config.code.filename or (config.code.remote.uri if config.code.remote else "inline"),
        "sha256": config.code.sha256,
        "failure_policy": config.failure_policy.value,
        "abi": slot.plugin.vm.version.value,
        "failed": slot.plugin.failed,
    }


def _route_configs(node: Any) -> Iterable[Any]:
    """Every `route_config` in a listener."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            if _snake(str(key)) == "route_config":
                yield child
            else:
                yield from _route_configs(child)
    elif isinstance(node, list):
        for child in node:
            yield from _route_configs(child)


def _socket_address(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def listeners(server: Server) -> dict[str, Any]:
    """Names and addresses."""
    statuses = [
        {"name": name, "local_address": _socket_address(address)}
        for name, address in server.addresses.items()
    ]
    return {"listener_statuses": statuses}


# --- clusters -------------------------------------------------------------------------------------------


def _host_numbers(cluster: Cluster, host: Host) -> tuple[dict[str, int], dict[str, int]]:
    """Counters and gauges of a host."""
    counts = cluster.counts.host(str(host))
    counters = {name: getattr(counts, name) for name in counts.names}
    connections = sum(one.host is host for one in cluster.connections)
    return counters, {"cx_active": connections, "rq_active": host.active}


def _thresholds(cluster: Cluster) -> dict[str, int]:
    breaker = cluster.config.circuit_breaker
    return {
        "max_connections": breaker.max_connections,
        "max_pending_requests": breaker.max_pending_requests,
        "max_requests": breaker.max_requests,
        "max_retries": breaker.max_retries,
    }


def clusters(found: Iterable[Cluster]) -> dict[str, Any]:
    """Hosts and what they were asked."""
    statuses = []
    for cluster in found:
        hosts = []
        for host in cluster.hosts.hosts:
            counters, gauges = _host_numbers(cluster, host)
            stats: list[dict[str, Any]] = [
                {"name": name, **({"value": str(value)} if value else {})} for name, value in counters.items()
            ]
            stats += [
                {"type": "GAUGE", "name": name, **({"value": str(value)} if value else {})}
                for name, value in gauges.items()
            ]
            hosts.append(
                {
                    "address": _socket_address(host.address),
                    "stats": stats,
                    "health_status": _health(host),
                    "weight": host.weight,
                }
            )
        statuses.append(
            {
                "name": cluster.name,
                "host_statuses": hosts,
                "circuit_breakers": {"thresholds": [_thresholds(cluster)]},
                "observability_name": cluster.name,
            }
        )
    return {"cluster_statuses": statuses}


def _health(host: Host) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    if host.check_failed:
        flags["failed_active_health_check"] = True
    if host.ejected:
        flags["failed_outlier_check"] = True
    return flags | {"eds_health_status": "HEALTHY" if host.endpoint.healthy else "UNHEALTHY"}


def health_flags(host: Host) -> str:
    """What speaks against a host, in the words of `/clusters`."""
    flags = "/failed_active_hc" if host.check_failed else ""
    flags += "/failed_outlier_check" if host.ejected else ""
    flags += "" if host.endpoint.healthy else "/failed_eds_health"
    return flags or "healthy"


def clusters_text(found: Iterable[Cluster]) -> str:
    """The same as lines."""
    lines = []
    for cluster in found:
        name = cluster.name
        lines.append(f"{name}::observability_name::{name}")
        lines += [f"{name}::default_priority::{key}::{value}" for key, value in _thresholds(cluster).items()]
        lines.append(f"{name}::added_via_api::false")
        for host in cluster.hosts.hosts:
            counters, gauges = _host_numbers(cluster, host)
            lines += [f"{name}::{host}::{key}::{value}" for key, value in sorted((counters | gauges).items())]
            lines.append(f"{name}::{host}::hostname::{host.hostname}")
            lines.append(f"{name}::{host}::health_flags::{health_flags(host)}")
            lines.append(f"{name}::{host}::weight::{host.weight}")
            lines.append(f"{name}::{host}::priority::{host.endpoint.priority}")
    return "".join(f"{line}\n" for line in lines)


# --- the process ----------------------------------------------------------------------------------------


def certificates(server: Server) -> list[dict[str, Any]]:
    """Files of certificates that listeners and clusters name."""
    found: list[dict[str, Any]] = []

    def look(node: Any) -> None:
        if isinstance(node, Mapping):
            for key, child in node.items():
                if _snake(str(key)) in ("certificate_chain", "trusted_ca") and isinstance(child, Mapping):
                    which = "cert_chain" if _snake(str(key)) == "certificate_chain" else "ca_cert"
                    found.append({which: [{"path": str(_part(child, "filename") or "<inline>")}]})
                else:
                    look(child)
        elif isinstance(node, list):
            for child in node:
                look(child)

    look(shown(server.bootstrap.document))
    return found


def server_info(server: Server) -> dict[str, Any]:
    """Version, state and how the process was started."""
    seconds = f"{server.measures.uptime}s"
    return {
        "version": f"pywasmvm/{__version__}/{platform.python_implementation()}-{platform.python_version()}",
        "state": server.state,
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
    }


def now() -> datetime.datetime:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC)
