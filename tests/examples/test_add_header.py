"""The demo's folder: its filter behind our proxy and Envoy, its programs answer and complain well.

That the demo itself shows the header is `make demo`, which CI runs on its own.
"""

from __future__ import annotations

import http.client
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.replay.proxy import Command, free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "add-header"


PLUGIN_CONFIGURATION = """\
                  configuration:
                    "@type": type.googleapis.com/google.protobuf.StringValue
                    value: good morning
"""


def configuration(folder: Path, upstream: int, listener: int, more: str = "") -> None:
    """The example's folder with ports of our own; `more` goes into the plugin's part."""
    shutil.copy(EXAMPLE / "add-header.wasm", folder)
    text = (EXAMPLE / "envoy.yaml").read_text(encoding="utf-8")
    assert text.count("8099") == text.count("8080") == 1
    text = text.replace("8099", str(listener)).replace("8080", str(upstream))
    before = "                  vm_config:\n"
    assert text.count(before) == 1
    (folder / "envoy.yaml").write_text(text.replace(before, more + before), encoding="utf-8")


def get(port: int, method: str = "GET", body: str | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
    """One request; waits up to 20 s for the port to answer."""
    give_up = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, "/", body=body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def through(proxy: str, folder: Path, more: str = "") -> list[tuple[int, list[tuple[str, str]], bytes]]:
    """Start upstream and `proxy` in `folder`; the answers to a GET, a POST and a HEAD."""
    upstream_port, port = free_port(), free_port()
    configuration(folder, upstream_port, port, more)
    upstream = subprocess.Popen([sys.executable, str(EXAMPLE / "upstream.py"), str(upstream_port)])
    command = Command.parse(None if proxy == "ours" else proxy).line(Path("envoy.yaml"), "info")
    front = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        get(upstream_port)
        return [get(port), get(port, "POST", "abc"), get(port, "HEAD")]
    finally:
        for process in (front, upstream):
            process.terminate()
            process.wait(10)


def greetings(headers: list[tuple[str, str]]) -> list[str]:
    return [value for name, value in headers if name.lower() == "hi"]


either_proxy = pytest.mark.parametrize("proxy", ["ours", pytest.param("envoy", marks=pytest.mark.envoy)])


@either_proxy
def test_the_same_folder_in_our_proxy_and_in_envoy(proxy: str, tmp_path: Path) -> None:
    answers = through(proxy, tmp_path)
    for (status, headers, body), wanted in zip(answers, [b"Hello World!", b"Hello World!", b""], strict=True):
        assert status == 200
        assert greetings(headers) == ["trendyol!"]
        assert body == wanted


@either_proxy
def test_a_plugin_configuration_replaces_the_value(proxy: str, tmp_path: Path) -> None:
    for status, headers, _ in through(proxy, tmp_path, PLUGIN_CONFIGURATION):
        assert status == 200
        assert greetings(headers) == ["good morning"]


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", EXAMPLE / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_says_which_port_is_taken(demo: ModuleType) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(demo.DemoError, match=rf"port {port} .* is taken .*the proxy needs it"):
            demo.check_port(port, "the proxy")
    demo.check_port(port, "the proxy")


def test_demo_shows_what_a_dying_program_said(demo: ModuleType, tmp_path: Path) -> None:
    port = free_port()
    arguments = ["-c", "raise SystemExit('no such file: x')"]
    with (
        pytest.raises(demo.DemoError, match=rf"port {port}.*\n.*no such file: x"),
        demo.program(arguments, port, tmp_path / "log"),
    ):
        pass


def test_upstream_reads_chunked_requests() -> None:
    port = free_port()
    upstream = subprocess.Popen([sys.executable, str(EXAMPLE / "upstream.py"), str(port)])
    try:
        get(port)
        with socket.create_connection(("127.0.0.1", port), 5) as raw:
            head = b"POST / HTTP/1.1\r\nhost: x\r\n"
            raw.sendall(head + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + head + b"\r\n")
            seen = b""
            while seen.count(b"Hello World!") < 2:
                block = raw.recv(4096)
                assert block
                seen += block
    finally:
        upstream.terminate()
        upstream.wait(10)
