"""Access logs on their way to files: lines are gathered, and written in a thread, so that no request waits.

A file that cannot be written to costs its lines, not requests: that is said once, and once more when it is
over. A path is opened when there is something to write; `/dev/stdout` and `/dev/stderr` are this process's
own. What several loggers write to one path goes through one file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import Iterable

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model_log import AccessLog
from pywasmproxy.sansio.access_log import LogLines
from pywasmproxy.sansio.format import Moment, Origin
from pywasmproxy.server.log import Logger

FLUSH_AFTER = 1.0
"""Seconds that a line waits at most for others (Envoy: 10)."""

FLUSH_BYTES = 64 * 1024
"""Bytes that are written at once."""

MOST_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for a file that is slow; what comes then is lost."""

LAST_FLUSH = 2.0
"""Seconds that writing may take at the end of the process."""

_OWN = {"/dev/stdout": 1, "/dev/stderr": 2}


class LogFile:
    """A file that lines are appended to."""

    def __init__(self, path: str, files: AccessLogs) -> None:
        self.path = path
        self._files = files
        self._descriptor: int | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[str] | None = None
        self._trouble = ""
        self._reopen = False

    def append(self, line: bytes) -> None:
        """Write a line soon."""
        self._files.buffered += 1
        if self._size + len(line) > MOST_BYTES:
            self._files.failed += 1
            self._tell(f"more than {MOST_BYTES >> 20} MiB wait to be written")
            return
        self._waiting.append(line)
        self._size += len(line)
        if self._writing is not None:
            return
        if self._size >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush)

    def reopen(self) -> None:
        """Open the path anew before the next line: the file may have been moved away."""
        self._reopen = True
        if not self._waiting and self._writing is None:
            self._waiting.append(b"")  # so that a fresh file is there at once
        self.flush()

    def flush(self) -> None:
        """Begin to write what waits, unless that is being done already."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None or not self._waiting:
            return
        data, loop = self._take(), asyncio.get_running_loop()
        writing: asyncio.Future[str] = loop.create_future()

        def work() -> None:
            trouble = self._write(data)
            with contextlib.suppress(RuntimeError):  # the loop has ended without us
                loop.call_soon_threadsafe(writing.set_result, trouble)

        # A thread of its own: those of an executor are waited for at the end, however long a write takes.
        thread = threading.Thread(target=work, name=f"access log {self.path}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no threads here
            self._tell(self._write(data))
            return
        self._writing = writing
        writing.add_done_callback(self._written)

    def _take(self) -> bytes:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return data

    def _written(self, future: asyncio.Future[str]) -> None:
        self._writing = None
        self._tell(future.result())
        if self._waiting:
            if self._size >= FLUSH_BYTES:
                self.flush()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush)

    def _tell(self, trouble: str) -> None:
        """Say that something is wrong, or that it is not any more; each once."""
        if trouble != self._trouble:
            if trouble:
                self._files.logger.error(f"access log {self.path}: {trouble}; its lines are lost")
            else:
                self._files.logger.info(f"access log {self.path}: is written again")
        self._trouble = trouble

    async def close(self) -> None:
        """Write what waits, as far as that is possible in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            async with asyncio.timeout(LAST_FLUSH):
                while self._waiting or self._writing is not None:
                    self.flush()
                    if self._writing is not None:
                        await asyncio.wait([self._writing])
                        await asyncio.sleep(0)  # its callbacks
        except TimeoutError:
            self._files.logger.error(
                f"access log {self.path}: {self._size} bytes could not be written in time"
            )
            return
        self._close_descriptor()

    # --- perhaps in a thread, one at a time -----------------------------------------------------------------

    def _write(self, data: bytes) -> str:
        """Write it all; what went wrong, or ""."""
        try:
            descriptor = self._open()
        except (OSError, ValueError) as error:  # ValueError: no path at all
            if self._reopen:
                self._files.reopen_failed += 1
            self._files.failed += 1
            return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            self._files.failed += 1
            return f"cannot be written to: {error.strerror or error}"
        self._files.completed += 1
        return ""

    def _open(self) -> int:
        """The descriptor; a path whose file has been removed, or is to be opened anew, is. OSError."""
        if self.path in _OWN:
            return _OWN[self.path]
        if self._descriptor is not None and (self._reopen or self._gone(self._descriptor)):
            self._close_descriptor()
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(self.path, flags, 0o644)
            self._reopen = False
        return self._descriptor

    @staticmethod
    def _gone(descriptor: int) -> bool:
        """Whether the file has no name any more."""
        found = os.fstat(descriptor)
        return stat.S_ISREG(found.st_mode) and found.st_nlink == 0

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class FileLogger:
    """One access log of a configuration: what an exchange is written as, and where."""

    __slots__ = ("_file", "_lines", "needs")

    def __init__(self, lines: LogLines, file: LogFile) -> None:
        self._lines, self._file = lines, file
        self.needs = lines.needs

    def write(self, info: StreamInfo, moment: Moment, random: int) -> None:
        """An exchange is over."""
        line = self._lines.line(info, moment, random)
        if line is not None:
            self._file.append(line)


class AccessLogs:
    """The files of one process, and what was written: lines that waited, writes that were done or failed."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self.buffered = self.completed = self.failed = self.reopen_failed = 0
        self._files: dict[str, LogFile] = {}

    def loggers(self, configs: Iterable[AccessLog], origin: Origin) -> list[FileLogger]:
        """For the access logs of a listener."""
        found = []
        for config in configs:
            file = self._files.get(config.path)
            if file is None:
                file = self._files[config.path] = LogFile(config.path, self)
            found.append(FileLogger(LogLines(config, origin), file))
        return found

    def reopen(self) -> None:
        """Open all files anew."""
        for file in self._files.values():
            file.reopen()

    async def close(self) -> None:
        """Write what waits."""
        await asyncio.gather(*(file.close() for file in self._files.values()))
