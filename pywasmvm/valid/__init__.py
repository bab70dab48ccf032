"""Typing rules: `ModuleSyntax` is valid, or InvalidError says where it is not (spec: Validation)."""

from __future__ import annotations
