"""Both tiers run the same test bodies: every test here runs on the interpreter and on translated code.

`@pytest.mark.interp_only` marks what is about the interpreter's own machinery.
"""

from __future__ import annotations

import pytest

from pywasmvm.runtime import store

ENGINES = ("interp", "translate", "translate-flat")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test once for each engine, but those of the machine."""
    only = metafunc.definition.get_closest_marker("interp_only") is not None
    metafunc.parametrize("default_engine", ENGINES[:1] if only else ENGINES, indirect=True)


@pytest.fixture(autouse=True)
def default_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine of stores that do not name one."""
    name: str = request.param
    monkeypatch.setattr(store, "DEFAULT_ENGINE", name)
    return name
