"""Many scripts in processes of their own: all are run, those that hang or die fail alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pywasmvm.script import pool
from pywasmvm.script.pool import Settings, longest_first, run_files
from pywasmvm.script.results import Results

GOOD = '(module (func (export "f") (result i32) (i32.const 1)))(assert_return (invoke "f") (i32.const 1))'
BAD = GOOD + '(assert_return (invoke "f") (i32.const 2))'
HANGS = GOOD + '(module (func (export "f") (loop (br 0))))\n(assert_return (invoke "f"))\n(module)\n' + GOOD


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("bad", BAD), ("hangs", HANGS), ("broken", "(module")):
        (tmp_path / f"{name}.wast").write_text(text)
    return tmp_path


def by_name(found: Sequence[Results]) -> dict[str, Results]:
    return {Path(results.file).stem: results for results in found}


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_every_file_is_run(folder: Path, jobs: int) -> None:
    paths = [folder / "good.wast", folder / "bad.wast", folder / "broken.wast"]
    found = by_name(list(run_files(paths, jobs=jobs, timeout=60)))
    assert set(found) == {"good", "bad", "broken"}
    assert found["good"].ok
    assert (found["bad"].passed, found["bad"].failed, found["bad"].commands) == (1, 1, 3)
    assert found["broken"].failures[0].kind == "script"
    if jobs:
        assert (found["good"].peak_memory or 1 << 24) >= 1 << 24


def test_a_file_that_hangs_is_stopped_where_it_hangs(folder: Path) -> None:
    paths = [folder / "hangs.wast", folder / "good.wast"]
    found = by_name(list(run_files(paths, jobs=1, timeout=1.5)))
    hung = found["hangs"]
    assert (hung.passed, hung.failed, hung.skipped, hung.commands) == (1, 1, 3, 7)
    (failure,) = hung.failures
    assert (failure.line, failure.kind) == (2, "assert_return")
    assert "stopped after 1.5 s" in (failure.reason or "")
    assert found["good"].ok


def test_a_process_that_dies_fails_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [folder / "bad.wast", folder / "good.wast"]
    monkeypatch.setattr(pool, "_work", die_on_bad)
    found = by_name(list(run_files(paths, jobs=2, timeout=60)))
    assert found["good"].ok
    (failure,) = found["bad"].failures
    assert "the process died" in (failure.reason or "")


WORK = pool._work


def die_on_bad(connection: object, path: str, settings: Settings) -> None:
    if path.endswith("bad.wast"):
        os.kill(os.getpid(), signal.SIGTERM)
    WORK(connection, path, settings)  # type: ignore[arg-type]


def test_settings_reach_the_processes(folder: Path) -> None:
    (found,) = run_files([folder / "good.wast"], Settings(engine="steam"), jobs=1, timeout=60)
    assert "unknown engine 'steam'" in (found.failures[0].reason or "")


def test_stopping_early_leaves_no_process(folder: Path) -> None:
    running = run_files([folder / "good.wast", folder / "hangs.wast"], jobs=2)
    first = next(running)
    running.close()  # type: ignore[attr-defined]  # a generator
    assert first.ok


@pytest.mark.parametrize("jobs", [0, 2])
def test_progress_sees_the_records(folder: Path, jobs: int) -> None:
    seen: list[int] = []
    paths = [folder / "good.wast", folder / "bad.wast"]
    list(run_files(paths, jobs=jobs, progress=lambda records: seen.append(sum(r.passed for r in records))))
    assert seen[-1] == 2


def test_the_longest_come_first(tmp_path: Path) -> None:
    sizes = {"a.wast": 10, "b.wast": 30, "memory_grow.wast": 1, "return_call_ref.wast": 1}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b" " * size)
    order = [path.name for path in longest_first(sorted(tmp_path.iterdir()))]
    assert order == ["return_call_ref.wast", "memory_grow.wast", "b.wast", "a.wast"]
