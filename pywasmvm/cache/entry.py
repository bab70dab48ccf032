"""What the cache knows of one module: whether it is valid, its data segments as one piece, and the code its
functions were translated to.

A file is named by the SHA-256 of the module's bytes and by a fingerprint of whatever else its contents depend
on: this package (version and state of its files) and the Python that compiled the code. So nothing in it is
ever compared or migrated; what does not fit is not found. Code is kept per function and variant, and turned
into code objects when it is first called; what an earlier process found hot is `hot`, which an engine may
bind before it is called.

Only work worth keeping is kept: nothing is written before it has cost `WORTH` seconds. What is too dear to be
done while the guest runs is done when the process ends (`at_exit`), once for each module: functions that ran
only on the interpreter are translated then, so that the next start need not read, check and interpret them.
"""

from __future__ import annotations

import functools
import marshal
import os
import sys
import time
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

from pywasmvm._version import __version__
from pywasmvm.cache import folder

#: Seconds of CPU time that things not yet kept must have cost: while the process runs, and when it ends.
WORTH, WORTH_AT_END = 0.5, 0.03

#: At its end a process may work for the next one so many times as long as it has worked, and so many seconds
#: at most.
MOST_AT_EXIT, MOST_SECONDS_AT_EXIT = 2.0, 15.0

#: After so many seconds of that, whoever sits at a terminal is told.
PATIENCE = 0.5

#: What is still to be done when the process ends: it is given a function that says whether to go on.
Last = Callable[[Callable[[], bool]], None]

#: A function or a part of one: the variant of the code, the function's index, the loop where it is entered.
Key = tuple[str, int, int]

#: What translated code depends on: the folders of this package with its making.
_MAKERS = ("", "binary", "cache", "isa", "numerics", "runtime", "translate", "valid")


@functools.cache
def fingerprint() -> str:
    """What the contents depend on besides the module, as 16 hexadecimal digits."""
    import hashlib

    parts: list[object] = [__version__, sys.implementation.cache_tag, sys.version, sys.flags.optimize]
    parts += [sys.byteorder, sys.platform]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # Whoever works on the translator must not meet the code of yesterday's.
    for name in _MAKERS:
        try:
            with os.scandir(os.path.join(package, name)) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.endswith(".py"):
                        state = entry.stat()
                        parts.append((entry.name, state.st_size, state.st_mtime_ns))
        except OSError:  # inside of an archive: its version must do
            parts.append(name)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Segments(NamedTuple):
    """Data segments that are all active, in memory 0 and at constant offsets: the columns of `DataSegments`
    as 32-bit words, and what they make together, from address `base` on (empty: they are not put together).
    """

    offset: bytes
    start: bytes
    length: bytes
    base: int
    image: bytes


