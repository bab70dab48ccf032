"""Pinned random modules of all features, run by us and by wasmtime: the same results, traps and state."""

from __future__ import annotations

import zipfile

import pytest

from tests.fuzz.campaign import RUNS

pytestmark = [pytest.mark.wasmtime, pytest.mark.slow]

PARTS = 20


def names() -> list[str]:
    with zipfile.ZipFile(RUNS) as archive:
        return sorted(archive.namelist())


def test_all_are_there() -> None:
    assert len(names()) == 200


@pytest.mark.parametrize("part", range(PARTS))
def test_no_engine_differs(part: int) -> None:
    from tests.fuzz import execution

    native = execution.engine()
    with zipfile.ZipFile(RUNS) as archive:
        for name in names()[part::PARTS]:
            data, seed = archive.read(name), int(name.partition(".")[0])
            for engine in ("interp", "translate", "translate-flat", "auto"):
                assert list(execution.divergences(data, seed, native, engine)) == [], (name, engine)
