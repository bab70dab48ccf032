"""The generated page about the ABI: complete, honest about its tests, and noticed when it is not.

Whether it is current is asked by `make docs`, which runs the tests that it names.
"""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from abi.proxy_wasm.versions import callbacks
from tests.abi.phases import EVERY_VERSION
from tests.abi.recording import Called, Entered, Recorder, Test

ROOT = Path(__file__).resolve().parents[2]
SOME = Test("tests/abi/proxy_wasm/calls/test_log.py", "test_something")


@pytest.fixture
def script() -> ModuleType:
    path = ROOT / "scripts" / "abi_reference.py"
    spec = importlib.util.spec_from_file_location("abi_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recorder(script: ModuleType) -> Recorder:
    """A run in which one test calls everything, and those that are named for differences call something."""
    made = Recorder()
    for version, module, function, kind, phase in script.wanted():
        made.calls[Called(SOME, version, module, function, kind, phase, 0)] = None
    for version in EVERY_VERSION:
        for name in callbacks(version):
            made.callbacks[Entered(SOME, version, name, "root", 0)] = None
    words = tomllib.loads((ROOT / "scripts" / "abi_words.toml").read_text(encoding="utf-8"))
    for one in words["differences"]:
        file, _, name = one["test"].partition("::")
        made.callbacks[Entered(Test(file, name), EVERY_VERSION[0], "proxy_on_tick", "root", 0)] = None
    return made


def test_everything_is_on_the_page(script: ModuleType, recorder: Recorder) -> None:
    assert script.untested(recorder) == []
    page = script.page(recorder)
    for row in script.functions().values():
        assert f"| `{row.name}` | " in page
    for version in EVERY_VERSION:
        assert all(f"| `{name}` | " in page for name in callbacks(version))
    assert (
        "| `proxy_log` | OK | [test_log.py](../tests/abi/proxy_wasm/calls/test_log.py): something |" in page
    )


def test_what_no_test_has_called_is_named(
    script: ModuleType,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = next(one for one in recorder.calls if (one.function, one.phase) == ("proxy_log", "proxy_on_tick"))
    del recorder.calls[call]
    entry = next(one for one in recorder.callbacks if one.callback == "proxy_on_log")
    del recorder.callbacks[entry]
    assert script.untested(recorder) == [
        "0.1.0 env proxy_log root proxy_on_tick",
        "0.1.0 proxy_on_log",
    ]
    monkeypatch.setattr(script, "record", lambda: recorder)
    monkeypatch.setattr("sys.argv", ["abi_reference.py", "--check"])
    assert script.main() == 1
    assert "0.1.0 env proxy_log root proxy_on_tick" in capsys.readouterr().out


def test_a_status_that_no_test_gets_is_named(script: ModuleType, recorder: Recorder) -> None:
    missing = script.unanswered(recorder)
    assert "proxy_log: BAD_ARGUMENT" in missing
    assert "random_get: INVAL" in missing
    version = EVERY_VERSION[0]
    got = Called(SOME, version, "env", "proxy_log", "root", "proxy_on_tick", 2)
    recorder.calls[got] = None
    assert "proxy_log: BAD_ARGUMENT" not in script.unanswered(recorder)


def test_a_difference_whose_test_has_not_run_is_an_error(script: ModuleType, recorder: Recorder) -> None:
    for one in list(recorder.callbacks):
        if one.test.name == "test_timeouts":
            del recorder.callbacks[one]
    with pytest.raises(SystemExit, match="test_timeouts, which has not run"):
        script.page(recorder)


def test_a_page_that_is_old_is_noticed_and_written_anew(
    script: ModuleType,
    recorder: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "record", lambda: recorder)
    monkeypatch.setattr(script, "unanswered", lambda recorder: [])
    monkeypatch.setattr(script, "PAGE", tmp_path / "abi.md")
    monkeypatch.setattr(script, "page", lambda recorder: "the page\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["abi_reference.py", "--check"])
    assert script.main() == 1
    assert "abi.md is not current" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["abi_reference.py"])
    assert script.main() == 0
    monkeypatch.setattr("sys.argv", ["abi_reference.py", "--check"])
    assert script.main() == 0


def test_the_page_that_is_there_has_every_function(script: ModuleType) -> None:
    page = (ROOT / "docs" / "abi.md").read_text(encoding="utf-8")
    assert all(f"| `{row.name}` | " in page for row in script.functions().values())
    assert f"{len(list(script.wanted())):,} combinations" in page


@pytest.mark.parametrize(
    ("phases", "text"),
    [
        (["tick"], "tick"),
        (["log", "done"], "log, done"),
    ],
)
def test_phases_in_words(script: ModuleType, phases: list[str], text: str) -> None:
    assert script.where(phases) == text


def test_groups_of_phases_have_names(script: ModuleType) -> None:
    for group, word in script.GROUPS:
        assert script.where([*group, "something"]) == f"{word}, something"
