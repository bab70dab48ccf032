"""A proxy under test as a child process: started with a configuration, its log read as it is written.

Knows the two command lines, ours and the real Envoy's, and which of Envoy's threads to listen to: it starts
every VM once more for each thread, and only the worker's VM serves requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.replay.logs import Record, parse

ROOT = Path(__file__).resolve().parents[2]
OURS = [sys.executable, "-m", "pywasmvm", "serve"]
START_LIMIT = 30.0  # seconds until the listener must answer
SETTLE = 0.06  # seconds without a new line that end a wait for log lines
LINES_LIMIT = 10.0  # seconds to wait for lines that are expected
CHUNK_LIMIT = 1.0  # seconds to wait longer for a filter to take a chunk


@dataclass(frozen=True)
class Command:
    """How to start a proxy: the words before our own options."""

    words: list[str]

    @classmethod
    def parse(cls, text: str | None) -> Command:
        """From `--proxy`; a program is also looked for beside this interpreter. FileNotFoundError."""
        if text is None:
            return cls(OURS)
        program, *rest = shlex.split(text)
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        found = shutil.which(program, path=beside)
        if found is None:
            raise FileNotFoundError(f"no program {program!r}")
        return cls([os.path.abspath(found), *rest])

    @property
    def is_envoy(self) -> bool:
        return Path(self.words[0]).name.startswith("envoy")

    def line(self, config: Path, level: str) -> list[str]:
        common = [*self.words, "-c", str(config)]
        levels = ["-l", "info", "--component-log-level", f"wasm:{level}"]
        if self.is_envoy:
            return [*common, *levels, "--concurrency", "1", "--disable-hot-restart"]
        # No case has a filter that runs away, and a busy machine may be slow.
        return [*common, *levels, "--callback-timeout", "30s"]


@dataclass
class RunningProxy:
    """One child process and its log so far."""

    process: asyncio.subprocess.Process
    of_envoy: bool
    records: list[Record] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)  # raw lines, for messages when things go wrong
    patience: float = 1.0  # factor on all limits; small for cases that are known to fail
    serving: bool = False
    started_at: int = 0  # records before the listener answered
    _reader: asyncio.Task[None] | None = None
    _last_line: float = 0.0

    @classmethod
    async def start(
        cls, command: Command, config: Path, level: str, cwd: Path, patience: float = 1.0
    ) -> RunningProxy:
        process = await asyncio.create_subprocess_exec(
            *command.line(config, level),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 22,
        )
        proxy = cls(process, command.is_envoy, patience=patience)
        proxy._reader = asyncio.create_task(proxy._read())
        return proxy

    async def wait_until_listening(self, port: int, probe: bool = True) -> bool:
        """True once the listener accepts (that connection is closed unused); False when the process ended.

        Without `probe` it is the log that says so, and no connection is made.
        """
        limit = START_LIMIT * self.patience
        give_up = time.monotonic() + limit
        while time.monotonic() < give_up:
            if not probe:
                self.serving = any("starting main dispatch loop" in line for line in self.tail)
            else:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    self.serving = True
            if self.serving:
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.process.wait()), 0.02)
                await self._drain()
                return False
        raise TimeoutError(f"the proxy neither listens nor ends after {limit:.0f} s: {self.last_words()}")

    async def guest_lines(self, start: int, wanted: int | None) -> list[Record]:
        """Guest records after the first `start` ones: waits for `wanted` of them and then for silence."""
        give_up = time.monotonic() + LINES_LIMIT * self.patience
        while wanted is not None and len(self.guest) - start < wanted and time.monotonic() < give_up:
            await asyncio.sleep(0.005)
        while time.monotonic() - self._last_line < SETTLE and time.monotonic() < give_up + 1:
            await asyncio.sleep(0.01)
        return self.guest[start:]

    async def pause(self, seconds: float, lines: int | None = None) -> None:
        """Sleep, and on until the filter has logged and is quiet: a slow machine must not join chunks.

        `lines` is how many records there were before what it is to log about; by default as many as now.
        """
        lines = len(self.records) if lines is None else lines
        give_up = time.monotonic() + seconds + CHUNK_LIMIT
        await asyncio.sleep(seconds)
        while time.monotonic() < give_up:
            if len(self.records) > lines and time.monotonic() - self._last_line > SETTLE:
                return
            await asyncio.sleep(0.01)

    @property
    def guest(self) -> list[Record]:
        """Guest lines of the one VM that serves (or would have served)."""
        lines = [record for record in self.records if record.guest]
        if self.of_envoy and self.serving:
            main = self.records[0].thread
            return [record for record in lines if record.thread != main]
        return lines

    @property
    def host_errors(self) -> list[str]:
        """The host's own error lines: of the failed start, or else those after the start."""
        return [record.message for record in self.records[self.started_at :] if record.is_host_error]

    def last_words(self, lines: int = 1) -> str:
        return "\n".join(self.tail[-lines:])

    async def stop(self) -> int:
        """SIGTERM, then SIGKILL after five seconds; the exit status."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 5)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._drain()
        return self.process.returncode or 0

    async def _drain(self) -> None:
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        stream = self.process.stdout
        if stream is None:
            return
        message: list[
            str
        ] = []  # lines of the message being read: the next header ends it, so publish it as it grows
        while line := await stream.readline():
            text = line.decode("utf-8", "surrogateescape").rstrip("\n")
            self._last_line = time.monotonic()
            self.tail.append(text)
            first = parse(text)
            if first is not None:
                message = [text]
                self.records.append(first)
            elif message:
                message.append(text)
                longer = parse("\n".join(message))
                if longer is not None:
                    self.records[-1] = longer


def free_port() -> int:
    """A port nobody listens on, outside the range the system gives to outgoing connections."""
    for _ in range(1000):
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 15000 and 32000")
