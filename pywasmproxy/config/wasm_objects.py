"""The `WasmPlugin` objects of Istio and Higress as another way to say which plugins run, before one upstream.

After the custom resources extensions.istio.io/v1alpha1 and extensions.higress.io/v1alpha1: phases and
priorities order the plugins; Higress' `matchRules` become the `_rules_` of the plugin's configuration, which
its SDKs read. What is about Kubernetes alone (selectors, image pulling) means nothing here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pywasmproxy.config import document, oci
from pywasmproxy.config.errors import ConfigError
from pywasmproxy.config.model import (
    Address,
    Bootstrap,
    Cluster,
    ClusterType,
    ConfigWarning,
    Endpoint,
    FailurePolicy,
    FilterChain,
    HttpConnectionManager,
    Listener,
    RemoteCode,
    RouteAction,
    RouteConfig,
    RouteMatch,
    RouterFilter,
    VirtualHost,
    WasmCode,
    WasmFilter,
    WasmPlugin,
)
from pywasmproxy.config.model_routes import Route
from pywasmproxy.config.model_tls import UpstreamTls
from pywasmproxy.config.schema import (
    Context,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    integer,
    later,
    repeated,
    struct,
    text,
)

KIND = "WasmPlugin"
GROUPS = ("extensions.istio.io/", "extensions.higress.io/")

PHASES = ("AUTHN", "AUTHZ", "STATS", "UNSPECIFIED_PHASE")
"""In the order of a request; the last one is what an object without a phase has."""

_PHASE = enum("phase", "UNSPECIFIED_PHASE AUTHN AUTHZ STATS")
_POLICIES = {
    "FAIL_CLOSE": FailurePolicy.FAIL_CLOSED,
    "FAIL_OPEN": FailurePolicy.FAIL_OPEN,
    "FAIL_RELOAD": FailurePolicy.FAIL_RELOAD,
}

METADATA = Message(
    "ObjectMeta",
    {name: anything for name in ("annotations", "labels", "creationTimestamp", "generation", "uid")}
    | {"resourceVersion": anything, "managedFields": anything, "finalizers": anything}
    | {"name": text, "namespace": text},
    required="name",
)

ENTRY = Message(
    "EnvVar",
    {"name": text, "value": text, "value_from": enum("source of a value", "INLINE HOST")},
    required="name",
)
VM = Message("VmConfig", {"env": repeated(ENTRY.read)})

RULE = Message(
    "MatchRule",
    {
        "ingress": repeated(text),
        "domain": repeated(text),
        "service": repeated(text),
        "config": struct,
        "config_disable": boolean,
        "route_type": anything,
    },
)

SPEC = Message(
    "WasmPluginSpec",
    {
        "url": later,
        "sha256": text,
        "plugin_config": struct,
        "plugin_name": text,
        "phase": _PHASE,
        "priority": integer(-(1 << 31), (1 << 31) - 1),
        "fail_strategy": enum("failure strategy", " ".join(_POLICIES)),
        "vm_config": VM.read,
        "type": enum("type of plugin", "UNSPECIFIED_PLUGIN_TYPE HTTP NETWORK"),
        "default_config": struct,
        "default_config_disable": boolean,
        "match_rules": repeated(later),
        # about Kubernetes: which proxies, and how their images are pulled
        "selector": anything,
        "target_ref": anything,
        "target_refs": anything,
        "image_pull_policy": anything,
        "image_pull_secret": anything,
        "verification_key": anything,
    },
    notes={"match": "not supported yet: the plugin sees all requests"},
    required="url",
)

OBJECT = Message(
    KIND,
    {"api_version": later, "kind": text, "metadata": METADATA.read, "spec": later, "status": anything},
    required="metadata spec",
)


FETCH_TIME = 60.0
"""Seconds that one attempt to fetch code may take."""


@dataclass(frozen=True, slots=True)
class PluginObject:
    """One object: its plugin, and where that stands among others."""

    plugin: WasmPlugin
    phase: str = PHASES[-1]
    priority: int = 0
    """The higher, the earlier in its phase."""


@dataclass(frozen=True, slots=True)
class PluginObjects:
    """The objects of one or more files, in the order of a request."""

    objects: tuple[PluginObject, ...] = ()
    warnings: tuple[ConfigWarning, ...] = ()
    honoured: tuple[tuple[str, tuple[str, ...]], ...] = ()
    files: tuple[str, ...] = field(default=(), compare=False)

    @property
    def sources(self) -> tuple[Cluster, ...]:
        """The clusters that code is fetched from."""
        remotes = (one.plugin.code.remote for one in self.objects)
        names = dict.fromkeys(remote.cluster for remote in remotes if remote is not None)
        return tuple(map(_source, names))

    @property
    def filters(self) -> tuple[WasmFilter, ...]:
        """The plugins as filters."""
        return tuple(WasmFilter(one.plugin.name, one.plugin) for one in self.objects)


def holds_objects(source: str, name: str) -> bool:
    """Whether a text is made of such objects. ConfigError when it is not YAML."""
    first = document.parse_all(source, name)[0]
    if not isinstance(first, document.Mapping) or "kind" not in first.entries:
        return False
    _, kind = first.entries["kind"]
    return isinstance(kind, document.Scalar) and kind.text == KIND


def load_objects(
    sources: Iterable[tuple[str, str]],
    *,
    directory: str | os.PathLike[str] = "",
    environ: Mapping[str, str] | None = None,
) -> PluginObjects:
    """Reads texts, each with its name and any number of documents. ConfigError.

    Files they name are relative to `directory` (default: the working directory).
    """
    variables = dict(os.environ) if environ is None else environ
    found: list[PluginObject] = []
    warnings: list[ConfigWarning] = []
    honoured: dict[str, dict[str, None]] = {}
    files: list[str] = []
    for source, name in sources:
        context = Context(name, Path(directory), variables, honoured=honoured)
        for root in document.parse_all(source, name):
            one = _object(Cursor(root, "", context))
            if one is not None:
                found.append(one)
        warnings += context.warnings
        files += [str(context.directory / file) for file in context.files]
    names = [one.plugin.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("WasmPlugin", 0, "", f"two objects are named {name!r}")
    found.sort(key=lambda one: (PHASES.index(one.phase), -one.priority))
    told = tuple((title, tuple(fields)) for title, fields in honoured.items())
    return PluginObjects(tuple(found), tuple(warnings), told, tuple(files))


def _object(cursor: Cursor) -> PluginObject | None:
    """One object; None for one that is switched off, or of no kind we run."""
    kind = cursor.get("kind")
    if kind is None or text(kind) != KIND:
        cursor.fail(f"expected an object of kind {KIND}", None if kind is None else KIND)
    values = OBJECT.read(cursor)
    version: Cursor | None = values.get("api_version")
    if version is None or not text(version).startswith(GROUPS):
        (version or cursor).fail(f"apiVersion is one of {', '.join(group + 'v1alpha1' for group in GROUPS)}")
    spec = SPEC.read(values["spec"])
    if spec.get("type") == "NETWORK":
        values["spec"].warn("plugins for TCP are not supported here: it is left out")
        return None
    configuration = _configuration(spec)
    if configuration is None:
        return None
    metadata = values["metadata"]
    plugin = WasmPlugin(
        name=".".join(filter(None, (metadata.get("namespace", ""), metadata["name"]))),
        root_id=spec.get("plugin_name", ""),
        runtime="envoy.wasm.runtime.v8",
        code=_code(spec["url"], spec.get("sha256", "")),
        configuration=_json(configuration),
        failure_policy=_POLICIES[spec.get("fail_strategy", "FAIL_CLOSE")],
        environment_variables=_environment(spec.get("vm_config", {}), cursor.context),
    )
    return PluginObject(plugin, spec.get("phase", PHASES[-1]), spec.get("priority", 0))


def _json(configuration: dict[str, object]) -> bytes:
    if not configuration:
        return b""
    return json.dumps(configuration, separators=(",", ":"), ensure_ascii=False).encode()


def _configuration(spec: dict[str, Any]) -> dict[str, object] | None:
    """What the plugin reads; None when it is switched off for everything (Higress)."""
    if "plugin_config" in spec:
        configured: dict[str, object] = spec["plugin_config"]
        return configured
    off: bool = spec.get("default_config_disable", False)
    found: dict[str, object] = {} if off else dict(spec.get("default_config", {}))
    rules = [rule for place in spec.get("match_rules", ()) if (rule := _rule(place)) is not None]
    if rules:
        found["_rules_"] = rules
    return None if off and not rules else found


def _rule(cursor: Cursor) -> dict[str, object] | None:
    """A rule as Higress' SDKs read it; None for one that is switched off."""
    values = RULE.read(cursor)
    if values.get("config_disable"):
        return None
    found = dict(values.get("config", {}))
    conditions = {"ingress": "_match_route_", "domain": "_match_domain_", "service": "_match_service_"}
    named = {key: list(values[name]) for name, key in conditions.items() if values.get(name)}
    if not named:
        cursor.fail("a rule needs one of ingress, domain, service")
    return {**found, **named}


