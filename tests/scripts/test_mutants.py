"""The mutation tool itself: it must find changes that are changes, and the same ones every time."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""A docstring is left alone."""
def f(a, b=2):
    """So is this one."""
    if a < 10 and not b:
        raise ValueError(f"wording {a + 1}")
    a += 1
    g(a, b)
    return -a if a >> 2 else 3.5
'''


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in ("pywasmvm/valid", "pywasmvm/numerics"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "code.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def test_every_kind_of_change_is_found(mutants: ModuleType, tree: Path) -> None:
    changes = {mutant.change for mutant in mutants.find(tree)}
    assert {
        "`a < 10` becomes `a <= 10`",
        "`a < 10 and not b` becomes `(not b)`",
        "`a < 10 and not b` becomes `True`",
        "`not b` becomes `(b)`",
        "`10` becomes `11`",
        "`2` becomes `3`",
        "`3.5` becomes `7.0`",
        "`a += 1` becomes `pass`",
        "`g(a, b)` becomes `g(b, a)`",
        "`g(a, b)` becomes `pass`",
        "`-a if a >> 2 else 3.5` becomes `(3.5) if a >> 2 else (-a)`",
        "`a >> 2` becomes `a << 2`",
        "`-a` becomes `(a)`",
    } <= changes
    assert not [change for change in changes if "docstring" in change or "`a + 1`" in change]


def test_each_mutant_is_a_different_program(mutants: ModuleType, tree: Path) -> None:
    found = [mutant for mutant in mutants.find(tree) if mutant.file.startswith("pywasmvm/valid")]
    programs = {ast.dump(ast.parse(mutants.apply(SOURCE, mutant))) for mutant in found}
    assert len(programs) == len(found)
    assert ast.dump(ast.parse(SOURCE)) not in programs


def test_the_choice_depends_on_the_seed_alone(mutants: ModuleType, tree: Path) -> None:
    found = mutants.find(tree)
    chosen = mutants.choose(found, 10, seed=1)
    assert chosen == mutants.choose(mutants.find(tree), 10, seed=1)
    assert chosen != mutants.choose(found, 10, seed=2)
    assert len(set(chosen)) == 10
    assert sum(mutant.file.startswith("pywasmvm/valid") for mutant in chosen) == 5
    assert len(set(mutants.choose(found, 10_000, seed=1))) == len(found)


def test_listed_equivalents_still_exist_and_give_a_reason(mutants: ModuleType) -> None:
    listed = mutants.read_equivalent(mutants.EQUIVALENT)
    existing = {mutant.identity for mutant in mutants.find(ROOT)}
    assert not listed.keys() - existing, "remove these entries"
    assert all(len(reason) > 20 for reason in listed.values())
