"""Wall-clock deadlines at no cost for the code that is watched: one thread looks after all running stores.

A store says with a serial number that a call from the host runs. The thread wakes a hundred times a second
while anything runs, and tells a store whose call it has seen for too long (`Store.expire`); it measures from
when it saw the call first, so it is late by two ticks at most and never early. When nothing has run for a
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
IDLE = 100


class Watchdog:
    """The thread and the stores it watches."""

    _told = False  # of forks

    def __init__(self) -> None:
        #: Watched stores with the serial of the call seen last and when it was seen first.
        self._seen: weakref.WeakKeyDictionary[Store, tuple[int, float]] = weakref.WeakKeyDictionary()
        self._lock: Any = None
        self._wake: Any = None
        self._thread: Any = None
        self._idle = 0  # looks in a row that found nothing running

    @property
    def asleep(self) -> bool:
        """Whether there is nothing to watch."""
        return self._wake is None or not self._wake.is_set()

    def watch(self, store: Store) -> bool:
        """Watch the store until nothing has run for a while; False where no thread can be started."""
        import threading  # never at import: most programs need no thread

        if self._lock is None:
            # A finalizer may call a guest, in whichever thread the garbage is collected, so the lock must
            # let the thread that holds it pass.
            self._lock, self._wake = threading.RLock(), threading.Event()
            if not self._told and hasattr(os, "register_at_fork"):
                # After `threading` did the same: in a child it comes first to know which threads are left.
                os.register_at_fork(after_in_child=self.forget)
                self._told = True
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="wasm-watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
            self._seen.setdefault(store, (-1, 0.0))
            self._idle = 0
            self._wake.set()
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(TICK)
            self.look()

    def look(self) -> None:
        """One look at all stores; the thread keeps none of them alive between two."""
        now = time.monotonic()
        with self._lock:
            self._idle += 1
            for store, (serial, since) in list(self._seen.items()):
                if store.nesting == 0:
                    continue
                self._idle = 0
                if store.serial != serial:
                    self._seen[store] = (store.serial, now)
                    continue
                seconds = store.limits.seconds
                if seconds is not None and now - since >= seconds:
                    store.expire(serial)
            # Calls that begin after the first of these two looks watch their store again. One that was just
            # about to begin then is running at the second, or has asked to be watched: nothing sleeps before.
            if self._idle == IDLE:
                for store in list(self._seen):
                    store.unwatched()
            elif self._idle > IDLE:
                self._seen.clear()
                self._wake.clear()

    def forget(self) -> None:
        """In a forked child there is no thread, and the lock may be held by nobody."""
        running = []
        for store in list(self._seen):
            store.unwatched()
            if store.nesting:
                running.append(store)
        self.__init__()  # type: ignore[misc]
        for store in running:  # the call in which the process was forked goes on here
            self.watch(store)


#: Of the whole process.
WATCHDOG = Watchdog()
