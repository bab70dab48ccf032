"""Runs the official suite's 2.0 scripts (without SIMD) on our machine, through `wasm-tools json-from-wast`.

It stands in until our own text parser and script runner exist. wasm-tools turns each script into commands in
JSON and modules in binary; every command is executed and counted here. Assertions about text that is not
well-formed need a text parser, so they are counted apart. Files whose commands fail because they use 3.0
stand in `expected.toml` with how many and why; the run fails when a file does worse, and also when it does
better, so that the list shrinks.

    python spec-tests/run_binary.py [--suite FOLDER] [--workers N] [--json FILE] [--update] [FILE ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pywasmvm import (  # noqa: E402 - found through the line above
    Exhaustion,
    FuncType,
    Global,
    GlobalType,
    HostFunc,
    Instance,
    InvalidError,
    Limits,
    LinkError,
    MalformedError,
    Memory,
    MemoryType,
    Module,
    Store,
    StoreLimits,
    Table,
    TableType,
    Trap,
)
from pywasmvm.numerics.bits import (  # noqa: E402
    f32_from_bits,
    f32_to_bits,
    f64_from_bits,
    f64_to_bits,
)
from pywasmvm.runtime.func import Func  # noqa: E402
from pywasmvm.types import BY_NAME, FUNCREF  # noqa: E402

#: Folders below `core` that belong to 2.0 without SIMD.
FOLDERS = ("", "bulk-memory")

EXPECTED = HERE / "expected.toml"


def find_suite(given: str | None) -> Path:
    """The suite's folder: `--suite`, WASM_SPEC_SUITE, or `../shared/spec-testsuite` beside the project."""
    places = [given, os.environ.get("WASM_SPEC_SUITE"), str(HERE.parents[1] / "shared" / "spec-testsuite")]
    for place in places:
        if place and (Path(place) / "core").is_dir():
            return Path(place)
    raise SystemExit(
        "the official suite was not found: clone WebAssembly/spec and give its test folder with --suite or "
        "WASM_SPEC_SUITE"
    )


class ExternRef:
    """A host reference of a script: the same number is the same object."""


