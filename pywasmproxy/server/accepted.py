"""The last configuration that workers took over, left by them for those that replace one of them later.

It is left in the parent's folder, which only this proxy may look into, and goes with it: as it was read, with
the contents of all its files, so that whatever stands on the disk by then - broken YAML, half a filter -
hinders nobody. What one version of this program writes no other one reads, hence a pickle.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass

from pywasmproxy.config.model import Bootstrap

_NAME = "accepted"

State = tuple[int, int, int] | None
"""What tells that a file has changed: time, size, inode; None: it is not there."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A configuration that is served, and how its files were when they were read."""

    bootstrap: Bootstrap
    files: dict[str, State]


def leave(folder: str, accepted: Accepted) -> None:
    """Leave it in the place of the one before. OSError."""
    path = os.path.join(folder, f"{_NAME}-{os.getpid()}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        pickle.dump(accepted, file)
    os.replace(path, os.path.join(folder, _NAME))


def last(folder: str) -> Accepted | None:
    """The last one; None if all that was accepted is what the proxy began with. OSError."""
    try:
        with open(os.path.join(folder, _NAME), "rb") as file:
            found: Accepted = pickle.load(file)
    except FileNotFoundError:
        return None
    return found
