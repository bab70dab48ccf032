"""The example filters that are not committed as `.wasm`: built by the `build.sh` of their folder.

Built once into a git-ignored folder beside the examples, named after the hash of all that a build reads.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CACHE = EXAMPLES / ".cache"
SHARED = EXAMPLES / "include"

MARKERS = {"count-requests": "zig", "access-log": "zig", "redact-body": "rustc", "ask-first": "go"}
"""What a filter that is built here needs, as a marker of pytest (tests/conftest.py)."""


def build(name: str) -> Path:
    """The built filter of examples/`name`, cheap the second time. RuntimeError: the compiler's words."""
    folder = EXAMPLES / name
    if not (folder / "build.sh").exists():
        return folder / f"{name}.wasm"
    target = CACHE / "built" / _hash(folder) / f"{name}.wasm"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        out = Path(scratch) / f"{name}.wasm"
        done = subprocess.run(
            ["sh", str(folder / "build.sh"), str(out)], env=environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{folder / 'build.sh'} failed:\n{done.stdout}{done.stderr}")
        os.replace(out, target)  # in one step: several test workers may build at the same time
    return target


def environment() -> dict[str, str]:
    """This interpreter and the programs beside it, before those of the machine."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PYTHON": sys.executable, "PATH": path}


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in (*folder.rglob("*"), *SHARED.rglob("*")) if p.is_file()):
        if path.suffix not in (".wasm", ".md", ".yaml"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