def _environment(vm: dict[str, Any], context: Context) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in vm.get("env", ()):
        if entry.get("value_from") == "HOST":
            if entry["name"] in context.environ:
                found[entry["name"]] = context.environ[entry["name"]]
        else:
            found[entry["name"]] = entry.get("value", "")
    return found


def _code(cursor: Cursor, digest: str) -> WasmCode:
    """The module behind a URL: a file, a folder with an OCI image, or something to fetch."""
    url = text(cursor)
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname:
        if not re.fullmatch("[0-9A-Fa-f]{64}", digest):
            cursor.fail("needs 'sha256': code from elsewhere is only used when it is known")
        return WasmCode(b"", None, RemoteCode(url, _place_of(url), FETCH_TIME, digest.lower()))
    if parts.scheme != "file":
        what = "oci://" if parts.scheme == "oci" else "other"
        cursor.fail(f"{what} URLs are not supported yet: download the code and name it with file://")
    name = parts.path if not parts.netloc else parts.netloc + parts.path  # file://here.wasm is relative
    context = cursor.context
    if found := oci.split(context.directory, name):
        try:
            data = oci.wasm_of(*found, context.files)
        except oci.OciError as error:
            cursor.fail(f"{name}: {error}")
    else:
        data = context.read_file(name, cursor)
    if digest and hashlib.sha256(data).hexdigest() != digest.lower():
        cursor.fail(f"the SHA-256 of {name} is {hashlib.sha256(data).hexdigest()}, not {digest}")
    return WasmCode(data, name)


