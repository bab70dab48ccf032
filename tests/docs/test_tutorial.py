"""Every program of the tutorial is run, and prints what stands there.

In each chapter a `wat` block is saved under the file name that the text before it mentions last; the lines of
a `console` block that start with a dollar are commands, with their output below; the `python` blocks of a
chapter are one program, and a `text` block is what the one before it printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pywasmvm.cli.main import main

ROOT = Path(__file__).resolve().parents[2] / "docs/tutorial"
CHAPTERS = sorted(ROOT.glob("[0-9]*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w-]+\.wat)`")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Kind, contents, and the text before the block."""
    for found in BLOCK.finditer(text):
        yield found[1], found[2], text[: found.start()]


def command(line: str) -> str:
    """What a command prints, on either output."""
    words = shlex.split(line)
    assert words[0] == "pywasmvm"
    printed = io.BytesIO()
    out = io.TextIOWrapper(printed, encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(words[1:])
    return printed.getvalue().decode()


def console(contents: str) -> None:
    for part in re.split(r"^\$ ", contents, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        assert command(line) == shown, line


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter(chapter: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "chapter"}
    printed, kinds = "", []
    for kind, contents, before in blocks(chapter.read_text()):
        kinds.append(kind)
        if kind == "wat":
            Path(FILE.findall(before)[-1]).write_text(contents)
        elif kind == "console":
            console(contents)
        elif kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(contents, chapter.name, "exec"), namespace)  # our own text
            printed = out.getvalue()
        else:
            assert kind == "text", kind
            assert printed == contents
    assert "wat" in kinds
    assert os.listdir()


def test_the_table_of_contents_is_complete() -> None:
    named = re.findall(r"\((\d-[\w-]+\.md)\)", (ROOT / "README.md").read_text())
    assert named == [chapter.name for chapter in CHAPTERS]
    assert len(CHAPTERS) == 7
