"""`pywasmvm wast`: lines for people, JSON for machines, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pywasmvm.cli import cmd_wast
from pywasmvm.cli import main as cli
from pywasmvm.script.results import Outcome, Results

GOOD = """(module (func (export "f") (result i32) (i32.const 1)))
(assert_return (invoke "f") (i32.const 1))
(assert_invalid (module (func (result i32))) "type mismatch")
(assert_malformed (module quote "(func") "not our words")
"""
BAD = GOOD + '(assert_return (invoke "f") (i32.const 2))\n(assert_trap (invoke "f") "unreachable")'


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "core" / "part").mkdir(parents=True)
    (tmp_path / "core" / "good.wast").write_text(GOOD)
    (tmp_path / "core" / "part" / "bad.wast").write_text(BAD)
    monkeypatch.setenv("WASM_SPEC_SUITE", str(tmp_path))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["wast", "--jobs", "0", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_one_line_per_file(capsys: pytest.CaptureFixture[str], suite: Path) -> None:
    status, out, err = run(capsys, str(suite / "core" / "good.wast"))
    first, second, third, *_ = out.splitlines()
    assert (status, err) == (0, "")
    assert first.split()[:5] == ["core/good.wast", "3", "passed", "0", "failed"]
    assert second == "1 files, 4 commands: 3 of 3 assertions passed, 0 commands failed, 0 skipped"
    assert third.endswith("1 of 2 begin with the suite's words (50.0 %)")


def test_without_paths_the_core_of_the_suite_runs(capsys: pytest.CaptureFixture[str], suite: Path) -> None:
    status, out, _ = run(capsys)
    assert status == 1
    assert "2 files, 10 commands: 6 of 8 assertions passed, 2 commands failed, 0 skipped" in out
    assert "5: assert_return: got i32:1, expected i32:2" in out


def test_how_many_failures_are_shown(capsys: pytest.CaptureFixture[str], suite: Path) -> None:
    path = str(suite / "core" / "part" / "bad.wast")
    assert "... and 1 more" in run(capsys, "--failures", "1", path)[1]
    assert "assert_trap" not in run(capsys, "--failures", "1", path)[1]
    assert "6: assert_trap: expected trap (unreachable)" in run(capsys, "--failures", "-1", path)[1]


def test_messages_that_differ_are_listed_on_request(capsys: pytest.CaptureFixture[str], suite: Path) -> None:
    path = str(suite / "core" / "good.wast")
    assert "not our words" not in run(capsys, path)[1]
    assert '4: assert_malformed: "not our words" is "unexpected token' in run(capsys, "--messages", path)[1]


def test_json(capsys: pytest.CaptureFixture[str], suite: Path) -> None:
    status, out, err = run(capsys, "--json", "--engine", "interp", str(suite))
    found = json.loads(out)
    assert status == 1
    assert "core/good.wast" in err
    sums = found["totals"]
    assert [sums[key] for key in ("passed", "failed", "skipped", "commands")] == [6, 2, 0, 10]
    assert (sums["engine"], sums["messages"]) == ("interp", {"total": 4, "agreed": 2})
    assert [record["file"] for record in found["files"]] == ["core/good.wast", "core/part/bad.wast"]
    assert found["files"][1]["failures"][0]["line"] == 5


def test_round_trips(capsys: pytest.CaptureFixture[str], suite: Path) -> None:
    path = str(suite / "core" / "good.wast")
    for kind in ("binary", "text"):
        status, out, _ = run(capsys, "--round-trip", kind, "--json", path)
        assert status == 0
        assert json.loads(out)["totals"]["round_trip"] == kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.wast"], "there is no nowhere.wast"),
        (["--engine", "steam"], "unknown engine 'steam'"),
        (["--features", "speed"], "unknown feature 'speed'"),
        (["--suite", "nowhere"], "--suite is nowhere"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], suite: Path, arguments: list[str], message: str
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err


class Terminal:
    """A stream that is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_the_bar_is_for_terminals(
    capsys: pytest.CaptureFixture[str], suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(capsys)
    assert "1/2 files" in terminal.text
    assert terminal.text.endswith("\r\x1b[K")


def test_what_the_bar_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    bar = cmd_wast._Bar(4, terminal)  # type: ignore[arg-type]
    over, running = Results("core/a.wast", commands=1, seconds=1.0), Results("core/b.wast", commands=9)
    over.add(Outcome(1, "assert_return"))
    running.add(Outcome(1, "assert_return", "got i32:1, expected i32:2"))
    bar.show([over, running])
    assert terminal.text == f"\r\x1b[K[{'#' * 6}{'.' * 18}] 1/4 files, 1 passed, 1 failed  b.wast"
    bar.clear()
    assert terminal.text.endswith("\r\x1b[K")
