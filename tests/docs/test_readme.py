"""The Python shown in the README runs as it stands, from the project's root."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda s: s.splitlines()[0])
def test_a_snippet_runs(snippet: str) -> None:
    done = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_commands_shown_exist() -> None:
    from pywasmvm.cli.main import commands

    shown = set(
        re.findall(r"^\s*(?:\$ )?pywasmvm (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    )
    assert shown
    assert shown <= set(commands())
