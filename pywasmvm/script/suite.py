"""Where the official test suite is, and which scripts a path means. The suite is no part of this project."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

#: The folder of a source checkout; of an installed package it holds nothing of interest.
_ROOT = Path(__file__).resolve().parents[2]


def find_suite(given: str | os.PathLike[str] | None = None) -> Path:
    """The suite's folder, the one that has `core` in it.

    It is looked for in `given`, in the environment variable WASM_SPEC_SUITE, in `../shared/spec-testsuite`
    beside a checkout of this project, and where `spec-tests/get_suite.py` puts it. The first two are taken at
    their word. Raises FileNotFoundError, saying what to do.
    """
    for place, source in ((given, "--suite"), (os.environ.get("WASM_SPEC_SUITE"), "WASM_SPEC_SUITE")):
        if place:
            if not (Path(place) / "core").is_dir():
                raise FileNotFoundError(f"{source} is {place}, but there is no folder 'core' in it")
            return Path(place)
    for folder in (_ROOT.parent / "shared" / "spec-testsuite", _ROOT / "spec-tests" / "suite" / "test"):
        if (folder / "core").is_dir():
            return folder
    raise FileNotFoundError(
        "the official test suite is not here: `python spec-tests/get_suite.py` downloads it, or give the "
        "folder of a copy with --suite or in the environment variable WASM_SPEC_SUITE"
    )


def scripts(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The scripts that paths mean: a folder stands for every `.wast` file below it.

    Raises FileNotFoundError for a path that is not there, or a folder without scripts.
    """
    found: dict[Path, None] = {}
    for given in map(Path, paths):
        if given.is_dir():
            below = sorted(given.rglob("*.wast"))
            if not below:
                raise FileNotFoundError(f"there is no .wast file in {given}")
            found |= dict.fromkeys(below)
        elif given.is_file():
            found[given] = None
        else:
            raise FileNotFoundError(f"there is no {given}")
    return list(found)


def short_name(path: Path, suite: Path | None) -> str:
    """A script's name in reports: below the suite (`core/i32.wast`) where it is part of it."""
    if suite is not None and path.resolve().is_relative_to(suite.resolve()):
        return path.resolve().relative_to(suite.resolve()).as_posix()
    return path.as_posix()
