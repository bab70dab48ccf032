"""Fixtures of the server's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pywasmproxy.server.serving import ROOT, Serving, Start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Serving] = []

    def begin(text: str, *options: str, ready: bool = True) -> Serving:
        path = tmp_path / "envoy.yaml"
        path.write_text(text)
        command = [sys.executable, "-m", "pywasmvm", "serve", "-c", str(path), "--concurrency", "2", *options]
        process = subprocess.Popen(
            [*command, "--component-log-level", "http:debug,main:debug"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        one = Serving(process)
        running.append(one)
        if ready:
            one.wait_for("all 2 workers serve")
        return one

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
