"""The script language of the official test suite: `.wast` files, read and run.

    from pywasmvm.script import run_file
    results = run_file("core/i32.wast", engine="interp")
    results.passed, results.failed, results.failures[0].line

`commands` is what a script consists of, `parse` reads it, `match` knows the result patterns, `run` runs one
script, `pool` many of them in processes of their own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmvm.script.parse import parse_script
    from pywasmvm.script.results import Outcome, Results
    from pywasmvm.script.run import run_file

_HOMES = {"run_file": "run", "parse_script": "parse", "Results": "results", "Outcome": "results"}

__all__ = ["Outcome", "Results", "parse_script", "run_file"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
