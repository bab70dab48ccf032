"""Damaged configurations: whatever is written where, the answer is a configuration or a ConfigError.

Starts from the sample configurations and replaces, removes, renames or doubles one part of them at random.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pywasmproxy.config import Bootstrap, ConfigError, document, load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SAMPLES = [
    document.plain(document.parse(path.read_text(), path.name)) for path in sorted(CONFIGS.glob("*.yaml"))
]

WORDS = [
    "",
    "x",
    "*",
    "/",
    "AUTO",
    "127.0.0.1",
    "::1",
    "1s",
    "-1s",
    "1e9",
    "type.googleapis.com/",
    "@type",
    "a/b",
    "\0",
]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=10),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(WORDS), max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "value", "@type", "config", "status"]), st.sampled_from(WORDS), max_size=3
    ),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) below a value."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key])]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the files the samples name."""
    found = tmp_path_factory.mktemp("configs")
    shutil.copytree(CONFIGS / "files", found, dirs_exist_ok=True)
    (found / "filter.wasm").write_bytes(b"")
    return found


def refusal(text: str, folder: Path) -> ConfigError | None:
    """The error a configuration is refused with, None if it is accepted; anything else fails the test."""
    try:
        assert isinstance(load(text, "f", directory=folder, environ={}), Bootstrap)
    except ConfigError as error:
        return error
    return None


@settings(max_examples=300)
@given(data=st.data())
def test_only_documented_errors(folder: Path, data: st.DataObject) -> None:
    config = copy.deepcopy(data.draw(st.sampled_from(SAMPLES)))
    container, key = data.draw(st.sampled_from(places(config)))
    change = data.draw(st.sampled_from(["replace", "remove", "rename", "double"]))
    if change == "replace":
        container[key] = data.draw(JUNK)
    elif change == "remove":
        del container[key]
    elif isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif change == "rename":
        container[key + data.draw(st.sampled_from(["s", "_", "X"]))] = container.pop(key)
    else:
        container[key] = [container[key], container[key]]
    text = yaml.safe_dump(config, sort_keys=False)
    error = refusal(text, folder)
    if error is not None:
        assert error.file == "f"
        assert error.message
        assert 0 <= error.line <= text.count("\n") + 1
