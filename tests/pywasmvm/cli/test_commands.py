"""The command line: results on stdout, messages on stderr, exit statuses, JSON where a machine may read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pywasmvm._version import __version__
from pywasmvm.cli import cmd_doctor
from pywasmvm.cli import main as cli
from tests.support import binary as b
from tests.support.wat import wat

TEXT = """(module $math
  (import "env" "missing" (func $missing))
  (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
  (func (export "half") (param f64) (result f64) local.get 0 f64.const 0.5 f64.mul)
  (func (export "pair") (result i64 f32) i64.const -1 f32.const inf)
  (func (export "nothing") (param i64))
  (func (export "null") (result externref) ref.null extern)
  (func (export "boom") (result i32) i32.const 1 i32.const 0 i32.div_s)
  (func (export "forever") loop br 0 end)
  (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
  (func (export "calls") call $missing)
  (memory (export "memory") 1) (data "abc")
  (global (export "g") (mut i32) (i32.const 0)))"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    path = tmp_path / "math.wasm"
    path.write_bytes(wat(TEXT))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


class TestCall:
    def test_prints_results(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        assert run(capsys, "call", module, "add", "2", "40") == (0, "42\n", "")
        assert run(capsys, "call", module, "add", "0xffffffff", "3") == (0, "2\n", "")
        assert run(capsys, "call", module, "half", "5") == (0, "2.5\n", "")
        assert run(capsys, "call", module, "pair") == (0, "-1\ninf\n", "")
        assert run(capsys, "call", module, "nothing", "7") == (0, "", "")
        assert run(capsys, "call", module, "null") == (0, "None\n", "")

    def test_negative_numbers_are_arguments(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        assert run(capsys, "call", module, "add", "--", "-2", "1") == (0, "-1\n", "")

    def test_json(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        status, out, _ = run(capsys, "call", "--json", "--fuel", "100", module, "pair")
        assert status == 0
        assert json.loads(out)["results"] == [-1, "inf"]
        assert 0 < json.loads(out)["fuel_left"] < 100

    def test_a_trap_is_134(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        status, out, err = run(capsys, "call", module, "boom")
        assert (status, out) == (134, "")
        assert err.startswith("pywasmvm: trap: integer divide by zero\nwasm backtrace")
        assert "math!boom" in err

    def test_limits(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        assert "out of fuel" in run(capsys, "call", "--fuel", "1000", module, "forever")[2]
        assert "deadline exceeded" in run(capsys, "call", "--seconds", "0.05", module, "forever")[2]
        assert run(capsys, "call", "--memory-pages", "2", module, "grow", "2")[1] == "-1\n"

    def test_imports_nobody_defined_trap_when_called(
        self, capsys: pytest.CaptureFixture[str], module: str
    ) -> None:
        status, _, err = run(capsys, "call", module, "calls")
        assert status == 134
        assert "unknown import called env.missing" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["add", "1"], "add takes (i32 i32 -> i32)"),
            (["add", "1", "x"], "add takes (i32 i32 -> i32)"),
            (["add", "1", "4294967296"], "does not fit in an i32"),
            (["sub", "1"], "exports no function 'sub'; functions: add, half"),
            (["memory"], "exports no function 'memory'"),
        ],
    )
    def test_wrong_usage_is_2(
        self, capsys: pytest.CaptureFixture[str], module: str, arguments: list[str], message: str
    ) -> None:
        status, out, err = run(capsys, "call", module, *arguments)
        assert (status, out) == (2, "")
        assert message in err

    def test_an_unknown_engine(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        status, _, err = run(capsys, "call", "--engine", "jit", module, "add")
        assert status == 2
        assert "unknown engine 'jit'" in err

    def test_a_module_that_asks_for_too_much_memory(
        self, capsys: pytest.CaptureFixture[str], module: str
    ) -> None:
        status, out, err = run(capsys, "call", "--memory-pages", "0", module, "add", "1", "2")
        assert (status, out) == (1, "")
        assert "1 pages of memory are more than the store's limit allows" in err


class TestValidate:
    def test_verdicts(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, module: str) -> None:
        bad, invalid = tmp_path / "bad.wasm", tmp_path / "invalid.wasm"
        bad.write_bytes(b"\0asm\2\0\0\0")
        invalid.write_bytes(wat("(module (func drop))"))
        assert run(capsys, "validate", module) == (0, f"{module}: valid\n", "")
        status, out, _ = run(capsys, "validate", module, str(bad), str(invalid))
        lines = out.splitlines()
        assert status == 1
        assert lines[0] == f"{module}: valid"
        assert lines[1] == f"{bad}: malformed: unknown binary version (at offset 0x4)"
        assert lines[2].startswith(f"{invalid}: invalid: type mismatch")

    def test_json(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, module: str) -> None:
        invalid = tmp_path / "invalid.wasm"
        invalid.write_bytes(wat("(module (func drop))"))
        status, out, _ = run(capsys, "validate", "--json", module, str(invalid))
        good, bad = map(json.loads, out.splitlines())
        assert status == 1
        assert good == {"module": module, "valid": True}
        assert bad["valid"] is False
        assert (bad["kind"], bad["function"], bad["instruction"]) == ("invalid", 0, "drop")

    def test_features(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "m.wasm"
        path.write_bytes(wat("(module (func i32.const 0 i32.extend8_s drop))"))
        assert run(capsys, "validate", "--features", "sign-extension, multi-value", str(path))[0] == 0
        assert run(capsys, "validate", "--features", "mvp", str(path))[0] == 1
        status, _, err = run(capsys, "validate", "--features", "none", str(path))
        assert status == 2
        assert "unknown feature 'none'" in err


class TestInspect:
    def test_text(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        status, out, _ = run(capsys, "inspect", module)
        assert status == 0
        assert "module: math" in out
        assert "env.missing: func" in out
        assert "add: func (i32 i32 -> i32)" in out
        assert "g: global (mut i32)" in out
        assert "data segments: 1" in out

    def test_json(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        status, out, _ = run(capsys, "inspect", "--json", module)
        facts = json.loads(out)
        assert status == 0
        assert facts["functions"] == 10
        assert facts["imports"] == [{"module": "env", "name": "missing", "type": "func (->)"}]
        assert facts["data_bytes"] == 3
        assert facts["start"] is None
        used = set(facts["features"])
        assert used == {"mvp", "multi-value", "mutable-globals", "bulk-memory", "reference-types"}
        sizes = {section["name"]: section["bytes"] for section in facts["sections"]}
        assert sizes["code"] > 50

    def test_an_empty_module(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "m.wasm"
        path.write_bytes(b.HEADER)
        status, out, _ = run(capsys, "inspect", str(path))
        assert status == 0
        assert "exports: none" in out

    def test_tables_of_references_are_a_feature(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "m.wasm"
        path.write_bytes(wat("(module (table 1 externref) (func $s) (start $s))"))
        facts = json.loads(run(capsys, "inspect", "--json", str(path))[1])
        assert "reference-types" in facts["features"]
        assert facts["start"] == "s"


class TestDoctor:
    def test_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys, "doctor")
        assert status == 0
        assert out.startswith(f"pywasmvm {__version__}\n")
        assert "numpy" in out
        assert "call_depth      10000" in out
        assert "fuel            unlimited" in out

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys, "doctor", "--json")
        assert status == 0
        assert json.loads(out)["parts"]["numpy"]

    def test_what_is_missing_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cmd_doctor, "_version", lambda name: None)
        monkeypatch.setattr(cmd_doctor, "_threads", lambda: False)
        status, out, _ = run(capsys, "doctor")
        assert status == 1
        assert "pip install 'pywasmvm[proxy]'" in out
        assert "threads can be started: no" in out
        assert run(capsys, "doctor", "--json")[0] == 1

    def test_threads_that_cannot_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert cmd_doctor.report()["threads"] is False


class TestMain:
    def test_the_commands_are_found(self) -> None:
        wanted = {"call", "doctor", "features", "inspect", "validate", "wasm", "wast", "wat"}
        assert wanted <= set(cli.commands())

    def test_what_is_installed_and_what_a_source_tree_knows_agree(self) -> None:
        project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
        declared = project["project"]["entry-points"]["pywasmvm.commands"]
        own = {name: module for name, module in declared.items() if module.startswith("pywasmvm.")}
        assert own == cli._OWN

    def test_help_and_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys, "--help")
        assert status == 0
        assert "call an exported function" in out
        assert run(capsys, "--version")[1] == f"pywasmvm {__version__}\n"
        assert run(capsys, "call", "--help")[0] == 0

    @pytest.mark.parametrize("arguments", [[], ["nonsense"], ["call"], ["call", "--nonsense"]])
    def test_wrong_usage_is_2(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, "")
        assert "usage: pywasmvm" in err

    def test_files_that_are_missing_or_no_modules(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        missing = str(tmp_path / "missing.wasm")
        status, _, err = run(capsys, "call", missing, "f")
        assert status == 1
        assert err == f"pywasmvm: {missing}: No such file or directory\n"
        path = tmp_path / "text.wasm"
        path.write_text("a module")
        status, _, err = run(capsys, "inspect", str(path))
        assert status == 1
        assert err == f"pywasmvm: {path}: magic header not detected (at offset 0x0)\n"

    def test_a_command_that_cannot_be_imported_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        found = cli.commands() | {"broken": "pywasmvm.no_such_module"}
        monkeypatch.setattr(cli, "commands", lambda: found)
        status, _, err = run(capsys, "broken")
        assert status == 2
        assert "the command broken cannot be loaded" in err
        assert run(capsys, "call", module, "add", "1", "2")[0] == 0

    def test_an_interrupt_is_130(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        from pywasmvm.cli import cmd_call

        def interrupt(args: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(cmd_call, "run", interrupt)
        assert run(capsys, "call", module, "add")[0] == 130

    def test_output_nobody_reads(self, module: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        program = "import sys; from pywasmvm.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, "inspect", module], stdout=writer, stderr=subprocess.PIPE
        )
        os.close(writer)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
