"""The `pywasmvm` command."""

from __future__ import annotations
