"""The store and what lives in it (spec: Execution, Runtime Structure)."""

from __future__ import annotations
