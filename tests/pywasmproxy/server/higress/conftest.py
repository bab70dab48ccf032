"""These filters run on translated code: with `auto`, what runs once would stay with the interpreter."""

from __future__ import annotations

import pytest

from pywasmvm.runtime import store


@pytest.fixture(autouse=True)
def translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "DEFAULT_ENGINE", "translate")