def _place_of(url: str) -> str:
    """The name of the cluster that code is fetched from."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _source(name: str) -> Cluster:
    """The cluster of that name."""
    parts = urlsplit(name)
    host, secure = parts.hostname or "", parts.scheme == "https"
    endpoint = Endpoint(Address(host, parts.port or (443 if secure else 80)))
    tls = UpstreamTls(sni=host) if secure else None
    return Cluster(name, ClusterType.STRICT_DNS, (endpoint,), tls=tls)


# --- what is served ---------------------------------------------------------------------------------------


def serving(objects: PluginObjects, upstream: Address, listen: Address) -> Bootstrap:
    """A proxy with these plugins before one upstream."""
    routes = (Route(RouteMatch(prefix="/"), RouteAction("upstream", timeout=None)),)
    table = RouteConfig("all", (VirtualHost("all", ("*",), routes),))
    manager = HttpConnectionManager(
        "ingress", route_config=table, http_filters=(*objects.filters, RouterFilter())
    )
    bootstrap = Bootstrap(
        listeners=(Listener("main", listen, (FilterChain(manager),)),),
        clusters=(Cluster("upstream", ClusterType.STRICT_DNS, (Endpoint(upstream),)),),
        source_name=KIND,
    )
    return _told(bootstrap, objects)


def added(bootstrap: Bootstrap, objects: PluginObjects) -> Bootstrap:
    """The configuration with these plugins before all other filters of its HTTP listeners."""
    return _told(
        replace(
            bootstrap,
            listeners=tuple(
                replace(
                    listener,
                    filter_chains=tuple(_with_filters(chain, objects) for chain in listener.filter_chains),
                )
                for listener in bootstrap.listeners
            ),
        ),
        objects,
    )


def _with_filters(chain: FilterChain, objects: PluginObjects) -> FilterChain:
    if chain.http is None:
        return chain
    filters = (*objects.filters, *chain.http.http_filters)
    return replace(chain, http=replace(chain.http, http_filters=filters))


def _told(bootstrap: Bootstrap, objects: PluginObjects) -> Bootstrap:
    return replace(
        bootstrap,
        clusters=(*bootstrap.clusters, *objects.sources),
        warnings=(*bootstrap.warnings, *objects.warnings),
        honoured=(*bootstrap.honoured, *objects.honoured),
        files=(*bootstrap.files, *objects.files),
    )
