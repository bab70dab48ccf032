"""`pywasmvm snapshot`, and the commands that begin from one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pywasmvm import Snapshot
from pywasmvm.cli import main as cli
from tests.support.wat import wat

COUNTER = """(module (memory 3) (global $n (mut i32) (i32.const 0)) (table 2 funcref)
  (func (export "_initialize") (global.set $n (i32.const 40)) (i32.store (i32.const 70000) (i32.const 1)))
  (func (export "more") (global.set $n (i32.add (global.get $n) (i32.const 2))))
  (func (export "boom") (unreachable)) (func (export "with") (param i32))
  (func (export "spin") (loop (br 0)))
  (func (export "n") (result i32) (global.get $n)))"""

FILTER = """(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "_initialize") (drop (call $sizes (i32.const 0) (i32.const 4)))))"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "counter.wasm"
    path.write_bytes(wat(COUNTER))
    return path


def test_make_show_and_use(capsys: pytest.CaptureFixture[str], module: Path, tmp_path: Path) -> None:
    file = tmp_path / "counter.snapshot"
    status, out, err = run(capsys, "snapshot", module, "-o", file)
    assert (status, err) == (0, "")
    assert "memories: 3 pages, 4096 bytes not zero\n" in out
    assert "tables: 2 elements\n" in out
    assert run(capsys, "snapshot", "--show", file) == (0, out, "")
    shown = json.loads(run(capsys, "snapshot", "--show", file, "--json")[1])
    assert shown["memories"] == [{"pages": 3, "kept_bytes": 4096}]
    assert shown["module"] == Snapshot.load(file).module.hex()
    assert shown["bytes"] == file.stat().st_size
    assert run(capsys, "call", module, "n") == (0, "0\n", "")
    assert run(capsys, "call", module, "n", "--snapshot", file) == (0, "40\n", "")


def test_what_is_called_can_be_chosen(
    capsys: pytest.CaptureFixture[str], module: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x"
    assert run(capsys, "snapshot", module, "-o", file, "--invoke", "more", "--invoke", "more")[0] == 0
    assert run(capsys, "call", module, "n", "--snapshot", file)[1] == "4\n"


def test_a_filter_is_started_by_its_host(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, file = tmp_path / "filter.wasm", tmp_path / "x"
    path.write_bytes(wat(FILTER))
    assert run(capsys, "snapshot", path, "-o", file, "--env", "ABC=1")[0] == 0
    assert Snapshot.load(file).memories[0].kept == 4096  # it has seen its variable
    status, out, _ = run(capsys, "filter", "run", path, "--snapshot", file, "--env", "ABC=1")
    assert (status, "callbacks" in out) == (0, True)
    status, _, err = run(capsys, "filter", "run", path, "--snapshot", file)
    assert (status, err) == (
        1,
        f"{file}: it was taken with another environment, or with other capabilities\n",
    )
    file.write_bytes(b"x")
    status, _, err = run(capsys, "filter", "run", path, "--snapshot", file)
    assert (status, err) == (1, f"{file}: these bytes are no snapshot\n")
    status, _, err = run(capsys, "filter", "run", path, "--snapshot", tmp_path / "none")
    assert (status, err) == (1, f"{tmp_path / 'none'}: No such file or directory\n")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["MODULE"],
        ["-o", "FILE"],
        ["MODULE", "--show", "FILE"],
        ["MODULE", "-o", "FILE", "--invoke", "none"],
        ["MODULE", "-o", "FILE", "--invoke", "with"],
        ["MODULE", "-o", "FILE", "--env", "A=1"],
        ["MODULE", "-o", "FILE", "--env", "A"],
        ["MODULE", "-o", "FILE", "--memory-pages", "-1"],
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], module: Path, tmp_path: Path, words: list[str]
) -> None:
    file = tmp_path / "x"
    given = [{"MODULE": str(module), "FILE": str(file)}.get(word, word) for word in words]
    status, out, err = run(capsys, "snapshot", *given)
    assert (status, out) == (2, "")
    assert err
    assert not file.exists()


def test_what_goes_wrong_is_said(capsys: pytest.CaptureFixture[str], module: Path, tmp_path: Path) -> None:
    file = tmp_path / "x"
    assert run(capsys, "snapshot", module, "-o", file, "--invoke", "boom")[0] == 134
    status, _, err = run(capsys, "snapshot", module, "-o", file, "--invoke", "spin", "--seconds", "0.1")
    assert (status, "deadline exceeded" in err) == (134, True)
    status, _, err = run(capsys, "snapshot", module, "-o", file, "--memory-pages", "2")
    assert (status, "more than the store's limit" in err) == (1, True)
    assert not file.exists()
    other = tmp_path / "other.wasm"
    other.write_bytes(wat("(module (type $s (struct)) (global (mut anyref) (struct.new $s)))"))
    status, _, err = run(capsys, "snapshot", other, "-o", file)
    assert (status, "global 0 holds a reference" in err) == (1, True)
    assert run(capsys, "snapshot", module, "-o", file)[0] == 0
    status, _, err = run(capsys, "call", other, "n", "--snapshot", file)
    assert (status, "it was taken of another module" in err) == (1, True)
    assert run(capsys, "snapshot", "--show", module)[0] == 1
