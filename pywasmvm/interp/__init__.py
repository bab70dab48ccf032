"""Tier 1: the reference interpreter, small-step, written to be read."""

from __future__ import annotations

from pywasmvm.interp import machine
from pywasmvm.runtime import engine

engine.register(machine.Interpreter(), "interp")
