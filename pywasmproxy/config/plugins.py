"""The wasm filter's configuration: plugin, VM, code, environment, failure policy.

Field tables after envoy.extensions.wasm.v3 (wasm.proto) and envoy.extensions.filters.http.wasm.v3.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pywasmproxy.config import oci
from pywasmproxy.config.anyvalue import configuration
from pywasmproxy.config.common import data_source
from pywasmproxy.config.model import FailurePolicy, RemoteCode, WasmCode, WasmPlugin
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    later,
    mapping,
    positive_duration,
    repeated,
    text,
)

WASM = Message("envoy.extensions.filters.http.wasm.v3.Wasm", {"config": later})

BACKOFF = Message(
    "envoy.config.core.v3.BackoffStrategy",
    {"base_interval": positive_duration, "max_interval": anything},
    required="base_interval",
)

RELOAD = Message("envoy.extensions.wasm.v3.ReloadConfig", {"backoff": BACKOFF.read})

CAPABILITIES = Message(
    "envoy.extensions.wasm.v3.CapabilityRestrictionConfig", {"allowed_capabilities": mapping(anything)}
)

ENVIRONMENT = Message(
    "envoy.extensions.wasm.v3.EnvironmentVariables",
    {"host_env_keys": repeated(later), "key_values": mapping(text)},
)


def environment(cursor: Cursor) -> dict[str, str]:
    """All variables of a VM: the host's own that were asked for and exist, then the given ones."""
    values = ENVIRONMENT.read(cursor)
    found: dict[str, str] = {}
    given: dict[str, str] = values.get("key_values", {})
    asked: set[str] = set()
    for place in values.get("host_env_keys", ()):
        name = text(place)
        if name in asked or name in given:
            place.fail(f"environment variable {name} is given twice")
        asked.add(name)
        if name in cursor.context.environ:
            found[name] = cursor.context.environ[name]
    return found | given


RETRY_BACK_OFF = Message(
    "envoy.config.core.v3.BackoffStrategy",
    {"base_interval": positive_duration, "max_interval": positive_duration},
    required="base_interval",
)

RETRIES = Message(
    "envoy.config.core.v3.RetryPolicy",
    {"retry_back_off": RETRY_BACK_OFF.read, "num_retries": UINT32},
    ignored="retry_on retry_priority retry_host_predicate host_selection_retry_max_attempts",
)

HTTP_URI = Message(
    "envoy.config.core.v3.HttpUri",
    {"uri": later, "cluster": later, "timeout": positive_duration},
    required="uri cluster timeout",
)

REMOTE = Message(
    "envoy.config.core.v3.RemoteDataSource",
    {"http_uri": HTTP_URI.read, "sha256": later, "retry_policy": RETRIES.read},
    required="http_uri",
)

_SHA256 = re.compile("[0-9a-f]{64}")


def _remote(cursor: Cursor) -> RemoteCode:
    """Code behind a URI of `http` or `https`; the cluster is where it is really asked for."""
    values = REMOTE.read(cursor)
    where = values["http_uri"]
    uri, cluster = text(where["uri"]), text(where["cluster"])
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        where["uri"].fail(f"{uri!r} is not an absolute http or https URI")
    cursor.context.cluster_references.append((cluster, where["cluster"]))
    if "sha256" not in values:
        cursor.fail("needs 'sha256': code from elsewhere is only used when it is known")
    digest = text(values["sha256"]).lower()
    if not _SHA256.fullmatch(digest):
        values["sha256"].fail("a SHA-256 has 64 hexadecimal digits")
    policy = values.get("retry_policy", {})
    pauses = policy.get("retry_back_off", {})
    base = pauses.get("base_interval", 1.0)
    return RemoteCode(
        uri,
        cluster,
        where["timeout"],
        digest,
        policy.get("num_retries", 1),
        base,
        max(pauses.get("max_interval", 10 * base), base),
    )


