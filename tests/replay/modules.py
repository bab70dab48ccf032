"""The filters of the golden cases as `.wasm` files: `.ts` through AssemblyScript, `.wat` through wasm-tools.

Built once into a git-ignored folder named after the sources' hash. The compiler comes from npm with the lock
file of examples/add-header, so that the story's filter and the probes are compiled by the same program.

    python -m tests.replay.modules          builds them, and prints where
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.replay.cases import FILTERS, HERE

ROOT = HERE.parents[1]
EXAMPLE = ROOT / "examples" / "add-header"
CACHE = HERE / ".cache"
ASC_OPTIONS = ["--optimize"]


class BuildError(RuntimeError):
    """A filter could not be compiled; the message carries the compiler's own words."""


def build(sources: Path = FILTERS) -> Path:
    """Compile every filter of `sources`; the folder with the `.wasm` files. Cheap when already built."""
    target = CACHE / f"filters-{_hash(sources)}"
    if target.is_dir():
        return target
    with _alone():
        return target if target.is_dir() else _built(sources, target)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No other process builds meanwhile: it waits, and finds what is there then."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _built(sources: Path, target: Path) -> Path:
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        for wat in sorted(sources.glob("*.wat")):
            _run([_wasm_tools(), "parse", str(wat), "-o", str(built / f"{wat.stem}.wasm")], cwd=sources)
        work = Path(scratch) / "work"
        shutil.copytree(sources, work)
        (work / "node_modules").symlink_to(compiler / "node_modules")
        jobs = [
            (probe.name, built / f"{probe.stem}.wasm", "abort_probe") for probe in work.glob("probe_v*.ts")
        ]
        if (work / "seed").is_dir():
            jobs.append(("seed/index.ts", built / "seed.wasm", "abort_proc_exit"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: _assemble(work, *job), jobs))
        _damaged_files(built)
        _publish(built, target)
    return target


def _damaged_files(built: Path) -> None:
    """The three files that are no modules, as the schema defines them."""
    (built / "garbage.wasm").write_bytes(b"not wasm at all")
    (built / "empty_file.wasm").write_bytes(b"")
    probe = built / "probe_v020.wasm"
    if probe.exists():
        (built / "truncated.wasm").write_bytes(probe.read_bytes()[:200])


def _compiler() -> Path:
    """A folder with `node_modules` as the example's lock file says."""
    manifest = [EXAMPLE / "package.json", EXAMPLE / "package-lock.json"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in manifest)).hexdigest()[:16]
    target = CACHE / f"asc-{digest}"
    if target.is_dir():
        return target
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError("npm is missing: the probes are AssemblyScript and need it")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        work = Path(scratch) / "asc"
        work.mkdir()
        for path in manifest:
            shutil.copy(path, work)
        _run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=work)
        _publish(work, target)
    return target


def _assemble(work: Path, source: str, target: Path, abort: str) -> None:
    asc = str(work / "node_modules" / "assemblyscript" / "bin" / "asc")
    node = shutil.which("node") or "node"
    out = f"{target.stem}.out.wasm"  # asc wants a path below its base folder
    _run([node, asc, source, "-b", out, "--use", f"abort={abort}", *ASC_OPTIONS], cwd=work)
    (work / out).rename(target)


def _publish(built: Path, target: Path) -> None:
    """Move into place in one step: what is there is complete."""
    built.rename(target)


def _hash(sources: Path) -> str:
    digest = hashlib.sha256()
    manifest = [EXAMPLE / "package-lock.json", Path(__file__)]
    for path in [*sorted(p for p in sources.rglob("*") if p.is_file()), *manifest]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _wasm_tools() -> str:
    beside = Path(sys.executable).parent / "wasm-tools"
    found = str(beside) if beside.exists() else shutil.which("wasm-tools")
    if found is None:
        raise BuildError("wasm-tools is missing: install the `dev` extra")
    return found


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(build())
