"""Public names: complete, loaded on first use."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import abi
import abi.proxy_wasm


@pytest.mark.parametrize("package", [abi, abi.proxy_wasm])
def test_every_public_name_is_there(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    assert dir(package) == sorted(package.__all__)


@pytest.mark.parametrize("package", [abi, abi.proxy_wasm])
def test_other_names_are_not(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = package.nope


def test_the_public_names() -> None:
    assert abi.__all__ == ["Action", "HeaderMap", "Plugin", "PluginFailure", "PluginStartError", "Vm"]
    assert abi.Plugin is abi.proxy_wasm.Plugin


def test_importing_is_cheap() -> None:
    script = (
        "import sys, abi, abi.proxy_wasm; print('numpy' in sys.modules, 'abi.proxy_wasm.vm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
