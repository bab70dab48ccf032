"""What later processes know of a module: the verdict, its segments, its code; and it changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pywasmvm import Instance, InvalidError, Module, Store, StoreLimits, Trap
from pywasmvm.cache import entry, folder
from pywasmvm.cache.entry import Entry
from tests.support.wat import wat

TEXT = """(module $m
  (memory 1)
  (func $inner (param i32) (result i32) local.get 0 i32.load offset=65530)
  (func (export "load") (param i32) (result i32) local.get 0 call $inner)
  (func (export "sum") (param i32) (result i32) (local i32)
    loop
      local.get 0 local.get 1 i32.add local.set 1
      local.get 0 i32.const 1 i32.sub local.tee 0 br_if 0
    end
    local.get 1))"""

ENGINES = ("auto", "translate", "translate-flat")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(entry, "WORTH", 0.0)  # everything is worth it
    return tmp_path / "cache"


def known(module: Module) -> Entry:
    assert module.cache is not None
    return module.cache


def test_a_verdict_holds_for_these_bytes_and_features_only(monkeypatch: pytest.MonkeyPatch) -> None:
    source = wat(TEXT)
    known(Module(source)).write()
    checked: list[int] = []
    monkeypatch.setattr(Module, "validate_bodies", lambda self: checked.append(len(self.syntax.source)))
    Module(source)
    assert checked == []
    Module(source, features=["mvp"])
    Module(source + b"\0\1\0")  # a custom section more
    Module(source, cache=False)
    assert len(checked) == 3


def test_what_is_invalid_stays_so() -> None:
    source = wat(TEXT).replace(b"\x20\x00\x28", b"\x20\x09\x28")  # a local that there is not
    for _ in range(2):
        with pytest.raises(InvalidError, match="unknown local"):
            Module(source)
    assert folder.files() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_kept_code_does_what_fresh_code_does(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(module: Module) -> tuple[object, ...]:
        exports = Instance(module, store=Store(engine=engine)).exports
        results = [exports["sum"](2000) for _ in range(600)]
        for _ in range(600):
            exports["load"](2)
        with pytest.raises(Trap) as caught:
            exports["load"](3)
        known(module).write()
        return results[-1], caught.value.kind, str(caught.value), caught.value.frames

    fresh = outcome(Module(wat(TEXT)))
    assert [file.size > 0 for file in folder.files()] == [True]

    from pywasmvm.translate import link

    with monkeypatch.context() as patch:
        patch.setattr(link, "source_of", None)  # nothing is translated any more
        again = outcome(Module(wat(TEXT)))
        named = outcome(Module(wat(TEXT), name="other"))
    assert again == fresh
    assert named[:2] == fresh[:2]
    assert {frame.module for frame in named[3]} == {"other"}  # type: ignore[attr-defined]


def test_what_was_hot_is_bound_before_it_is_called() -> None:
    module = Module(wat(TEXT))
    exports = Instance(module).exports
    for _ in range(600):
        exports["load"](2)
    exports["sum"](1)  # called once
    known(module).write()
    later = Module(wat(TEXT))
    assert known(later).hot == {0, 1}
    instance = Instance(later)
    instance.exports["sum"](1)
    bound = [func.fast is not None for func in instance.funcs]
    assert bound == [True, True, False]
    assert instance.exports["load"](2) == 0


def test_variants_do_not_meet() -> None:
    module = Module(wat(TEXT))
    for engine, limits in (
        ("translate", StoreLimits()),
        ("translate", StoreLimits(fuel=10**6)),
        ("translate-flat", StoreLimits()),
    ):
        assert Instance(module, store=Store(limits, engine=engine)).exports["sum"](3) == 6
    known(module).write()
    later = Module(wat(TEXT))
    store = Store(StoreLimits(fuel=10**6), engine="translate")
    assert Instance(later, store=store).exports["sum"](3) == 6
    assert store.fuel_left is not None
    assert store.fuel_left < 10**6
    assert len({key[0] for key in known(later)._kept}) == 3


def test_turned_off(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    assert Module(wat(TEXT), cache=False).cache is None
    assert Module.from_bytes(wat(TEXT), cache=False).cache is None
    assert Module(TEXT).cache is None  # a text is read anew each time
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", "")
    assert Module(wat(TEXT)).cache is None
    assert not place.exists()


def test_little_work_is_not_kept(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setattr(entry, "WORTH", 1e9)
    made = Module(wat(TEXT))
    Instance(made, store=Store(engine="translate")).exports["sum"](3)
    assert not place.exists()


def test_a_damaged_file_is_told_of_once_and_replaced() -> None:
    known(Module(wat(TEXT))).write()
    [file] = folder.files()
    whole = Path(file.path).read_bytes()
    Path(file.path).write_bytes(whole[:-1])
    with pytest.warns(folder.CacheWarning, match="damaged") as told:
        module = Module(wat(TEXT))
    assert Instance(module, store=Store(engine="translate")).exports["sum"](3) == 6
    known(module).write()
    assert [file.path in str(warning.message) for warning in told] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known(Module(wat(TEXT))).valid == {None}


def test_what_two_processes_found_out_is_put_together() -> None:
    one, other = Entry(b"module"), Entry(b"module")
    one.add(("plain", 1, -1), compile("1", "f", "eval"), 1.0)
    other.add(("plain", 2, 7), None, 1.0)
    other.found_valid(("a",), 1.0)
    later = Entry(b"module")
    code = later.code(("plain", 1, -1))
    assert code is not None
    assert eval(code) == 1
    assert later.code(("plain", 2, 7)) is None
    assert later.loops("plain", 2) == [7]
    assert later.valid == {("a",)}
    assert not later.has(("plain", 3, -1))
    with pytest.raises(KeyError):
        later.code(("plain", 3, -1))


def test_what_depends_on_the_python_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {Entry(b"module").name}
    monkeypatch.setattr(sys, "version", "another")
    entry.fingerprint.cache_clear()
    names.add(Entry(b"module").name)
    monkeypatch.undo()
    entry.fingerprint.cache_clear()
    assert len({*names, Entry(b"module").name}) == 2
    assert Entry(b"module").name.split("-")[0] == Entry(b"module").name.split("-")[0]


def test_many_segments_are_kept_as_one_piece() -> None:
    segments = " ".join(f'(data (i32.const {i * 7}) "{i % 10}{i % 7}")' for i in range(2000))
    source = wat(f'(module (memory (export "m") 1) {segments})')
    fresh = Instance(Module(source, cache=False)).exports["m"].read(0, 65536)
    module = Module(source)
    Instance(module)
    known(module).write()
    later = Module(source)
    assert known(later).segments is not None
    assert later.syntax.data == Module(source, cache=False).syntax.data
    assert Instance(later).exports["m"].read(0, 65536) == fresh


@pytest.mark.parametrize("last", ["(i32.const 65535)", "(i32.const -1)"])
def test_a_segment_outside_traps_after_those_before_it(last: str) -> None:
    many = " ".join(f'(data (i32.const {i * 7}) "ab")' for i in range(1200))
    source = wat(f'(module (import "" "m" (memory 1)) {many} (data {last} "ab"))')
    own = wat(f'(module (memory 1) {many} (data {last} "ab"))')
    for _ in range(2):
        with pytest.raises(Trap):
            Instance(Module(own))
        memory = Instance(Module('(module (memory (export "m") 1))')).exports["m"]
        with pytest.raises(Trap):
            Instance(Module(source), {"": {"m": memory}})
        assert memory.read(1199 * 7, 2) == b"ab"


LATER = """
import sys, warnings
warnings.simplefilter("error")
from pywasmvm import Instance, Module
module = Module.from_file(sys.argv[1])
print(Instance(module).exports["f0"](3))
print(sum(key[2] < 0 for key in module.cache._kept))
"""


def _run(file: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-O", "-c", LATER, str(file)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_what_ran_once_is_translated_when_the_process_ends(tmp_path: Path) -> None:
    body = "local.get 0 i32.const 3 i32.mul local.set 0 " * 1500
    calls = " ".join(f"local.get 0 call $f{i} local.set 0" for i in range(1, 4))
    functions = " ".join(f"(func $f{i} (param i32) (result i32) {body} local.get 0)" for i in range(1, 5))
    file = tmp_path / "m.wasm"
    file.write_bytes(
        wat(f'(module (func (export "f0") (param i32) (result i32) {calls} local.get 0) {functions})')
    )
    first, second = _run(file), _run(file)
    assert first[1] == "0"
    assert second == [first[0], "4"]  # all but the one that was never called


def test_no_home_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "m.wasm"
    file.write_bytes(wat('(module (func (export "f0") (param i32) (result i32) local.get 0))'))
    script = LATER.replace("module.cache._kept", "()")
    environment = {key: value for key, value in os.environ.items() if key != "PYWASMVM_CACHE_DIR"}
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-O",
            "-W",
            "error",
            "-c",
            script,
            str(file),
        ],
        env={**environment, "HOME": str(file)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("heir", [True, False])
def test_of_forked_processes_only_the_heir_writes(
    heir: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "WORTH", float("inf"))
    monkeypatch.setattr(entry, "WORTH_AT_END", 0.0)
    module = Module(wat(TEXT))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if heir:
                entry.inherit()
            entry.end()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (place / known(module).name).exists() == heir
