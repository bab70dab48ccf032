"""Tools to look inside: listings of code, stepping, traces. Each is loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmvm.debug.disassembly import Disassembler, disassemble
    from pywasmvm.debug.lines import Lines, lines_of
    from pywasmvm.debug.stepper import State, Stepper
    from pywasmvm.debug.tracing import Change, Step, trace

_HOMES = {
    "Disassembler": "disassembly",
    "disassemble": "disassembly",
    "Lines": "lines",
    "lines_of": "lines",
    "State": "stepper",
    "Stepper": "stepper",
    "Change": "tracing",
    "Step": "tracing",
    "trace": "tracing",
}

__all__ = ["Change", "Disassembler", "Lines", "State", "Step", "Stepper", "disassemble", "lines_of", "trace"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
