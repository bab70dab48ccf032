"""Golden cases as Python objects: one JSON file per topic, the schema of README.md beside this file.

Only reads; what a case means is decided in render.py (configuration), upstream.py, client.py and compare.py.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
FILTERS = GOLDEN / "filters"
GAPS = HERE / "gaps.toml"


@dataclass(frozen=True)
class Case:
    """One recorded scenario: how the proxy is configured, what is sent, and all that must be seen."""

    file: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def is_tcp(self) -> bool:
        return bool(self.data.get("listener") == "tcp")

    @property
    def is_script(self) -> bool:
        """Whether its connections are scripted on both ends (`tcp.py`) instead of carrying HTTP."""
        return any("steps" in request for request in self.requests)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return list(self.data["requests"])

    @property
    def compare_logs(self) -> bool:
        return bool(self.data.get("compare_logs", True))

    def expected(self, of_envoy: bool) -> dict[str, Any]:
        """What must be seen: of our proxy, or of the real Envoy where the two are meant to differ."""
        if of_envoy and "envoy_1_40" in self.data:
            return dict(self.data["envoy_1_40"])
        return dict(self.data["expect"])


def load(path: Path) -> list[Case]:
    """Read a golden file. ValueError when it is not one."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("format") != 1:
        raise ValueError(f"{path}: golden format {document.get('format')!r}, this tool reads 1")
    return [Case(path.name, data) for data in document["cases"]]


def load_gaps(path: Path = GAPS) -> dict[str, str]:
    """Known gaps, case name to reason. The list may only shrink: a listed case that passes is an error."""
    if not path.exists():
        return {}
    gaps = tomllib.loads(path.read_text(encoding="utf-8"))
    return {str(name): str(reason) for table in gaps.values() for name, reason in table.items()}