def _local(cursor: Cursor) -> tuple[bytes, str | None]:
    """A data source whose file may also be a folder with an OCI image (`oci.py`)."""
    place = cursor.get("filename")
    name = None if place is None or place.is_null else text(place)
    if place is not None and name is not None and (found := oci.split(cursor.context.directory, name)):
        try:
            return oci.wasm_of(*found, cursor.context.files), name
        except oci.OciError as error:
            place.fail(f"{name}: {error}")
    return data_source(cursor)


CODE = Message(
    "envoy.config.core.v3.AsyncDataSource",
    {"local": _local, "remote": later},
    one_of=("local remote",),
)


def code(cursor: Cursor) -> WasmCode:
    """The module's bytes, or where to fetch them."""
    values = CODE.read(cursor)
    if "remote" in values:
        return WasmCode(b"", None, _remote(values["remote"]))
    if "local" not in values:
        cursor.fail("needs 'local'")
    data, filename = values["local"]
    return WasmCode(data, filename)


VM = Message(
    "envoy.extensions.wasm.v3.VmConfig",
    {
        "vm_id": text,
        "runtime": text,
        "code": code,
        "configuration": configuration,
        "allow_precompiled": boolean,
        "nack_on_code_cache_miss": anything,  # only remote code can miss a cache
        "environment_variables": environment,
    },
)


def _policy(cursor: Cursor) -> FailurePolicy | None:
    """None for UNSPECIFIED."""
    name = enum("failure policy", "UNSPECIFIED FAIL_RELOAD FAIL_CLOSED FAIL_OPEN")(cursor)
    return None if name == "UNSPECIFIED" else FailurePolicy(name)


PLUGIN = Message(
    "envoy.extensions.wasm.v3.PluginConfig",
    {
        "name": text,
        "root_id": text,
        "vm_config": VM.read,
        "configuration": configuration,
        "fail_open": boolean,
        "failure_policy": _policy,
        "reload_config": RELOAD.read,
        "capability_restriction_config": CAPABILITIES.read,
        "allow_on_headers_stop_iteration": boolean,
    },
)


def plugin(cursor: Cursor) -> WasmPlugin:
    """A `PluginConfig`."""
    values = PLUGIN.read(cursor)
    vm = values.get("vm_config", {})
    if "code" not in vm:
        cursor.fail("vm_config.code is missing: there is nothing to run")
    policy: FailurePolicy | None = values.get("failure_policy")
    fail_open = values.get("fail_open", False)
    if fail_open and policy is not None:
        cursor.fail("only one of fail_open or failure_policy can be set")
    restriction = values.get("capability_restriction_config", {}).get("allowed_capabilities")
    backoff = values.get("reload_config", {}).get("backoff", {})
    return WasmPlugin(
        name=values.get("name", ""),
        root_id=values.get("root_id", ""),
        vm_id=vm.get("vm_id", ""),
        runtime=vm.get("runtime", ""),
        code=vm["code"],
        vm_configuration=vm.get("configuration", b""),
        configuration=values.get("configuration", b""),
        failure_policy=policy or FailurePolicy.FAIL_CLOSED,
        fail_open=fail_open,
        reload_base_interval=backoff.get("base_interval", 1.0),
        environment_variables=vm.get("environment_variables", {}),
        allow_on_headers_stop_iteration=values.get("allow_on_headers_stop_iteration", False),
        allowed_capabilities=frozenset(restriction) if restriction else None,
        allow_precompiled=vm.get("allow_precompiled", False),
    )


def wasm_filter(cursor: Cursor | None, place: Cursor) -> WasmPlugin:
    """The plugin of a `Wasm` filter message at `cursor` (None: the message is empty)."""
    if cursor is None:
        place.fail("the wasm filter has no configuration")
    inner = WASM.read(cursor).get("config")
    if inner is None:
        cursor.fail("the wasm filter needs 'config'")
    return plugin(inner)
