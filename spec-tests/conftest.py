"""Collects scripts as test items, each once per engine.

    pytest spec-tests                                 all of them
    pytest spec-tests -k "memory and interp"          by name
    pytest spec-tests/own/tables.wast                 one of ours
    pytest spec-tests/REVISION --suite FOLDER         the official suite, wherever it is

A `.wast` file below this folder is itself; the file `REVISION` stands for the official suite at that commit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gaps  # noqa: E402 - found through the line above

from pywasmvm.script.pool import Settings, run_files  # noqa: E402
from pywasmvm.script.suite import find_suite, scripts, short_name  # noqa: E402

#: Seconds after which a script counts as hung.
TIMEOUT = 600


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", help="folder of the official suite")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path == HERE / "REVISION":
        return Suite.from_parent(parent, path=file_path)
    if file_path.suffix == ".wast":
        return Script.from_parent(parent, path=file_path)
    return None


class Script(pytest.File):
    """One file of our own."""

    def collect(self) -> Iterable[pytest.Item]:
        for engine in gaps.ENGINES:
            name = f"{self.path.stem}[{engine}]"
            yield Run.from_parent(self, name=name, script=self.path, engine=engine, suite=None)


class Suite(pytest.File):
    """The official suite."""

    def collect(self) -> Iterable[pytest.Item]:
        try:
            suite = find_suite(self.config.getoption("--suite"))
        except FileNotFoundError as error:
            raise pytest.UsageError(str(error)) from None
        for path in scripts(suite / folder for folder in gaps.FOLDERS):
            for engine in gaps.ENGINES:
                name = f"{short_name(path, suite)}[{engine}]"
                yield Run.from_parent(self, name=name, script=path, engine=engine, suite=suite)


class Run(pytest.Item):
    """One script on one engine."""

    def __init__(self, *, script: Path, engine: str, suite: Path | None, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self.script, self.engine, self.suite = script, engine, suite

    def runtest(self) -> None:
        (results,) = run_files([self.script], Settings(engine=self.engine), jobs=1, timeout=TIMEOUT)
        results.file = short_name(self.script, self.suite or HERE)
        said = gaps.complaints(results.to_json(), gaps.expected(), gaps.counts(self.suite))
        if said:
            raise Disagreement("\n".join(said))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, Disagreement):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.script, None, self.name


class Disagreement(Exception):
    """A script did not do what it should."""
