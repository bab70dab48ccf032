"""The public names: each resolves, and importing the package alone loads none of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pywasmvm


@pytest.mark.parametrize("name", pywasmvm.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pywasmvm, name) is not None
    assert name in dir(pywasmvm)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'pywasmvm' has no attribute 'nonsense'"):
        pywasmvm.nonsense  # noqa: B018


def loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_is_cheap() -> None:
    assert not {"numpy", "asyncio", "yaml", "ctypes", "pywasmvm.module"} & loaded_by("import pywasmvm")


def test_decoding_and_validating_need_no_numpy() -> None:
    assert "numpy" not in loaded_by("from pywasmvm import Module; Module(b'\\0asm\\1\\0\\0\\0')")


def test_the_command_line_loads_nothing_heavy_for_its_help() -> None:
    statement = "from pywasmvm.cli.main import main; sys.stdout = sys.stderr; main(['call', '--help'])"
    statement += "; sys.stdout = sys.__stdout__"
    assert not {"numpy", "asyncio", "yaml", "pywasmvm.module"} & loaded_by(statement)


def test_it_can_be_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "pywasmvm", "--version"], capture_output=True, text=True)
    assert done.stdout == f"pywasmvm {pywasmvm.__version__}\n"
    assert done.returncode == 0
