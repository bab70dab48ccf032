"""Tools to look inside: listings of code."""

from __future__ import annotations
