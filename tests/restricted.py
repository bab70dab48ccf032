"""The demo's exchange where little is allowed: no threads, no ctypes, no child processes, no writing.

    cd READ-ONLY-FOLDER && HOME=READ-ONLY-FOLDER python -I -O tests/restricted.py

An audit hook and an import hook forbid those things from the start, then `pywasmvm filter run` sends one
exchange through the demo's filter. Ends with status 0 only if every block held and the header came out.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

FILTER = Path(__file__).resolve().parents[1] / "examples" / "add-header" / "add-header.wasm"
NO_IMPORT = {"ctypes", "_ctypes", "subprocess", "_posixsubprocess", "multiprocessing"}
NO_EVENT = ("_thread.start", "ctypes.", "subprocess.", "os.fork", "os.posix_spawn", "os.exec", "os.system")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class NoImport:
    """Import hook: some modules do not exist here."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in NO_IMPORT:
            raise ModuleNotFoundError(f"no module {name} on this platform", name=name)
        return None


def forbid(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: the platform refuses, with the errors a real one gives."""
    if event.startswith(NO_EVENT):
        raise RuntimeError(f"{event} is not possible on this platform")
    if event.startswith(CHANGES):
        raise PermissionError(f"read-only file system: {event}")
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        if writes or (isinstance(flags, int) and flags & WRITING):
            raise PermissionError(f"read-only file system: {path!r}")


def no_threads() -> None:
    """Python 3.11 has no audit event for the start of a thread, so take the functions away as well."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        if hasattr(_thread, name):
            setattr(_thread, name, refuse)
            setattr(threading, f"_{name}", refuse)


def start_a_thread() -> None:
    threading.Thread(target=print).start()


def start_a_program() -> None:
    os.posix_spawn("/bin/true", ["true"], {})


def import_ctypes() -> None:
    import ctypes  # noqa: F401


def import_subprocess() -> None:
    import subprocess  # noqa: F401


def write_at_home() -> None:
    Path("~/pywasmvm-was-here").expanduser().write_text("")


def write_here() -> None:
    os.close(os.open("pywasmvm-was-here", os.O_CREAT | os.O_WRONLY))


BLOCKED: list[Callable[[], None]] = [
    start_a_thread,
    start_a_program,
    import_ctypes,
    import_subprocess,
    write_at_home,
    write_here,
]


def main() -> int:
    if not (sys.flags.isolated and sys.flags.optimize):
        print("run this with python -I -O", file=sys.stderr)
        return 2
    for name in NO_IMPORT & set(sys.modules):
        del sys.modules[name]
    sys.meta_path.insert(0, NoImport())
    sys.addaudithook(forbid)
    no_threads()
    for attempt in BLOCKED:
        try:
            attempt()
        except (RuntimeError, OSError, ImportError):
            continue
        print(f"{attempt.__name__} was possible: this test proves nothing", file=sys.stderr)
        return 2

    from pywasmvm.cli.main import main as pywasmvm

    output = io.StringIO()
    arguments = ["filter", "run", str(FILTER), "--root-id", "add_header", "-H", "accept: */*", "--path", "/"]
    with contextlib.redirect_stdout(output):
        status = pywasmvm(arguments)
    print(output.getvalue())
    if status != 0 or "hi: trendyol!" not in output.getvalue():
        print(f"filter run ended with {status} and without the header", file=sys.stderr)
        return 1
    loaded = sorted(NO_IMPORT & set(sys.modules))
    if loaded:
        print(f"loaded all the same: {loaded}", file=sys.stderr)
        return 1
    print(f"blocked and not missed: {', '.join(attempt.__name__ for attempt in BLOCKED)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
