"""Snapshots of VMs after `_initialize`, and after the start of a plugin, for later ones of the same kind.

A big Go module takes seconds to initialise and milliseconds to bring back; a few take minutes to be
configured. What a VM can see of its surroundings until then besides time and randomness is part of the key:
only VMs that agree in it share a snapshot (docs/adr/0014-snapshot.md).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pywasmvm import Snapshot, SnapshotError, StoreLimits
from pywasmvm.runtime.snapshot import digest

if TYPE_CHECKING:
    from abi.proxy_wasm.plugin import Plugin
    from abi.proxy_wasm.started import Started
    from abi.proxy_wasm.vm import Vm
    from pywasmvm import Module

SUFFIX = ".snapshot"


#: Seconds of CPU time that the start of a plugin must have taken to be kept: it takes megabytes.
WORTH = 0.5


def key_of(environment: Mapping[str, str], capabilities: frozenset[str] | None, *more: object) -> bytes:
    """What the state of a VM depends on besides its code: 32 bytes, which give nothing away.

    After `_initialize` that is the environment and the capabilities; after the start of a plugin also what
    names and configures VM and plugin (`more`).
    """
    allowed = None if capabilities is None else sorted(capabilities)
    parts = (list(environment.items()), allowed, *more)
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).digest()


class Snapshots:
    """Snapshots by code and key: in memory, and with a `folder` in files of it that outlive the process.

    `note` gets a line whenever one is not used or not made, and why; starts then go the long way. Files are
    used only if nobody else can have written them: their bytes become the memory of a filter.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, note: Callable[[str], None] | None = None
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self._note = note if note is not None else lambda line: None
        self._kept: dict[tuple[bytes, bytes], Snapshot] = {}
        self._refused: set[tuple[bytes, bytes]] = set()

    def find(self, module: bytes, key: bytes) -> Snapshot | None:
        """The snapshot for a module (its SHA-256) and a key."""
        found = self._kept.get((module, key))
        if found is None and self.folder is not None:
            path = self._path(self.folder, module, key)
            try:
                found = self._read(path)
            except FileNotFoundError:
                return None
            except (OSError, SnapshotError) as error:
                self._note(f"snapshot {path} is not used: {error}")
                return None
            if (found.module, found.key) != (module, key):
                self._note(f"snapshot {path} is not used: it is of something else")
                return None
            self._kept[module, key] = found
        return found

    def misfit(self, snapshot: Snapshot, error: SnapshotError) -> None:
        """A snapshot that was found does not fit: it is forgotten."""
        self._note(f"snapshot of {snapshot.module.hex()[:16]} is not used: {error}")
        self._kept.pop((snapshot.module, snapshot.key), None)

    def keep(self, vm: Vm) -> None:
        """Keep the state of a VM that has just been initialised, if it can be kept."""
        self._keep(f"VM {vm.vm_id!r}", digest(vm.module), vm.snapshot_key, vm.snapshot)

    def keep_started(self, plugin: Plugin, key: bytes, started: Started) -> None:
        """Keep the state of a VM whose first plugin has just been started, if that took long."""
        if started.seconds >= WORTH:
            what = f"start of plugin {plugin.name!r}"
            self._keep(what, digest(plugin.vm.module), key, lambda: plugin.vm.snapshot_started(key, started))

    def _keep(self, what: str, module: bytes, key: bytes, take: Callable[[], Snapshot]) -> None:
        place = module, key
        if place in self._refused:
            return
        try:
            taken = take()
        except SnapshotError as error:
            self._refused.add(place)
            self._note(f"{what}: no snapshot is made: {error}")
            return
        self._kept[place] = taken
        if self.folder is None:
            return
        path = self._path(self.folder, *place)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken.save(path)
        except OSError as error:
            self._note(f"snapshot {path} cannot be written: {error.strerror or error}")

    @staticmethod
    def _path(folder: Path, module: bytes, key: bytes) -> Path:
        return folder / (hashlib.sha256(module + key).hexdigest()[:40] + SUFFIX)

    @staticmethod
    def _read(path: Path) -> Snapshot:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(file, "rb") as stream:
            for where, state in ((path.parent, os.stat(path.parent)), (path, os.fstat(stream.fileno()))):
                if not hasattr(os, "getuid"):
                    break  # Windows has no modes; its folders belong to their user
                if state.st_uid not in (os.getuid(), 0) or state.st_mode & 0o022:
                    mode = stat.S_IMODE(state.st_mode)
                    raise SnapshotError(f"others may write to {where} (user {state.st_uid}, mode {mode:o})")
            return Snapshot.from_bytes(stream.read())


def of_filter(module: Module, environment: Mapping[str, str], limits: StoreLimits) -> Snapshot | None:
    """The snapshot of a filter, started as hosts start it; None for a module that is no proxy-wasm filter.

    What `pywasmvm snapshot` asks. Raises SnapshotError.
    """
    from abi.proxy_wasm.failures import PluginStartError
    from abi.proxy_wasm.linking import version_of
    from abi.proxy_wasm.vm import Vm

    if version_of(module) is None:
        return None
    try:
        return Vm(module, environment=environment, limits=limits).snapshot()
    except PluginStartError as error:
        lines = "\n".join([error.reason, *error.host_errors])
        raise SnapshotError(f"the filter does not start:\n{lines}") from error
