"""`Reloader`: when the configuration is loaded anew - asked for, or because one of its files has changed.

Files are watched by looking at them once a second, which works on every file system and needs nothing. A
change counts when a file has looked the same twice in a row: whoever writes it has then probably finished.
What is refused stays refused until another change.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pywasmproxy.config import ConfigError
from pywasmproxy.config.model import Bootstrap
from pywasmproxy.server.accepted import Accepted, State, leave
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.reload import in_thread

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""

Source = Callable[[], Bootstrap]
"""Reads the configuration. Raises ConfigError."""


class Refused(Exception):
    """A new configuration is not used, and why; the old one still is."""


class Reloader:
    """Loads a server's configuration anew from its source."""

    def __init__(self, server: Server, source: Source) -> None:
        self.server, self.source = server, source
        self.loaded = 0
        """How often a new configuration was put to use."""
        self.refused = 0
        """How often one was refused."""
        self._logger = server.log["config"]

    async def reload(self, why: str) -> None:
        """Read the configuration again and go over to it. Raises Refused; the reason is logged, too."""
        before = states(self.server.bootstrap.files)
        try:
            bootstrap = await in_thread(self.source)
            for warning in bootstrap.warnings:
                if warning not in self.server.bootstrap.warnings:
                    self._logger.warning(str(warning))
            await self.server.reload(bootstrap)
        except (ConfigError, StartError, OSError) as error:
            self.refused += 1
            self._logger.error(f"reload ({why}) refused, the running configuration stays: {error}")
            raise Refused(str(error)) from error
        self.loaded += 1
        if self.server.seat is not None:
            # What has changed while it was read counts as changed since.
            files = states(bootstrap.files)
            files |= {name: state for name, state in before.items() if name in files}
            await self._leave(self.server.seat.folder, Accepted(bootstrap, files))
        self._logger.info(f"reload ({why}): the configuration has been loaded anew")

    async def _leave(self, folder: str, accepted: Accepted) -> None:
        """Leave what is served now for workers that replace others."""
        try:
            await in_thread(lambda: leave(folder, accepted))
        except OSError as error:
            self._logger.error(f"workers to come will not know of this configuration: {error}")

    def soon(self, why: str) -> None:
        """Reload when the event loop comes to it."""
        self.server.later(self._reload_quietly(why))

    async def _reload_quietly(self, why: str) -> None:
        with contextlib.suppress(Refused):  # it has been logged
            await self.reload(why)

    async def watch(self) -> None:
        """Reload whenever a file of the configuration has changed. Ends only by being cancelled."""
        seen = states(self.server.bootstrap.files)
        changing = False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = states(self.server.bootstrap.files)
            if now == seen:
                if changing and None not in now.values():
                    changing = False
                    await self._reload_quietly("a file has changed")
                    seen = states(self.server.bootstrap.files) | {
                        name: state for name, state in now.items() if name in self.server.bootstrap.files
                    }
                continue
            seen, changing = now, True


def states(files: Iterable[str]) -> dict[str, State]:
    """What tells that a file has changed: time, size, inode; None for one that is not there."""
    return {name: _state(name) for name in files}


def _state(name: str) -> State:
    try:
        found = os.stat(Path(name))
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