class Entry:
    """The cache of one module. It never raises for what is wrong with files: then it is empty."""

    def __init__(self, source: bytes) -> None:
        import hashlib

        self.name = f"{hashlib.sha256(source).hexdigest()}-{fingerprint()}{folder.SUFFIX}"
        #: Sets of features (None: all) with which every function has been found valid.
        self.valid: set[tuple[str, ...] | None] = set()
        self._segments: tuple[Any, ...] | None = None
        self._kept: dict[Key, bytes] = {}
        self._made: dict[Key, CodeType | None] = {}
        self._loops: dict[tuple[str, int], list[int]] = {}
        #: Functions, by index, that were worth their translation while a process ran.
        self.hot: set[int] = set()
        self._unkept, self._worth = 0.0, WORTH
        self._last: list[weakref.WeakMethod[Last]] = []
        self._ending = False
        if not self._load(warn=True):
            self._unkept = WORTH_AT_END  # write anew, at the end, what cannot be used

    def _load(self, *, warn: bool = False) -> bool:
        """Add what the file says; False if there is one that cannot be used."""
        try:
            data = folder.read(self.name)
        except folder.Unusable as error:
            if warn:
                folder.warn(error)
            return False
        if data is not None:
            try:
                valid, segments, codes, hot = marshal.loads(data)
                self.valid |= valid
                self._segments = segments if self._segments is None else self._segments
                self._kept = codes | self._kept
                self.hot |= hot
            except (ValueError, EOFError, TypeError):  # not by accident: the checksum was right
                return False
            for variant, index, loop in codes:
                if loop >= 0:
                    self._loops.setdefault((variant, index), []).append(loop)
        return True

    def keep_until_the_end(self, owner: object) -> None:
        """Write what is not written when the owner, or the process, ends."""
        _finalizers[:] = [one for one in _finalizers if one.alive]
        _finalizers.append(weakref.finalize(owner, self._end, os.getpid()))

    def at_exit(self, last: Last) -> None:
        """Have a method called when the process ends, if its object still lives then."""
        self._last.append(weakref.WeakMethod(last))

    def _end(self, process: int) -> None:
        # A forked child must not spend its last moments writing what its parent will write.
        if os.getpid() not in (process, _heir):
            return
        try:
            for reference in self._last:
                last = reference()
                if last is not None:
                    last(self._may_go_on)
        except KeyboardInterrupt:  # whoever cannot wait need not
            pass
        if self._unkept >= WORTH_AT_END:
            self.write()

    def _may_go_on(self) -> bool:
        """Whether what is made now will be kept."""
        if not self._ending:
            self._ending = True
            self.write()
        return self._worth != float("inf") and _time_is_left()

    def found_valid(self, features: tuple[str, ...] | None, seconds: float) -> None:
        """All functions are valid; finding out took that long."""
        self.valid.add(features)
        self._worked(seconds)

    @property
    def segments(self) -> Segments | None:
        """The data segments, if somebody has kept them."""
        return None if self._segments is None else Segments(*self._segments)

    def keep_segments(self, segments: Segments, seconds: float) -> None:
        """Keep them; to make them took that long."""
        self._segments = tuple(segments)
        self._worked(seconds)

    def has(self, key: Key) -> bool:
        """Whether an earlier process left code for it, or the knowledge that there can be none."""
        return key in self._kept

    def code(self, key: Key) -> CodeType | None:
        """The code; None if the function cannot be entered there. Raises KeyError when it is not kept."""
        data = self._kept[key]
        found = marshal.loads(data) if data else None
        if found is not None and not isinstance(found, CodeType):
            raise KeyError(key)
        return found

    def loops(self, variant: str, index: int) -> list[int]:
        """The loops at which an earlier process entered the function."""
        return self._loops.get((variant, index), [])

    def add(self, key: Key, code: CodeType | None, seconds: float) -> None:
        """Code was made; that took so long."""
        self._made[key] = code
        if not self._ending:
            self.hot.add(key[1])
        self._worked(seconds)

    def _worked(self, seconds: float) -> None:
        self._unkept += seconds
        if self._unkept >= self._worth:
            self.write()

    def write(self) -> bool:
        """Write the file, with what another process has put there meanwhile; whether that was possible."""
        begin = clock()
        self._unkept = 0.0
        made, self._made = self._made, {}
        self._load()
        self._kept |= {key: b"" if code is None else marshal.dumps(code) for key, code in made.items()}
        written = folder.write(self.name, marshal.dumps((self.valid, self._segments, self._kept, self.hot)))
        # Big files are written less often; where none can be, there is one more attempt, at the end.
        self._worth = max(WORTH, 20 * (clock() - begin)) if written else float("inf")
        return written


_finalizers: list[weakref.finalize[Any, Any]] = []

#: A forked process that writes what was found out before the fork, and what it found out itself.
_heir = 0


def inherit() -> None:
    """This process was forked, and is the one that has found out most when it ends. It must call `end`."""
    global _heir
    _heir = os.getpid()


def end() -> None:
    """Write everything that waits for the end of the process, for one that ends without ado."""
    for finalizer in _finalizers:
        finalizer()


#: When the process began to end, in seconds of its CPU time; and when that was told.
_exit_began: list[float] = []


def _time_is_left() -> bool:
    """Whether the process, which is about to end, may go on working for the next one."""
    now = time.process_time()
    if not _exit_began:
        _exit_began.append(now)
    elif len(_exit_began) == 1 and now - _exit_began[0] > PATIENCE:
        _exit_began.append(now)
        if sys.stderr is not None and sys.stderr.isatty():  # somebody is waiting
            print(
                "pywasmvm: translating for the next start (Ctrl-C to leave it)", file=sys.stderr, flush=True
            )
    return now - _exit_began[0] < min(_exit_began[0] * MOST_AT_EXIT, MOST_SECONDS_AT_EXIT)


def clock() -> float:
    """What work is measured with: CPU seconds of this thread, where the platform has that."""
    try:
        return time.thread_time()
    except (AttributeError, OSError):
        return time.perf_counter()
