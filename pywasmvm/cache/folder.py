"""The folder of the cache: where it is, who may have written what is in it, and how large it may get.

What is read here is run as code, so a file is used only if nobody else can have written it: the folder and
the file belong to this user and nobody else may write to them, no link is followed, and the SHA-256 in front
of the contents is right (`marshal` may crash the interpreter on damaged bytes). Anything else is as good as
absent: the module is translated again. Files are replaced as a whole, so that processes that write at the
same time never see half of one.

Environment: `PYWASMVM_CACHE_DIR` is the folder (empty: no cache), `PYWASMVM_CACHE_MB` how large it may get in
units of 10^6 bytes (256).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
import warnings
from typing import NamedTuple

#: What files begin with, before the SHA-256 of the rest.
MAGIC = b"pywasmvm cache 1\n"

SUFFIX = ".pwc"

_MOST_MB = 256

#: One module may have this part of the room.
_SHARE = 4

#: Files that a process was writing when it was killed are swept away after so many seconds.
_ABANDONED = 3600.0


class CacheWarning(RuntimeWarning):
    """A file of the cache, or the folder, is not used; the message says which and why."""


class Unusable(Exception):
    """Something is there, and not to be trusted."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(f"the cache does not use {path}: {fault}")
        self.path = path


class Found(NamedTuple):
    """A file of the cache; `used` is when it was last read or written, in seconds since the epoch."""

    path: str
    size: int
    used: float

    @property
    def module(self) -> str:
        """The SHA-256 of the module it is about."""
        return os.path.basename(self.path).split("-")[0]


def folder() -> str | None:
    """Where the files are; None when there shall be no cache."""
    named = os.environ.get("PYWASMVM_CACHE_DIR")
    if named is not None:
        return os.path.abspath(named) if named else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # Without a home, `~` stays what it is.
    return os.path.join(base, "pywasmvm") if os.path.isabs(base) else None


def turn_off() -> None:
    """No cache in this process and in those it starts."""
    os.environ["PYWASMVM_CACHE_DIR"] = ""


def most() -> int:
    """How many bytes all files together may have."""
    try:
        return int(float(os.environ.get("PYWASMVM_CACHE_MB", _MOST_MB)) * 1e6)
    except (ValueError, OverflowError):
        return _MOST_MB * 10**6


def read(name: str) -> bytes | None:
    """The contents of a file; None when there is none, or none that this user may read. Raises Unusable."""
    where = folder()
    if where is None:
        return None
    path = os.path.join(where, name)
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, flag, 0)
    try:
        file = os.open(path, flags)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            _trusted(path, os.lstat(path))  # a link, or somebody else's, who does not let us read it
        return None
    try:
        with open(file, "rb") as stream:
            _trusted(where, os.lstat(where), is_folder=True)
            _trusted(path, os.fstat(stream.fileno()))
            contents = stream.read()
    except (OSError, MemoryError):
        return None
    import hashlib

    begin = len(MAGIC) + 32
    told, held = contents[len(MAGIC) : begin], memoryview(contents)[begin:]
    if not contents.startswith(MAGIC) or hashlib.sha256(held).digest() != told:
        raise Unusable(path, "it is damaged")
    with contextlib.suppress(OSError):
        os.utime(path)
    return contents[begin:]


def write(name: str, contents: bytes) -> bool:
    """Replace a file; whether that was possible. Other files make room, those not used for longest first."""
    import hashlib

    where = folder()
    if where is None or len(contents) > most() // _SHARE:
        return False
    path = os.path.join(where, name)
    temporary = None
    try:
        if not os.path.isdir(where):
            os.makedirs(where, mode=0o700, exist_ok=True)
        _trusted(where, os.lstat(where), is_folder=True)
        # Nobody else makes files here, and a process writes one at a time in each thread.
        temporary = f"{path}.{os.getpid()}.{time.monotonic_ns()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = os.open(temporary, flags, 0o600)
        with open(file, "wb") as stream:
            stream.write(MAGIC + hashlib.sha256(contents).digest())
            stream.write(contents)
        os.replace(temporary, path)
        temporary = None
        _make_room(where, path)
    except Unusable as error:
        warn(error)
        return False
    except OSError:  # a full disk, a read-only one: the cache is a convenience
        return False
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return True


def files() -> list[Found]:
    """All files of the cache, the one used last first."""
    where = folder()
    found = [] if where is None else [Found(*file) for file in _listed(where, SUFFIX)]
    return sorted(found, key=lambda file: -file.used)


def clear() -> int:
    """Remove all files; how many there were. Raises OSError when one cannot be removed."""
    found = files()
    for file in found:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file.path)
    where = folder()
    if where is not None:
        _sweep(where, float("inf"))
    return len(found)


def _listed(where: str, suffix: str) -> list[tuple[str, int, float]]:
    """Path, size and time of the cache's own files with a suffix."""
    found = []
    try:
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and SUFFIX in entry.name:
                    with contextlib.suppress(OSError):
                        state = entry.stat(follow_symlinks=False)
                        found.append((entry.path, state.st_size, state.st_mtime))
    except OSError:
        return []
    return found


def _make_room(where: str, kept: str) -> None:
    left = most()
    for file in files():
        left -= file.size
        if left < 0 and file.path != kept:
            with contextlib.suppress(OSError):
                os.unlink(file.path)
    with contextlib.suppress(OSError):
        _sweep(where, os.stat(kept).st_mtime - _ABANDONED)


def _sweep(where: str, before: float) -> None:
    """Remove what was being written before a time, in seconds since the epoch, and never became a file."""
    for path, _, written in _listed(where, ".tmp"):
        if written < before:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _trusted(path: str, state: os.stat_result, *, is_folder: bool = False) -> None:
    """Raise Unusable if somebody else may have written it."""
    mode = state.st_mode
    fault = ""
    if stat.S_ISLNK(mode):
        fault = "it is a link"
    elif not (stat.S_ISDIR if is_folder else stat.S_ISREG)(mode):
        fault = "it is not a folder" if is_folder else "it is not a file"
    elif hasattr(os, "getuid"):  # on Windows the folder is inside of the user's own
        if state.st_uid != os.getuid():
            fault = f"it belongs to user {state.st_uid}"
        elif mode & 0o022:
            fault = f"others may write to it (mode {stat.S_IMODE(mode):o})"
    if fault:
        raise Unusable(path, fault)


_warned: set[str] = set()


def warn(error: Unusable) -> None:
    """Tell of something that is not used, once."""
    if error.path not in _warned:
        _warned.add(error.path)
        warnings.warn(str(error), CacheWarning, stacklevel=2)
