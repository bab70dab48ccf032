"""Runs restricted.py in a process of its own, in a folder and with a home that cannot be written to.

A process of its own because audit hooks stay for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("restricted.py")


def test_the_demo_exchange_on_a_restricted_platform(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    environment = {**os.environ, "HOME": str(tmp_path)}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-O", str(SCRIPT)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        tmp_path.chmod(0o755)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hi: trendyol!" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_script_refuses_to_prove_nothing() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "python -I -O" in done.stderr