class Script:
    """The state of one running script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(StoreLimits(call_depth=3000))
        self.current: Instance | None = None
        self.named: dict[str, Instance | None] = {}
        self.registered: dict[str, dict[str, Any]] = {"spectest": spectest()}
        self.refs: dict[str, ExternRef] = {}
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    # -- values ----------------------------------------------------------------------------------------

    def value(self, const: dict[str, Any]) -> Any:
        """An argument, in canonical form."""
        kind, text = const["type"], const.get("value")
        if kind in ("i32", "i64"):
            return int(text) & ((1 << int(kind[1:])) - 1)
        if kind in ("f32", "f64"):
            return (f32_from_bits if kind == "f32" else f64_from_bits)(int(text))
        if text == "null":
            return None
        return self.refs.setdefault(text, ExternRef())

    def agrees(self, pattern: dict[str, Any], found: Any) -> bool:
        """Whether a result is what is expected, bit by bit."""
        kind, text = pattern["type"], pattern.get("value")
        if kind in ("f32", "f64"):
            width = int(kind[1:])
            bits = (f32_to_bits if width == 32 else f64_to_bits)(found)
            mantissa = 23 if width == 32 else 52
            exponent = ((1 << (width - 1 - mantissa)) - 1) << mantissa
            quiet = 1 << (mantissa - 1)
            if text == "nan:canonical":
                return bits & ~(1 << (width - 1)) == exponent | quiet
            if text == "nan:arithmetic":
                return bits & (exponent | quiet) == exponent | quiet
            return bits == int(text)
        if kind == "refnull":
            return found is None
        if kind == "funcref" and text != "null":
            return isinstance(found, Func)
        if kind == "externref" and text is None:
            return found is not None
        return bool(found == self.value(pattern))

    # -- commands --------------------------------------------------------------------------------------

    def module(self, command: dict[str, Any]) -> Module:
        """The module of a command, decoded and validated."""
        return Module((self.folder / command["filename"]).read_bytes())

    def instance(self, name: str | None) -> Instance:
        """The instance a name means; without a name the latest one."""
        found = self.current if name is None else self.named[name]
        if found is None:
            raise LookupError("its module did not load")
        return found

    def act(self, action: dict[str, Any]) -> list[Any]:
        """Invoke or get; the results."""
        extern = self.instance(action.get("module")).exports[action["field"]]
        if action["type"] == "get":
            return [extern.raw]
        returned = extern.raw(*map(self.value, action["args"]))
        count = len(extern.type.results)
        return [] if count == 0 else [returned] if count == 1 else list(returned)

    def refused(self, command: dict[str, Any], error: type[Exception], action: Any) -> str | None:
        """None when `action` raises this error with the expected text first, else what happened instead."""
        try:
            action()
        except error as raised:
            if error in (MalformedError, InvalidError):
                return None  # their texts are not part of the assertion
            return None if str(raised).startswith(command["text"]) else f"{raised}"
        return "nothing was raised"

    def run(self, command: dict[str, Any]) -> str | None:
        """Execute one command: None when it did what it should, else what it did instead."""
        kind = command["type"]
        if kind == "module":
            self.current = None
            self.named[command.get("name", "")] = None
            self.current = Instance(self.module(command), self.registered, store=self.store)
            self.named[command.get("name", "")] = self.current
        elif kind == "module_definition":
            self.module(command)
        elif kind == "register":
            self.registered[command["as"]] = dict(self.instance(command.get("name")).exports)
        elif kind == "action":
            self.act(command["action"])
        elif kind == "assert_return":
            found, wanted = self.act(command["action"]), command["expected"]
            if len(found) != len(wanted) or not all(map(self.agrees, wanted, found)):
                return f"got {found}, expected {wanted}"
        elif kind == "assert_malformed":
            return self.refused(command, MalformedError, lambda: self.module(command))
        elif kind == "assert_invalid":
            return self.refused(command, InvalidError, lambda: self.module(command))
        elif kind in ("assert_unlinkable", "assert_uninstantiable"):
            module = self.module(command)
            error = LinkError if kind == "assert_unlinkable" else Trap
            return self.refused(command, error, lambda: Instance(module, self.registered, store=self.store))
        elif kind in ("assert_trap", "assert_exhaustion"):
            error = Exhaustion if kind == "assert_exhaustion" else Trap
            return self.refused(command, error, lambda: self.act(command["action"]))
        else:
            return f"unknown command {kind}"
        return None


def spectest() -> dict[str, Any]:
    """The host module that scripts import."""
    i32, i64, f32, f64 = (BY_NAME[name] for name in ("i32", "i64", "f32", "f64"))
    made: dict[str, Any] = {}
    for params in ("", "i32", "i64", "f32", "f64", "i32 f32", "f64 f64"):
        name = "_".join(["print", *params.split()])
        made[name] = HostFunc(FuncType.parse(f"{params} ->"), lambda *values: None, name=name)
    for type_, value in ((i32, 666), (i64, 666), (f32, 666.6), (f64, 666.6)):
        made[f"global_{type_}"] = Global(GlobalType(type_), value)
    made["table"] = Table(TableType(FUNCREF, Limits(10, 20)))
    made["memory"] = Memory(MemoryType(Limits(1, 2)))
    return made


def run_file(job: tuple[Path, str]) -> dict[str, Any]:
    """Convert and run one script; its counts and its failures."""
    path, name = job
    tool = Path(sys.executable).parent / "wasm-tools"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "script.json"
        converted = subprocess.run(
            [str(tool), "json-from-wast", str(path), "--wasm-dir", folder, "-o", str(output)],
            capture_output=True,
            text=True,
        )
        if converted.returncode != 0:
            return {"file": name, "passed": 0, "failed": 0, "text": 0, "failures": [], "unconverted": True}
        script = Script(Path(folder))
        passed = failed = text = 0
        for command in json.loads(output.read_text())["commands"]:
            if command["type"].startswith("assert_") and command.get("module_type") == "text":
                text += 1
                continue
            try:
                said = script.run(command)
            except Exception as error:  # whatever it is, it is this command's failure
                said = f"{type(error).__name__}: {error}"
            if said is None:
                passed += 1
            else:
                failed += 1
                script.failures.append(f"{name}:{command['line']}: {command['type']}: {said[:200]}")
    return {
        "file": name,
        "passed": passed,
        "failed": failed,
        "text": text,
        "failures": script.failures,
        "unconverted": False,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", metavar="FILE", help="names below core, such as i32.wast")
    parser.add_argument("--suite")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--update", action="store_true", help="write what happened into expected.toml")
    args = parser.parse_args()
    core = find_suite(args.suite) / "core"
    paths = [path for folder in FOLDERS for path in sorted((core / folder).glob("*.wast"))]
    jobs = [(path, str(path.relative_to(core))) for path in paths]
    if args.files:
        jobs = [job for job in jobs if job[1] in args.files]
    expected: dict[str, Any] = tomllib.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    jobs.sort(key=lambda job: (not job[1].startswith("return_call"), -job[0].stat().st_size))
    status = 0
    results = []
    with multiprocessing.Pool(args.workers) as pool:
        for result in pool.imap_unordered(run_file, jobs):
            results.append(result)
            name, failed = result["file"], result["failed"]
            gap = expected.get(name, {})
            note = ""
            if failed != gap.get("failed", 0) or result["unconverted"] != gap.get("unconverted", False):
                note = f"   EXPECTED {gap.get('failed', 0)} failed"
                if not args.update:
                    status = 1
                    with contextlib.suppress(BrokenPipeError):
                        print("\n".join(result["failures"][:10]))
            print(f"{name}: {result['passed']} passed, {failed} failed, {result['text']} text only{note}")
    if args.update:
        lines = (
            [line for line in EXPECTED.read_text().splitlines() if line.startswith("#")]
            if EXPECTED.exists()
            else []
        )
        for result in sorted(results, key=lambda r: str(r["file"])):
            if result["failed"] or result["unconverted"]:
                reason = expected.get(result["file"], {}).get("reason", "?")
                flag = "unconverted = true, " if result["unconverted"] else ""
                lines.append(
                    f'"{result["file"]}" = {{ {flag}failed = {result["failed"]}, reason = "{reason}" }}'
                )
        EXPECTED.write_text("\n".join(lines) + "\n")
    totals = {key: sum(r[key] for r in results) for key in ("passed", "failed", "text")}
    if args.json:
        args.json.write_text(json.dumps({"totals": totals, "files": results}, indent=1))
    print(
        f"{len(results)} scripts: {totals['passed']} commands passed, {totals['failed']} failed"
        f" (all in scripts that use 3.0), {totals['text']} about text only"
    )
    return status


if __name__ == "__main__":
    raise SystemExit(main())
