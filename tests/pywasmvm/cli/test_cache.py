"""`pywasmvm cache`: what is there, how large, and how it goes away; and that commands can do without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pywasmvm.cache import entry, folder
from pywasmvm.cli import main as cli
from tests.support.wat import wat


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_show_and_clear(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(f"{'ab' * 32}-cd{folder.SUFFIX}", bytes(100_000))
    assert cli.main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert f"{place}: 1 file" in shown
    assert "0.1 MB of at most 256.0 MB" in shown
    assert f"module {'ab' * 8}" in shown
    assert cli.main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(place)
    assert [file["module"] for file in found["files"]] == ["ab" * 32]
    assert found["bytes"] == found["files"][0]["bytes"] > 100_000
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "removed 1 file\n"
    assert folder.files() == []
    assert cli.main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 0}


def test_no_cache_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", "")
    assert cli.main(["cache"]) == 0
    assert "there is no cache" in capsys.readouterr().out


def test_a_call_without_it(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "WORTH", 0.0)
    file = tmp_path / "m.wasm"
    file.write_bytes(wat('(module (func (export "f") (result i32) i32.const 1))'))
    assert cli.main(["call", "--no-cache", str(file), "f"]) == 0
    assert not place.exists()
    assert cli.main(["call", str(file), "f"]) == 0
    assert place.exists()
