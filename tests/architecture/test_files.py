"""House rules that hold for every file: it opens by saying what it is, and imports point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pywasmvm", "abi", "pywasmproxy")
#: The runner of test scripts: a process per file where there are processes, and none where there are none.
MAY_START_PROCESSES = {"pywasmvm/script/pool.py"}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of everything a file imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_opens_by_saying_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring is not None
    assert len(docstring) > 20
    above = {"pywasmvm": {"abi", "pywasmproxy"}, "abi": {"pywasmproxy"}, "pywasmproxy": set()}
    assert not imported(tree) & above[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_logic_does_not_rest_on_assert_or_native_code(path: Path) -> None:
    """`python -O` drops assert statements, and restricted platforms have no ctypes."""
    tree = ast.parse(path.read_text())
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    forbidden = {"ctypes", "cffi", "subprocess", "multiprocessing"}
    if path.relative_to(ROOT).as_posix() in MAY_START_PROCESSES:
        forbidden.remove("multiprocessing")
    assert not imported(tree) & forbidden
