"""Finding the suite and the scripts in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmvm.script import suite
from pywasmvm.script.suite import find_suite, scripts, short_name


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "copy" / "core" / "simd").mkdir(parents=True)
    for name in ("core/b.wast", "core/a.wast", "core/simd/c.wast", "core/notes.txt"):
        (tmp_path / "copy" / name).touch()
    return tmp_path / "copy"


def test_where_it_is_looked_for(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    monkeypatch.setattr(suite, "_ROOT", project)
    monkeypatch.delenv("WASM_SPEC_SUITE", raising=False)
    with pytest.raises(FileNotFoundError, match=r"get_suite\.py.*--suite.*WASM_SPEC_SUITE"):
        find_suite()
    downloaded = project / "spec-tests" / "suite" / "test"
    (downloaded / "core").mkdir(parents=True)
    assert find_suite() == downloaded
    beside = tmp_path / "shared" / "spec-testsuite"
    (beside / "core").mkdir(parents=True)
    assert find_suite() == beside
    monkeypatch.setenv("WASM_SPEC_SUITE", str(copy))
    assert find_suite() == copy
    assert find_suite(beside) == beside


def test_a_place_that_is_named_must_be_right(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="--suite is"):
        find_suite(tmp_path)
    monkeypatch.setenv("WASM_SPEC_SUITE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="WASM_SPEC_SUITE is"):
        find_suite()


def test_a_folder_means_all_scripts_below_it(copy: Path) -> None:
    names = [short_name(path, copy) for path in scripts([copy / "core"])]
    assert names == ["core/a.wast", "core/b.wast", "core/simd/c.wast"]
    assert scripts([copy / "core/b.wast", copy / "core"])[0] == copy / "core/b.wast"
    assert len(scripts([copy / "core/b.wast", copy / "core"])) == 3


def test_paths_without_scripts(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no"):
        scripts([copy / "missing.wast"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.wast file"):
        scripts([tmp_path / "empty"])


def test_names_outside_the_suite_stay(copy: Path) -> None:
    assert short_name(Path("own/x.wast"), copy) == "own/x.wast"
    assert short_name(Path("own/x.wast"), None) == "own/x.wast"
