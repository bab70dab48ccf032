"""Starts of the 14 Go filters of `gpustack-higress-plugins` in our proxy-wasm host, each in fresh processes.

    python -m benchmarks.plugins NAME        one start in this process: prints its times as JSON

CPU time from the bytes to a plugin that is configured, and of its first request: its headers, a body, the
answer's headers and body. `cold` finds nothing, `warm` the cache on disk that one earlier process left,
`snapshot` the state of the VM, or of the started plugin, that one left, and the cache. Imports do not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

ROOT = Path(__file__).resolve().parents[1]

_SERVICE: dict[str, Any] = {"service_name": "a.static", "service_port": 80, "path": "/"}
_ONE = {"provider": {"id": "p", "type": "openai", "apiTokens": ["key"]}}

#: Name of the row: plugin, and a configuration that makes it do its work.
PLUGINS: dict[str, tuple[str, dict[str, Any]]] = {
    "ai-data-masking": ("ai-data-masking", {"deny_words": ["forbidden"], "deny_code": 451}),
    "ai-data-masking, system words": ("ai-data-masking", {"system_deny": True, "deny_words": ["forbidden"]}),
    "ai-statistics": ("ai-statistics", {"enable": True}),
    "gpustack-ai-proxy": ("gpustack-ai-proxy", _ONE),
    "gpustack-ext-auth": (
        "gpustack-ext-auth",
        {
            "route_match_regexes": ["^ai-route-"],
            "local_auth": {"enabled": True, "keys": {}, "refs": {}},
            "authz": {"endpoint": _SERVICE | {"request_method": "GET"}, "timeout": 5000},
        },
    ),
    "gpustack-generic-proxy-router": (
        "gpustack-generic-proxy-router",
        {"prefix": "/model/proxy", "targetHeader": "x-to", "modelToHeader": "x-model"},
    ),
    "gpustack-ip-acl": (
        "gpustack-ip-acl",
        {"realIPHeader": "x-forwarded-for", "consumers": {"*": {"deniedCidrs": ["198.51.100.0/24"]}}},
    ),
    "gpustack-lb": (
        "gpustack-lb",
        {"lb_type": "endpoint", "lb_policy": "prefix_cache", "lb_config": {"serviceFQDN": "a.static"}},
    ),
    "gpustack-lb-decision-service": (
        "gpustack-lb-decision-service",
        {
            "provider": {"endpoint": "http://a.test", "cluster": "outbound|80||a.static", "apiTokens": ["k"]},
            "modelSelection": {"criteria": {"small": "quick", "large": "thorough"}},
        },
    ),
    "gpustack-lb-least-load": ("gpustack-lb-least-load", {}),
    "gpustack-lb-session-affinity": (
        "gpustack-lb-session-affinity",
        {"sessionKeys": [{"header": "x-session"}], "enableOnPathSuffix": ["/completions"]},
    ),
    "gpustack-rate-limit": ("gpustack-rate-limit", {"rule_name": "r", "redis": _SERVICE}),
    "gpustack-set-header-pre-route": (
        "gpustack-set-header-pre-route",
        {"routeNameHeader": "x-route", "clusterNameHeader": "x-cluster"},
    ),
    "gpustack-token-usage": ("gpustack-token-usage", {"realIPHeader": "x-real-ip", "endpoint": _SERVICE}),
    "transformer": (
        "transformer",
        {"reqRules": [{"operate": "add", "headers": [{"key": "x-added", "value": "1"}]}]},
    ),
}

#: Where the snapshots are; empty: nowhere.
FOLDER = "BENCHMARKS_SNAPSHOTS"

#: The start that takes minutes.
LONG = "ai-data-masking, system words"

CLUSTERS = ("a.static", "outbound|80||a.static")
REQUEST = [(":authority", "a"), (":path", "/v1/chat/completions"), (":method", "POST"), (":scheme", "http")]
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
ANSWER = [(":status", "200"), ("content-type", "application/json")]
ANSWER_BODY = json.dumps(
    {"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]}
).encode()


def module_of(plugin: str) -> Path:
    """The module of a plugin. Raises FileNotFoundError when the package is not installed."""
    spec = importlib.util.find_spec("gpustack_higress_plugins")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("gpustack-higress-plugins is not installed")
    [path] = Path(spec.origin).parent.glob(f"plugins/{plugin}/*/plugin.wasm")
    return path


def start(name: str, folder: str) -> dict[str, float]:
    """Seconds of one start and of the first request."""
    from abi.proxy_wasm import HeaderMap, Plugin
    from abi.proxy_wasm.host import MemoryHost
    from abi.proxy_wasm.snapshots import Snapshots
    from benchmarks import engines
    from pywasmvm import StoreLimits

    engines.import_all("pywasmvm", but=frozenset({"cli", "script", "debug", "text"}))
    engines.import_all("abi")
    plugin, configuration = PLUGINS[name]
    data = module_of(plugin).read_bytes()
    limits = StoreLimits(seconds=600, memory_pages=4096)
    begin = timing.clock()
    started = Plugin(
        data,
        name=plugin,
        config=json.dumps(configuration).encode(),
        host=MemoryHost(clusters=CLUSTERS),
        limits=limits,
        start_limits=StoreLimits(seconds=1200, memory_pages=4096),
        snapshots=Snapshots(folder) if folder else None,
    )
    ready = timing.clock()
    with started.http_stream() as stream:
        stream.on_request_headers(HeaderMap(REQUEST), False)
        stream.on_request_body(bytearray(BODY), True)
        stream.on_response_headers(HeaderMap(ANSWER), False)
        stream.on_response_body(bytearray(ANSWER_BODY), True)
    timing.check("failures", str(started.vm.failure), "None")
    return {"start": ready - begin, "first": timing.clock() - ready}


def measure(names: Sequence[str] = (), rounds: int = 1) -> list[dict[str, Any]]:
    """A row for each plugin: seconds, the best of several rounds. What takes minutes is done once."""
    try:
        module_of("transformer")
    except FileNotFoundError as error:
        print(f"plugins: left out, {error}")
        return []
    print(f"{'plugins, ms':32}", *(f"{key:>16}" for key in ("cold", "warm", "snapshot", "first request")))
    rows: list[dict[str, Any]] = []
    for name in names or PLUGINS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"plugin": name} | _rounds(name, Path(folder), rounds))
        figures = [rows[-1][key] for key in ("cold", "warm", "snapshot", "first")]
        shown = ["-" if figure is None else f"{figure * 1e3:.1f}" for figure in figures]
        print(f"{name:32}", *(f"{text:>16}" for text in shown), flush=True)
    return rows


def _rounds(name: str, folder: Path, rounds: int) -> dict[str, float | None]:
    cache, kept = folder / "cache", folder / "kept"
    for path in (cache, kept):
        path.mkdir(mode=0o700)
    cold = _child(name, "", "")
    first = cold["first"]
    for _ in range(0 if name == LONG else rounds - 1):
        cold = min(cold, _child(name, "", ""), key=lambda times: times["start"])
    _child(name, str(cache), str(kept))  # leaves both
    warm = None if name == LONG else _child(name, str(cache), "")["start"]
    snapshot = [_child(name, str(cache), str(kept)) for _ in range(rounds)]
    best = min(snapshot, key=lambda times: times["start"])
    return {"cold": cold["start"], "warm": warm, "snapshot": best["start"], "first": first}


def _child(name: str, cache: str, folder: str) -> dict[str, float]:
    environment = os.environ | {"PYWASMVM_CACHE_DIR": cache, FOLDER: folder}
    command = [sys.executable, "-m", "benchmarks.plugins", name]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    times: dict[str, float] = json.loads(done.stdout)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=PLUGINS)
    args = parser.parse_args()
    json.dump(start(args.name, os.environ.get(FOLDER, "")), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
