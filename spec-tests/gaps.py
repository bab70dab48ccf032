"""What a run is measured against: the suite's own counts of commands, and the list of known gaps.

A file of the suite must have exactly the commands that `COUNTS.json` beside it says, so that none is dropped
unseen, and exactly the failures that `expected.toml` says: a gap that has closed must leave the list.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.toml"

#: What the scripts are run on.
ENGINES = ("interp", "translate", "translate-flat")

#: Folders of the official suite that belong to the standard. `legacy` does not: it was superseded.
FOLDERS = ("core", "custom")


def expected() -> dict[str, dict[str, Any]]:
    """Known gaps by file: how many commands fail, and the reason."""
    return tomllib.loads(EXPECTED.read_text())


def counts(suite: Path | None) -> dict[str, dict[str, int]]:
    """Commands by file and kind; empty where the suite comes without counts."""
    path = None if suite is None else suite / "COUNTS.json"
    if path is None or not path.exists():
        return {}
    return {
        file: {kind: n for kind, n in kinds.items() if isinstance(n, int) and kind != "bytes"}
        for file, kinds in json.loads(path.read_text()).items()
    }


def complaints(
    record: dict[str, Any], gaps: dict[str, dict[str, Any]], commands: dict[str, dict[str, int]]
) -> list[str]:
    """What is not as it should be about the record of one file."""
    said = []
    file, failed = record["file"], record["failed"]
    known = gaps.get(file, {}).get("failed", 0)
    if failed > known:
        said.append(f"{file}: {failed} commands failed" + (f", {known} are known" if known else ""))
        said += [f"  {f['line']}: {f['kind']}: {f['reason']}" for f in record["failures"][:20]]
    elif failed < known:
        said.append(f"{file}: only {failed} of {known} known failures are left: shorten expected.toml")
    if record["skipped"]:
        said.append(f"{file}: {record['skipped']} commands never ran")
    if file in commands:
        ran = {kind: n["passed"] + n["failed"] for kind, n in record["kinds"].items()}
        if ran != commands[file]:
            said.append(f"{file}: ran {ran}, the suite counts {commands[file]}")
    return said
