"""Checks that every relative link in our Markdown files leads to a file, and every anchor to a heading.

Links to other machines are not followed: a build must not depend on them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+\s+(.*?)\s*#*$", re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor forges make of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def problems(path: Path) -> list[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found = []
    for target in LINK.findall(INLINE_CODE.sub("", text)):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        name, _, fragment = target.partition("#")
        goal = (path.parent / name) if name else path
        where = path.relative_to(ROOT)
        if not goal.exists():
            found.append(f"{where}: link to {target}: no such file")
        elif fragment and goal.suffix == ".md":
            headings = {anchor(h) for h in HEADING.findall(FENCE.sub("", goal.read_text(encoding="utf-8")))}
            if fragment not in headings:
                found.append(f"{where}: link to {target}: no such heading")
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.split()]
    found = [problem for path in files for problem in problems(path)]
    print("\n".join([*found, f"{len(files)} Markdown files, {len(found)} broken links"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
