"""Wall-clock deadlines at no cost for the code that is watched: one thread looks after all running stores.

A store says with a serial number that a call from the host runs. The thread wakes a hundred times a second
while anything runs, and raises the stop flag of a store whose call it has seen for too long; it measures from
when it saw the call first, so it is late by one tick at most and never early. When nothing has run for a
while it sleeps until somebody calls again. Where no thread can be started, `watch` says so, and engines
look at the clock themselves.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store

#: Seconds between two looks.
TICK = 0.01

#: Ticks without any call after which the thread goes to sleep.
_IDLE = 100


class Watchdog:
    """The thread and the stores it watches."""

    def __init__(self) -> None:
        #: Watched stores with the serial of the call seen last and when it was seen first.
        self._seen: weakref.WeakKeyDictionary[Store, tuple[int, float]] = weakref.WeakKeyDictionary()
        self._lock: Any = None
        self._wake: Any = None
        self._thread: Any = None

    def watch(self, store: Store) -> bool:
        """Watch the store until it has been idle for a while; False where no thread can be started."""
        import threading  # never at import: most programs need no thread

        if self._lock is None:
            self._lock, self._wake = threading.Lock(), threading.Event()
        with self._lock:
            self._seen.setdefault(store, (-1, 0.0))
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="wasm-watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
            self._wake.set()
        return True

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            with self._lock:
                busy = False
                for store, (serial, since) in list(self._seen.items()):
                    if store.nesting == 0:
                        continue
                    busy = True
                    if store.serial != serial:
                        self._seen[store] = (store.serial, now)
                        continue
                    seconds = store.limits.seconds
                    if seconds is not None and now - since >= seconds:
                        store.expire(serial)
                idle = 0 if busy else idle + 1
                if idle >= _IDLE:
                    # Calls that begin from here on watch their store again.
                    for store in list(self._seen):
                        store.unwatched()
                    busy = any(store.nesting for store in self._seen)
                    if not busy:
                        self._seen.clear()
                        self._wake.clear()
            if idle >= _IDLE and not self._wake.is_set():
                self._wake.wait()
                idle = 0

    def forget(self) -> None:
        """In a forked child there is no thread, and the lock may be held by nobody."""
        for store in list(self._seen):
            store.unwatched()
        self.__init__()  # type: ignore[misc]


WATCHDOG = Watchdog()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WATCHDOG.forget)
