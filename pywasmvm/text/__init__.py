"""The text format to `ModuleSyntax` and back (spec: Text Format)."""

from __future__ import annotations
