"""The generated reference page: current, complete, and noticed when it is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pywasmvm.isa import ROWS, Imm, op

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "instruction_reference", ROOT / "scripts" / "instruction_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["instruction_reference.py", "--check"])
    assert script.main() == 0


def test_entries(script: ModuleType) -> None:
    assert script.entry(op("i32.add"), False) == "| `i32.add` | `6a` |  | `i32 i32 -> i32` | mvp |"
    assert script.entry(op("struct.get"), False) == (
        "| `struct.get` | `fb 02` | type, field | [`ref? -> t`](../../pywasmvm/valid/gc.py) | gc |"
    )
    assert script.entry(op("v128.not"), True).split(" | ")[-1].rstrip("| ")


def test_every_row_and_every_kind_of_immediate_is_on_the_page(script: ModuleType) -> None:
    page = script.page()
    assert all(f"| `{row.name}` | `{row.encoding.hex(' ')}` |" in page for row in ROWS)
    assert all(f"\n| {kind.value} | " in page for kind in Imm)


def test_a_page_that_is_old_is_noticed_and_written_anew(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "docs" / "page.md"
    monkeypatch.setattr(script, "PAGE", page)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "typing", lambda row: "")
    monkeypatch.setattr("sys.argv", ["instruction_reference.py", "--check"])
    assert script.main() == 1
    assert "docs/page.md is not current" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["instruction_reference.py"])
    assert script.main() == 0
    monkeypatch.setattr("sys.argv", ["instruction_reference.py", "--check"])
    assert script.main() == 0


def test_a_rule_without_a_text_is_named(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(script.BY_RULE, "drop")
    assert script.main() == 1
    assert "do not agree about drop" in capsys.readouterr().out
