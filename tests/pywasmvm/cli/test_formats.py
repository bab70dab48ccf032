"""Commands between the formats: wat, wasm, validate of text, features, listings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pywasmvm import Module
from pywasmvm.binary.decode import decode
from pywasmvm.cli import main as cli
from pywasmvm.comparison import same
from pywasmvm.text.parser import parse_module
from tests.support.wat import wat

TEXT = """(module $demo
  (import "m" "f" (func $imported (param i32)))
  (memory (export "memory") 1) (data "abc")
  (func $add (export "add") (param $x i32) (param i32) (result i32)
    (i32x4.extract_lane 0 (i32x4.splat (i32.add (local.get $x) (local.get 1))))))
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "demo.wat"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture
def binary(tmp_path: Path) -> str:
    path = tmp_path / "demo.wasm"
    path.write_bytes(wat(TEXT))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


class TestWat:
    def test_prints_text_that_is_the_same_module(
        self, capsys: pytest.CaptureFixture[str], text: str, binary: str
    ) -> None:
        status, out, err = run(capsys, "wat", binary)
        assert (status, err) == (0, "")
        assert out.startswith("(module $demo\n")
        assert same(parse_module(out), decode(wat(TEXT))) is None
        assert run(capsys, "wat", text)[1] == out

    def test_writes_a_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, binary: str) -> None:
        target = tmp_path / "out.wat"
        assert run(capsys, "wat", binary, "-o", str(target)) == (0, "", "")
        assert target.read_text() == run(capsys, "wat", binary)[1]

    def test_invalid_modules_have_a_text_too(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "m.wasm"
        path.write_bytes(wat("(module (func drop))"))
        status, out, _ = run(capsys, "wat", str(path))
        assert status == 0
        assert "drop" in out


class TestWasm:
    def test_writes_the_binary(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
        target = tmp_path / "out.wasm"
        assert run(capsys, "wasm", text, "-o", str(target)) == (0, "", "")
        assert target.read_bytes() == wat(TEXT)

    def test_standard_output(self, capfdbinary: pytest.CaptureFixture[bytes], text: str) -> None:
        assert cli.main(["wasm", text]) == 0
        assert capfdbinary.readouterr().out == wat(TEXT)

    def test_not_on_a_terminal(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        status, out, err = run(capsys, "wasm", text)
        assert (status, out) == (2, "")
        assert "name a file with -o" in err

    def test_an_invalid_module_is_written_only_when_asked_for(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        source, target = tmp_path / "m.wat", tmp_path / "m.wasm"
        source.write_text("(module\n  (func\n    drop))")
        status, _, err = run(capsys, "wasm", str(source), "-o", str(target))
        assert status == 1
        assert not target.exists()
        assert err.startswith(f"pywasmvm: {source}: type mismatch")
        assert err.endswith(" (function 0, line 3, column 5, drop)\n      drop))\n      ^\n")
        assert run(capsys, "wasm", str(source), "--no-validation", "-o", str(target))[0] == 0
        assert target.read_bytes() == wat(source.read_text())


class TestErrorsInText:
    def test_the_line_is_shown_with_a_caret(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "m.wat"
        path.write_text("(module\n  (func (result i32)\n\t\ti32.cons 1))")
        status, out, _ = run(capsys, "validate", str(path))
        assert status == 1
        message, *shown = out.splitlines()
        assert message.startswith(f"{path}: malformed: unknown operator")
        assert message.endswith("(line 3, column 3)")
        assert shown == ["    i32.cons 1))", "    ^"]

    def test_of_a_long_line_the_part_around_the_place(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "m.wat"
        path.write_text("(module (func " + "nop " * 1000 + "i32.cons " + "nop " * 1000 + "))")
        _, shown, below = run(capsys, "validate", str(path))[1].splitlines()
        assert len(shown) < 110
        assert shown[below.index("^") :].startswith("i32.cons nop")

    def test_json_has_line_and_column(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "m.wat"
        path.write_text("(module\n (func drop))")
        verdict = json.loads(run(capsys, "validate", "--json", str(path))[1])
        assert (verdict["kind"], verdict["line"], verdict["column"]) == ("invalid", 2, 8)

    def test_valid_text(self, capsys: pytest.CaptureFixture[str], text: str) -> None:
        assert run(capsys, "validate", text) == (0, f"{text}: valid\n", "")

    def test_an_empty_wat_file_is_a_module(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "m.wat"
        path.write_text("")
        assert run(capsys, "wat", str(path))[1] == "(module\n)\n"


class TestFeatures:
    def test_text(self, capsys: pytest.CaptureFixture[str], text: str) -> None:
        status, out, _ = run(capsys, "features", text)
        assert status == 0
        assert out.splitlines()[0].startswith("mvp: ")
        assert "  a passive data segment: data segment 0" in out.splitlines()
        assert "  i32x4.splat: function 1, line 5, column 28" in out.splitlines()

    def test_binary(self, capsys: pytest.CaptureFixture[str], binary: str) -> None:
        out = run(capsys, "features", binary)[1]
        offset = Path(binary).read_bytes().index(b"\xfd\x11")
        assert f"  i32x4.splat: function 1, offset {offset:#x}" in out.splitlines()

    def test_counts(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "m.wat"
        path.write_text("(module (func (param externref externref)))")
        out = run(capsys, "features", str(path))[1].splitlines()
        assert "  a parameter of type externref (2 times): type 0" in out

    def test_json(self, capsys: pytest.CaptureFixture[str], binary: str) -> None:
        found = json.loads(run(capsys, "features", "--json", binary)[1])["features"]
        assert list(found) == ["mvp", "bulk-memory", "simd"]
        assert found["mvp"] == []
        assert [use["what"] for use in found["simd"]] == ["i32x4.splat", "i32x4.extract_lane"]
        assert {use["function"] for use in found["simd"]} == {1}


class TestInspect:
    def test_instructions(self, capsys: pytest.CaptureFixture[str], binary: str) -> None:
        status, out, _ = run(capsys, "inspect", "--instructions", binary)
        lines = out.splitlines()
        assert status == 0
        assert lines[0] == "function 0 $imported (type 0) (param i32), imported as m.f"
        assert lines[1] == ""
        assert lines[2].startswith("function 1 $add (type 1) (param $x i32) (param i32) (result i32)")
        assert [line.split()[-1] for line in lines[3:]] == [
            "$x", "1", "i32.add", "i32x4.splat", "0", "end",
        ]  # fmt: skip

    def test_instructions_as_json(self, capsys: pytest.CaptureFixture[str], binary: str) -> None:
        found = json.loads(run(capsys, "inspect", "--instructions", "--json", binary)[1])["functions"]
        source = Path(binary).read_bytes()
        assert [function["index"] for function in found] == [0, 1]
        for instr in found[1]["instructions"]:
            encoding = bytes.fromhex(instr["bytes"])
            assert source[instr["offset"] :].startswith(encoding)

    def test_of_text_the_binary_is_shown(
        self, capsys: pytest.CaptureFixture[str], text: str, binary: str
    ) -> None:
        assert run(capsys, "inspect", text) == run(capsys, "inspect", binary)
        listing = ["inspect", "--instructions"]
        assert run(capsys, *listing, text) == run(capsys, *listing, binary)


def test_a_text_module_can_be_called(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert run(capsys, "call", text, "add", "2", "40")[1] == "42\n"
    assert Module.from_file(text).name == "demo"
