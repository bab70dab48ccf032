"""Bytes to `ModuleSyntax` (spec: Binary Format)."""

from __future__ import annotations
