"""These filters run on translated code: with `auto`, what runs once would stay with the interpreter.

They have megabytes, and several tests start the same ones: a module is decoded once for all of them, and so
keeps what has been translated of it.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from pywasmproxy.server import plugin_starts
from pywasmvm import Module
from pywasmvm.runtime import store


@functools.cache
def decoded(data: bytes, **options: Any) -> Module:
    return Module(data, **options)


@pytest.fixture(autouse=True)
def translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "DEFAULT_ENGINE", "translate")
    monkeypatch.setattr(plugin_starts, "Module", decoded)
