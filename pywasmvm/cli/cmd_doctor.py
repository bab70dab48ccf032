"""`pywasmvm doctor`: what this machine offers and what is missing."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

HELP = "print the Python in use, the optional parts found, and the default limits"

#: Distribution -> what it is for; the extra that installs it.
PARTS = {
    "numpy": ("linear memory (required)", ""),
    "PyYAML": ("reading Envoy configurations", "proxy"),
    "h11": ("HTTP/1.1", "proxy"),
    "httptools": ("HTTP/1.1, faster", "fast"),
    "uvloop": ("a faster event loop", "fast"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> bool:
    import threading

    try:
        thread = threading.Thread(target=lambda: None)
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def report() -> dict[str, Any]:
    """The findings."""
    from pywasmvm._version import __version__
    from pywasmvm.runtime.limits import StoreLimits

    limits = StoreLimits()
    home = os.path.expanduser("~")
    return {
        "pywasmvm": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}",
        "supported": sys.version_info >= (3, 11),
        "assertions": not sys.flags.optimize,
        "parts": {name: _version(name) for name in PARTS},
        "engines": ["interp", "translate"],
        "threads": _threads(),
        "home_writable": os.access(home, os.W_OK),
        "limits": {name: getattr(limits, name) for name in StoreLimits.__slots__},
    }


def run(args: argparse.Namespace) -> int:
    """Print it; status 1 when a required part is missing or Python is too old."""
    found = report()
    fine = found["supported"] and found["parts"]["numpy"] is not None
    if args.json:
        print(json.dumps(found, indent=1))
        return 0 if fine else 1
    print(f"pywasmvm {found['pywasmvm']}")
    print(f"{found['python']}{'' if found['supported'] else ': too old, 3.11 is the oldest supported'}")
    for name, version in found["parts"].items():
        purpose, extra = PARTS[name]
        missing = f"missing: pip install 'pywasmvm[{extra}]'" if extra else "missing"
        print(f"  {name:10} {version or missing:12}  {purpose}")
    print(f"threads can be started: {'yes' if found['threads'] else 'no'}")
    print(f"home folder is writable: {'yes' if found['home_writable'] else 'no'} (it need not be)")
    print("default limits of a store:")
    for name, value in found["limits"].items():
        print(f"  {name:15} {'unlimited' if value is None else value}")
    return 0 if fine else 1
