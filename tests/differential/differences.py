"""Where we differ from Envoy 1.40 on purpose: the whole table, each with its reason. Nothing else may differ.

An entry covers a difference when all its patterns match: where it is, what Envoy did and what we did. Every
entry must be needed by some scene; `test_differential.py` names those that are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class OnPurpose:
    """One kind of difference; `where` is matched against `scene:exchange what`."""

    reason: str
    where: str
    envoy: str
    ours: str

    def covers(self, place: str, envoy: str, ours: str) -> bool:
        pairs = (self.where, place), (self.envoy, envoy), (self.ours, ours)
        return all(re.fullmatch(pattern, text, re.DOTALL) for pattern, text in pairs)


ON_PURPOSE: list[OnPurpose] = []
