"""Runs many scripts side by side, each in a process of its own.

A process per file keeps what one script does away from the next: memory is given back, the peak that is
reported is the file's own, a script that hangs is stopped and one that kills its process fails alone. Where a
platform has no processes the files run one after the other, without the time limit.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pywasmvm.script.parse import parse_script
from pywasmvm.script.results import Outcome, Results
from pywasmvm.script.run import Runner, run_file, unreadable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

#: Scripts that take longest by far, the longest first: these loop, all others are over soon. The rest is
#: ordered by size, which is what parsing costs.
LONGEST = (
    "return_call_ref.wast",
    "return_call.wast",
    "memory_grow64.wast",
    "memory_grow.wast",
    "return_call_indirect.wast",
    "memory_copy64.wast",
    "memory_copy.wast",
    "memory_fill64.wast",
    "memory_fill.wast",
    "call_indirect.wast",
)

#: Seconds between two messages of a running script.
_HEARTBEAT = 0.25

#: Called with the records of all files that run or have run.
Progress = Callable[[Sequence[Results]], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run every file; see `run_file`."""

    engine: str = "auto"
    features: tuple[str, ...] | None = None
    round_trip: str | None = None

    def options(self) -> dict[str, Any]:
        """As keyword arguments of `run_file` and `Runner`."""
        return {"engine": self.engine, "features": self.features, "round_trip": self.round_trip}


def default_jobs() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def longest_first(paths: Sequence[Path]) -> list[Path]:
    """The order in which files are begun."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    return sorted(paths, key=lambda path: (ranks.get(path.name, len(ranks)), -path.stat().st_size, path))


def run_files(
    paths: Sequence[Path],
    settings: Settings | None = None,
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Iterator[Results]:
    """Run files, giving the results of each as it ends.

    `jobs` is the number of processes (None: one per processor; 0: none, the files run in this one).
    `timeout` in seconds stops a file that takes longer: the command it was at fails, and those after it are
    skipped. `progress` is told now and then.
    """
    settings = Settings() if settings is None else settings
    jobs = default_jobs() if jobs is None else jobs
    queue = longest_first(paths)
    if jobs > 0 and _has_processes():
        yield from _Pool(settings, jobs, timeout, progress or (lambda records: None)).run(queue)
        return
    done: list[Results] = []
    for path in queue:
        done.append(run_file(path, **settings.options()))
        if progress is not None:
            progress(done)
        yield done[-1]


def _has_processes() -> bool:
    try:
        import multiprocessing.connection  # noqa: F401 - restricted platforms have it not
    except ImportError:
        return False
    return sys.platform not in ("emscripten", "wasi")


# -- the process of one file ---------------------------------------------------------------------------


def _work(connection: Connection, path: str, settings: Settings) -> None:
    """Run one file and send: the number of commands, batches of outcomes, then seconds and peak memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # syntax trees are many objects and few cycles
    begin = time.perf_counter()
    outcomes: deque[Outcome] = deque()
    at: list[tuple[int, str]] = [(1, "script")]
    over = threading.Event()

    def flush() -> None:
        batch = [outcomes.popleft() for _ in range(len(outcomes))]
        connection.send((at[0], [tuple(outcome) for outcome in batch]))

    def beat() -> None:
        while not over.wait(_HEARTBEAT):
            flush()

    commands = 1
    heart = threading.Thread(target=beat, daemon=True)
    try:
        script = parse_script(Path(path).read_bytes())
        runner = Runner(script, **settings.options())
        commands = len(script.commands)
        connection.send(commands)
        heart.start()
        for command in script.commands:
            at[0] = command.line, command.kind
            outcomes.append(runner.run(command))
    except Exception as error:
        outcomes.append(unreadable(error))
    over.set()
    if heart.ident is not None:
        heart.join()
    flush()
    connection.send((commands, time.perf_counter() - begin, peak_memory()))
    connection.close()


def peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes; None where it is not known."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# -- the process that waits for them -------------------------------------------------------------------


class _Job:
    """A file that is running."""

    def __init__(
        self, path: Path, process: BaseProcess, connection: Connection, timeout: float | None
    ) -> None:
        self.process, self.connection = process, connection
        self.results = Results(str(path), commands=1)
        self.begin = time.monotonic()
        self.deadline = None if timeout is None else self.begin + timeout
        self.at: tuple[int, str] = (1, "script")

    def receive(self) -> bool:
        """Take one message; whether it was the last. Raises EOFError when the process has died."""
        message = self.connection.recv()
        results = self.results
        if isinstance(message, int):
            results.commands = message
        elif len(message) == 2:
            self.at, batch = message
            for outcome in batch:
                results.add(Outcome(*outcome))
        else:
            results.commands, results.seconds, results.peak_memory = message
            return True
        return False

    def fail(self, reason: str) -> None:
        """End it: the command it was at has failed."""
        self.process.kill()
        line, kind = self.at
        self.results.add(Outcome(line, kind, reason))
        self.results.seconds = time.monotonic() - self.begin

    def close(self) -> None:
        """Wait for the process, which has ended or is about to."""
        self.process.join()
        self.connection.close()


class _Pool:
    """Keeps as many files running as there are to be jobs."""

    def __init__(self, settings: Settings, jobs: int, timeout: float | None, progress: Progress) -> None:
        import multiprocessing

        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            # What every file needs is loaded once, in the process that all others are forked from.
            self.context.set_forkserver_preload(["pywasmvm.script.pool", "pywasmvm.interp"])
        self.settings, self.jobs, self.timeout, self.progress = settings, jobs, timeout, progress
        self.running: dict[Connection, _Job] = {}
        self.records: list[Results] = []

    def run(self, queue: list[Path]) -> Iterator[Results]:
        """See `run_files`."""
        from multiprocessing.connection import wait

        waiting = deque(queue)
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.jobs:
                    self.start(waiting.popleft())
                for ready in wait(list(self.running), timeout=_HEARTBEAT):
                    yield from self.receive(ready)  # type: ignore[arg-type]  # they are the connections given
                yield from self.stop_late_ones()
                self.progress(self.records)
        finally:
            for job in self.running.values():
                job.process.kill()
                job.close()

    def start(self, path: Path) -> None:
        """Begin a file."""
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(theirs, str(path), self.settings), daemon=True)
        process.start()
        theirs.close()
        job = _Job(path, process, ours, self.timeout)
        self.running[ours] = job
        self.records.append(job.results)

    def receive(self, connection: Connection) -> Iterator[Results]:
        """Take a message of a file; its results if it was the last."""
        job = self.running[connection]
        try:
            if not job.receive():
                return
        except (EOFError, OSError):
            job.process.join()
            job.fail(f"the process died (exit status {job.process.exitcode})")
        yield self.end(job)

    def stop_late_ones(self) -> Iterator[Results]:
        """End files that have had their time."""
        now = time.monotonic()
        for job in [j for j in self.running.values() if j.deadline is not None and j.deadline <= now]:
            last = False
            with contextlib.suppress(EOFError, OSError):
                while not last and job.connection.poll():  # what it had sent by then counts
                    last = job.receive()
            if not last:
                job.fail(f"the file was stopped after {self.timeout:g} s, here")
            yield self.end(job)

    def end(self, job: _Job) -> Results:
        """Forget a file that is over."""
        del self.running[job.connection]
        job.close()
        return job.results
