"""Tier 2: a Wasm function becomes a Python function (docs/adr/0012-translator.md)."""

from __future__ import annotations

from pywasmvm.runtime.engine import register
from pywasmvm.translate.engine import Translator
from pywasmvm.translate.tiers import Tiered

register(Translator("translate"), "translate")
register(Tiered(), "auto")
register(Translator("translate-flat", flat=True), "translate-flat")
