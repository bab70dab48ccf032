"""The sample configurations under tests/configs: they load with exactly the warnings they announce.

The real Envoy and the official protobufs, where installed, accept the same files: so our tables cannot drift
from Envoy's names.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pywasmproxy import run
from pywasmproxy.config import ConfigError, document, load
from pywasmproxy.config import envoy as bootstrap_tables
from pywasmproxy.config.schema import Message
from tests.support.wat import wat

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = sorted((ROOT / "tests" / "configs").glob("*.[yj]*"))
FILES = ROOT / "tests" / "configs" / "files"
MINIMAL = ROOT / "tests" / "replay" / "golden" / "filters" / "minimal.wat"
BROKEN = sorted((ROOT / "tests" / "configs" / "broken").glob("*.yaml"))
PLAIN = [path for path in SAMPLES if "# envoy: refuses" not in path.read_text()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the files the samples name."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "filter.wasm").write_bytes(wat(MINIMAL.read_text()))
    return tmp_path


def announced(text: str) -> list[str]:
    marker = "# warns: "
    return sorted(line.removeprefix(marker) for line in text.splitlines() if line.startswith(marker))


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 40
    assert len(PLAIN) >= 30
    assert len(BROKEN) >= 10


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample(path: Path, folder: Path) -> None:
    text = path.read_text()
    found = load(text, path.name, directory=folder)
    paths = [warning.path.removeprefix("static_resources.") for warning in found.warnings]
    assert sorted(paths) == announced(text)
    assert found.listeners
    assert pickle.loads(pickle.dumps(found)) == found  # workers hand configurations on


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_check_says_what_is_honoured_and_what_is_not(
    path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    parser = argparse.ArgumentParser()
    run.configure(parser)
    status = run.run(parser.parse_args(["-c", str(path), "--check", "-l", "off", "--no-cache"]))
    shown = capsys.readouterr()
    if "# check: refuses" in path.read_text():
        assert status == 1
        return
    assert status == 0, shown.err
    honoured, _, ignored = shown.out.partition("\nignored:")
    assert honoured.startswith(f"configuration '{path}' OK\nhonoured:\n  Bootstrap: ")
    assert "  Listener: " in honoured
    places = re.findall(r"^  line \d+: ([^:]*): ", ignored, re.MULTILINE)
    assert sorted(place.removeprefix("static_resources.") for place in places) == announced(path.read_text())
    assert (ignored == " nothing\n") is (not places)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_broken(path: Path, folder: Path) -> None:
    text = path.read_text()
    expected = text.partition("\n")[0].removeprefix("# error: ")
    with pytest.raises(ConfigError) as caught:
        load(text, path.name, directory=folder)
    assert str(caught.value) == f"{path.name}:{expected}"


@pytest.mark.envoy
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_real_envoy_agrees(path: Path, folder: Path) -> None:
    beside = Path(sys.executable).parent / "envoy"
    program = str(beside) if beside.exists() else "envoy"
    done = subprocess.run(
        [program, "--mode", "validate", "-l", "error", "-c", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode == 0) == (path in PLAIN), done.stderr


def official(name: str) -> Any:
    """A message class of the official protobufs."""
    json_format = importlib.import_module("google.protobuf.json_format")
    pool = importlib.import_module("google.protobuf.descriptor_pool").Default()
    factory = importlib.import_module("google.protobuf.message_factory")
    package = importlib.import_module("envoy")
    importlib.import_module("xds.type.v3.typed_struct_pb2")
    root = package.__path__[0]
    for part in ("config", "extensions", "type", "service/discovery"):
        for where, _, files in os.walk(os.path.join(root, part)):
            for file in files:
                if file.endswith("_pb2.py"):
                    relative = os.path.relpath(os.path.join(where, file), root)[:-3]
                    importlib.import_module("envoy." + relative.replace(os.sep, "."))
    return json_format, factory.GetMessageClass(pool.FindMessageTypeByName(name))


def tables() -> list[Message]:
    """Every field table of the loader."""
    names = ["common", "plugins", "routes", "http_filters", "connection_manager", "listeners", "clusters"]
    names += [
        "tcp_proxy",
        "matchers",
        "access_log",
        "actions",
        "mutations",
        "retries",
        "per_filter",
        "extras",
        "replies",
        "health",
        "tls",
        "discovery",
        "secrets",
    ]
    modules = [bootstrap_tables, *(importlib.import_module(f"pywasmproxy.config.{name}") for name in names)]
    found = {
        id(value): value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Message)
    }
    return list(found.values())


def test_the_tables_are_found() -> None:
    assert len(tables()) >= 61


@pytest.mark.protobufs
@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_tables_have_the_official_names(table: Message) -> None:
    _, message = official(table.name)
    known = {field.name for field in message.DESCRIPTOR.fields}
    assert {*table.fields, *table.ignored} - table.legacy <= known
    assert not table.legacy & known
    assert known <= {*table.fields, *table.ignored}


@pytest.mark.protobufs
@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)
def test_the_official_protobufs_read_the_sample(path: Path) -> None:
    json_format, message = official("envoy.config.bootstrap.v3.Bootstrap")
    plain = document.plain(document.parse(path.read_text(), path.name))
    json_format.Parse(json.dumps(_upper_enums(plain)), message())


def _upper_enums(value: Any) -> Any:
    """Enum values in capitals: the Python library, unlike Envoy, insists on them."""
    if isinstance(value, dict):
        return {
            key: child.upper()
            if key in ("codec_type", "type", "lb_policy", "dns_lookup_family") and isinstance(child, str)
            else _upper_enums(child)
            for key, child in value.items()
        }
    return [_upper_enums(child) for child in value] if isinstance(value, list) else value
