"""`pywasmvm serve`: options, messages, exit statuses, signals - in this process where that is possible."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywasmproxy import run
from pywasmproxy.config.limits import Limits, override
from tests.pywasmproxy.server.guests import guest, wasm_filter
from tests.pywasmproxy.server.support import bootstrap, listener

ROOT = Path(__file__).resolve().parents[2]
DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "hello"}}}'


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    return parser.parse_args(words)


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    return str(path)


def test_the_flags_tell_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    for flag, (name, _, text) in run._LIMIT_FLAGS.items():
        shown = re.search(r"\(([^()]*)\)$", text)
        assert shown is not None, flag
        value = "unlimited" if shown[1] in ("unlimited", "never") else shown[1].replace("%%", "%")
        assert getattr(override(Limits(), name, value), name) == getattr(Limits(), name), flag


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "give one of -c FILE and --config-yaml TEXT"),
        (["-c", "x", "--config-yaml", "y"], "give one of"),
        (["--config-yaml", "{}", "--component-log-level", "nosuch:debug"], "unknown log component"),
        (["--config-yaml", "{}", "--fuel", "many"], "--fuel: "),
        (["--config-yaml", "{}", "--callback-timeout", "0s"], "--callback-timeout: "),
    ],
)
def test_wrong_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(arguments(*words)) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("static_resources: [", "envoy.yaml:"),
        ("nosuch: 1", "unknown field 'nosuch'"),
        (None, "cannot be read: No such file"),
    ],
)
def test_bad_configurations(
    text: str | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, text) if text is not None else str(tmp_path / "none.yaml")
    assert run.run(arguments("-c", path)) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_address_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = config(tmp_path, bootstrap(listener(DIRECT, port=port)))
        assert run.run(arguments("-c", path, "-l", "off", "--loop", "asyncio")) == 1
    assert capsys.readouterr().err == (
        f"listener main: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_refused_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, bootstrap(listener(DIRECT, filters=wasm_filter("refuse"))))
    assert run.run(arguments("-c", path, "--loop", "asyncio")) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "Unable to create Wasm plugin refuse"
    assert said[-2].endswith("Plugin configured to fail closed failed to load")


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, bootstrap(listener(DIRECT, filters=wasm_filter("mark"))))
    assert run.run(arguments("-c", path, "--check", "--callback-timeout", "2s")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"configuration '{path}' OK\nhonoured:\n  Bootstrap: ")
    assert shown.endswith("ignored: nothing\n")


def test_the_folder_of_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, bootstrap(listener(DIRECT, filters=wasm_filter("mark"))))
    folder = tmp_path / "snapshots"
    for _ in range(2):
        assert run.run(arguments("-c", path, "--check", "--snapshots", str(folder))) == 0
        assert len(list(folder.iterdir())) == 1
    capsys.readouterr()


def test_missing_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    monkeypatch.delitem(sys.modules, "pywasmproxy.server.codec_httptools", raising=False)
    assert run.run(arguments("--config-yaml", "{}", "--codec", "httptools")) == 1
    assert "pip install 'pywasmvm[proxy]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run.run(arguments("--config-yaml", "{}", "--codec", "h11", "--loop", "uvloop")) == 1


def test_missing_file_of_the_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pywasmproxy.server.proxy import Proxy

    def fails(self: Proxy) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(Proxy, "run", fails)
    assert run.run(arguments("--config-yaml", "{}")) == 1
    assert capsys.readouterr().err == "pywasmvm serve: Permission denied: /somewhere\n"


class Serving:
    """A `serve` process and its log."""

    def __init__(self, path: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pywasmvm", "serve", "-c", path, *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        stream = self.process.stderr
        if stream is None:
            raise RuntimeError("no standard error")
        for line in stream:
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError(f"never saw {pattern!r} in {self.lines}")

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=20)
        self.lines += rest.splitlines()
        return self.process.returncode


@pytest.fixture
def serving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    options = getattr(request, "param", ())
    one = Serving(config(tmp_path, bootstrap(listener(DIRECT, filters=wasm_filter("farewell")))), *options)
    yield one
    if one.process.poll() is None:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("serving", [("--loop", "asyncio"), ()], indirect=True)
def test_serve_until_told_to_stop(serving: Serving, number: int) -> None:
    port = serving.wait_for(r"listener main: listening on 127\.0\.0\.1:(\d+)$")[1]
    serving.wait_for("starting main dispatch loop")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
        assert response.read() == b"hello"
    assert serving.end(number) == 0
    assert any(f"caught {signal.Signals(number).name}" in line for line in serving.lines)
    assert any("wasm log: a line" in line for line in serving.lines)  # the plugins were told
    assert serving.lines[-1].endswith("exiting")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_status_on_demand(serving: Serving) -> None:
    serving.wait_for("starting main dispatch loop")
    os.kill(serving.process.pid, signal.SIGUSR1)
    found = serving.wait_for(r"status: rss=(\d+) guest_memory=(\d+) vms=1 connections=0 streams=0")
    assert int(found[2]) == 65536
    assert serving.end(signal.SIGTERM) == 0


def test_importing_the_command_is_cheap() -> None:
    code = (
        "import sys, pywasmproxy.run; "
        "print([m for m in ('numpy', 'yaml', 'asyncio', 'h11', 'httptools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


PLUGIN = """\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: marks}
spec: {url: "file://%s"}
"""


def test_wasm_plugin_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "filter.wasm").write_bytes(guest("mark"))
    path = config(tmp_path, PLUGIN % str(tmp_path / "filter.wasm"))
    for options in (["-c", path], ["--wasm-plugin", path]):
        assert run.run(arguments(*options, "--upstream", "localhost:81", "--check")) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("configuration 'WasmPlugin' OK\nhonoured:\n  WasmPlugin: api_version, kind")
    base = tmp_path / "base.yaml"
    base.write_text(bootstrap(listener(DIRECT)))
    assert run.run(arguments("-c", str(base), "--wasm-plugin", path, "--check")) == 0
    assert "WasmPluginSpec: url" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["-c", "{path}"],
            "WasmPlugin objects need one of --upstream HOST:PORT, -c FILE and --config-yaml TEXT",
        ),
        (["--upstream", "a:1"], "--upstream goes with --wasm-plugin FILE"),
        (["-c", "{path}", "--upstream", "a"], "--upstream: expected HOST:PORT, found 'a'"),
        (
            ["-c", "{path}", "--upstream", "a:1", "--listen", "[::1]:x"],
            "--listen: expected HOST:PORT, found '[::1]:x'",
        ),
    ],
)
def test_wasm_plugin_usage(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "filter.wasm").write_bytes(guest("mark"))
    path = config(tmp_path, PLUGIN % str(tmp_path / "filter.wasm"))
    assert run.run(arguments(*(option.format(path=path) for option in options))) == 2
    assert capsys.readouterr().err == f"pywasmvm serve: {said}\n"
