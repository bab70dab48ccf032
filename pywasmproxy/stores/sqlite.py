"""`SqliteStore`: a file that the processes of one host share.

Each operation is one statement outside of any transaction, so each is one atomic write. SQLite's own waiting
for a busy file sleeps too long for guests that wait: we ask again at short intervals, for `PATIENCE` seconds
in all. Bounds are kept by triggers in the same statement.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from abi.proxy_wasm.store import (
    ENTRY_COST,
    LAST_CAS,
    Bounds,
    Cell,
    Store,
    StoreError,
    numbers,
    signed,
)
from abi.proxy_wasm.types import MetricType, Status

PATIENCE = 0.25
"""Seconds for which a busy file is asked again."""

PAUSE = 0.0002
"""Seconds between two attempts in the mean. They do not grow: who waits longer than others comes too late."""

OLDEST = (3, 35, 0)
"""The first SQLite with RETURNING."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG)
"""What a statement may meet although the file is in order."""

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS data (
  cas INTEGER PRIMARY KEY AUTOINCREMENT, scope BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
  UNIQUE (scope, key));
CREATE TABLE IF NOT EXISTS queues (
  token INTEGER PRIMARY KEY, scope BLOB NOT NULL, name BLOB NOT NULL, listener TEXT NOT NULL,
  UNIQUE (scope, name));
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY, token INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS items_by_token ON items (token, number);
CREATE TABLE IF NOT EXISTS notes (
  number INTEGER PRIMARY KEY, listener TEXT NOT NULL, token INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS metrics (
  kind INTEGER NOT NULL, name BLOB NOT NULL, cell INTEGER NOT NULL, value INTEGER NOT NULL,
  PRIMARY KEY (kind, name, cell)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS room (
  what TEXT PRIMARY KEY, used INTEGER NOT NULL, bound INTEGER NOT NULL, CHECK (used <= bound)) WITHOUT ROWID;
INSERT OR IGNORE INTO room VALUES ('data', 0, 0), ('items', 0, 0), ('queues', 0, 0), ('notes', 0, 0),
  ('metrics', 0, 0);
CREATE TRIGGER IF NOT EXISTS data_in AFTER INSERT ON data BEGIN
  UPDATE room SET used = used + length(NEW.key) + length(NEW.value) + COST WHERE what = 'data'; END;
CREATE TRIGGER IF NOT EXISTS data_out AFTER DELETE ON data BEGIN
  UPDATE room SET used = used - length(OLD.key) - length(OLD.value) - COST WHERE what = 'data'; END;
CREATE TRIGGER IF NOT EXISTS items_in AFTER INSERT ON items BEGIN
  UPDATE room SET used = used + length(NEW.data) + COST WHERE what = 'items';
  INSERT INTO notes (listener, token) SELECT listener, token FROM queues WHERE token = NEW.token; END;
CREATE TRIGGER IF NOT EXISTS items_out AFTER DELETE ON items BEGIN
  UPDATE room SET used = used - length(OLD.data) - COST WHERE what = 'items'; END;
CREATE TRIGGER IF NOT EXISTS notes_in AFTER INSERT ON notes BEGIN
  UPDATE room SET used = used + 1 WHERE what = 'notes'; END;
CREATE TRIGGER IF NOT EXISTS notes_out AFTER DELETE ON notes BEGIN
  UPDATE room SET used = used - 1 WHERE what = 'notes'; END;
CREATE TRIGGER IF NOT EXISTS queues_in AFTER INSERT ON queues BEGIN
  UPDATE room SET used = used + 1 WHERE what = 'queues'; END;
CREATE TRIGGER IF NOT EXISTS queues_heard AFTER UPDATE OF listener ON queues
  WHEN OLD.listener <> NEW.listener BEGIN
  DELETE FROM notes WHERE token = NEW.token;
  INSERT INTO notes (listener, token) SELECT NEW.listener, token FROM items WHERE token = NEW.token; END;
CREATE TRIGGER IF NOT EXISTS metrics_in AFTER INSERT ON metrics WHEN NEW.cell = 0 BEGIN
  UPDATE room SET used = used + 1 WHERE what = 'metrics'; END;
COMMIT;
""".replace("COST", str(ENTRY_COST))
"""A write of shared data takes the place of the row with its key and so gets the next row number, which is
the counter of all writes; SQLite never gives one out twice."""

CAS = f"(cas - 1) % {LAST_CAS} + 1"
"""The number that guests see: 32 bits, never 0."""

_R = TypeVar("_R")


class _FullError(StoreError):
    """One of our bounds is reached."""


class SqliteStore(Store):
    """A store in an SQLite file. Each process opens it for itself, at its first use.

    A process that is killed loses nothing that was acknowledged. What a crash of the machine leaves is in
    order, without the last moments perhaps; unless `lasting` is False: then nothing is ever waited for, and
    the file is for the time of one run.
    """

    shared = True

    def __init__(
        self, path: str | os.PathLike[str], bounds: Bounds | None = None, *, lasting: bool = True
    ) -> None:
        super().__init__(bounds)
        self._synchronous = "NORMAL" if lasting else "OFF"
        self.path = os.path.abspath(path)
        self.name = f"sqlite:{self.path}"
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._inherited: list[sqlite3.Connection] = []
        self._identity: tuple[int, int] | None = None

    # --- the file -------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old, it must be 3.35 or newer")
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, cached_statements=64)
        try:
            connection.create_function("wrapped", 2, _wrapped, deterministic=True)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA recursive_triggers = ON")  # a replaced row leaves through its trigger
            connection.executescript(SCHEMA)
            bounds = self.bounds
            limits = (
                ("data", bounds.shared_data),
                ("items", bounds.queued),
                ("queues", bounds.queues),
                ("notes", bounds.notifications),
                ("metrics", bounds.metrics),
            )
            for what, bound in limits:
                connection.execute(
                    "UPDATE room SET bound = :b WHERE what = :w AND bound <> :b AND used <= :b",
                    {"w": what, "b": bound},
                )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            connection.close()
            raise
        self._connection, self._process = connection, os.getpid()
        self._identity = self._seen()
        return connection

    def _seen(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _opened(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is None:
            return self._open()
        if self._process != os.getpid():
            # Another process's, from before a fork. It must not even be closed here.
            self._inherited.append(connection)
            self._connection = None
            return self._open()
        return connection

    def _try(self, operation: Callable[[sqlite3.Connection], _R]) -> _R:
        """Do something with the file, again and again for a while if it is busy. StoreError."""
        end = 0.0
        while True:
            try:
                return operation(self._opened())
            except sqlite3.IntegrityError:
                raise _FullError("its bounds are reached", away=False) from None
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _BUSY:
                    now = time.monotonic()
                    end = end or now + PATIENCE
                    if now < end:
                        time.sleep(PAUSE * (0.5 + random.random()))
                        continue
                    raise StoreError(f"busy for {PATIENCE} s", away=False) from None
                if code in _PASSING:
                    raise StoreError(str(error), away=False) from None
                self._drop()
                raise StoreError(str(error)) from None

    def _drop(self) -> None:
        """Close the file after a fault; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            try:
                connection.close()
            except sqlite3.Error:
                self._inherited.append(connection)

    def _rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        return self._try(lambda connection: connection.execute(statement, values).fetchall())

    def _changed(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> int:
        """How many rows a statement changed."""
        return self._try(lambda connection: connection.execute(statement, values).rowcount)

    def check(self) -> None:
        self._rows("SELECT 1 FROM room")

    def look(self) -> None:
        if self._connection is not None and self._identity != self._seen():
            self._drop()  # what is written there, nobody else will see
            raise StoreError("the file is gone")

    def close(self) -> None:
        self._drop()

    # --- shared data ----------------------------------------------------------------------------------------

    def get(self, scope: bytes, key: bytes) -> tuple[bytes, int] | None:
        rows = self._rows(f"SELECT value, {CAS} FROM data WHERE scope = ? AND key = ?", (scope, key))
        return rows[0] if rows else None

    def set(self, scope: bytes, key: bytes, value: bytes, cas: int) -> Status:
        try:
            if cas == 0:
                changed = self._changed(
                    "INSERT OR REPLACE INTO data (scope, key, value) VALUES (?, ?, ?)", (scope, key, value)
                )
            else:
                changed = self._changed(
                    "INSERT OR REPLACE INTO data (scope, key, value) SELECT :s, :k, :v WHERE NOT EXISTS "
                    f"(SELECT 1 FROM data WHERE scope = :s AND key = :k AND {CAS} <> :cas)",
                    {"s": scope, "k": key, "v": value, "cas": cas},
                )
        except _FullError:
            return Status.INTERNAL_FAILURE
        return Status.OK if changed else Status.CAS_MISMATCH

    # --- shared queues --------------------------------------------------------------------------------------

    def register(self, scope: bytes, name: bytes, listener: str) -> int | None:
        try:
            rows = self._rows(
                "INSERT INTO queues (scope, name, listener) VALUES (?, ?, ?) "
                "ON CONFLICT (scope, name) DO UPDATE SET listener = excluded.listener RETURNING token",
                (scope, name, listener),
            )
        except _FullError:
            return None
        return int(rows[0][0])

    def restore(self, scope: bytes, name: bytes, listener: str, token: int) -> None:
        try:
            made = self._changed(
                "INSERT INTO queues (token, scope, name, listener) SELECT :t, :s, :n, :l WHERE NOT EXISTS "
                "(SELECT 1 FROM queues WHERE token = :t OR (scope = :s AND name = :n))",
                {"t": token, "s": scope, "n": name, "l": listener},
            )
        except _FullError:
            return
        if not made:
            # Through nobody, so that the trigger sees a change.
            queue = (token, scope, name)
            where = "WHERE token = ? AND scope = ? AND name = ? AND listener = ?"
            self._changed(f"UPDATE queues SET listener = '' {where}", (*queue, listener))
            self._changed(f"UPDATE queues SET listener = ? {where}", (listener, *queue, ""))

    def resolve(self, scope: bytes, name: bytes) -> int | None:
        rows = self._rows("SELECT token FROM queues WHERE scope = ? AND name = ?", (scope, name))
        return rows[0][0] if rows else None

    def enqueue(self, token: int, data: bytes) -> Status:
        try:
            made = self._changed(
                "INSERT INTO items (token, data) SELECT token, ? FROM queues WHERE token = ?", (data, token)
            )
        except _FullError:
            return Status.INTERNAL_FAILURE
        return Status.OK if made else Status.NOT_FOUND

    def dequeue(self, token: int) -> bytes | Status:
        rows = self._rows(
            "DELETE FROM items WHERE number = (SELECT min(number) FROM items WHERE token = ?) RETURNING data",
            (token,),
        )
        if rows:
            return bytes(rows[0][0])
        exists = self._rows("SELECT 1 FROM queues WHERE token = ?", (token,))
        return Status.EMPTY if exists else Status.NOT_FOUND

    def notifications(self, listener: str) -> list[int]:
        if not self._rows("SELECT 1 FROM notes WHERE listener = ? LIMIT 1", (listener,)):
            return []  # a write would make others wait
        rows = self._rows("DELETE FROM notes WHERE listener = ? RETURNING number, token", (listener,))
        return [token for _, token in sorted(rows)]

    # --- metrics --------------------------------------------------------------------------------------------

    def define(self, kind: MetricType, name: bytes) -> bool:
        try:
            self._changed("INSERT INTO metrics VALUES (?, ?, 0, 0) ON CONFLICT DO NOTHING", (int(kind), name))
        except _FullError:
            return False
        return True

    def add(self, changes: Mapping[Cell, int]) -> None:
        rows = [(int(kind), name, cell, signed(change)) for (kind, name, cell), change in changes.items()]
        values = ", ".join(["(?, ?, ?, ?)"] * min(len(rows), _ROWS_AT_ONCE))
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[begin : begin + _ROWS_AT_ONCE]
            if len(part) < _ROWS_AT_ONCE:
                values = ", ".join(["(?, ?, ?, ?)"] * len(part))
            self._changed(
                f"INSERT INTO metrics (kind, name, cell, value) VALUES {values} "
                "ON CONFLICT DO UPDATE SET value = wrapped(value, excluded.value)",
                [value for row in part for value in row],
            )

    def assign(self, name: bytes, value: int) -> None:
        self._changed(
            "INSERT INTO metrics (kind, name, cell, value) VALUES (?, ?, 0, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (int(MetricType.GAUGE), name, signed(value)),
        )

    def value(self, kind: MetricType, name: bytes) -> int:
        rows = self._rows(
            "SELECT value FROM metrics WHERE kind = ? AND name = ? AND cell = 0", (int(kind), name)
        )
        return rows[0][0] & 0xFFFF_FFFF_FFFF_FFFF if rows else 0

    def metrics(self) -> dict[Cell, int]:
        return numbers(self._rows("SELECT kind, name, cell, value FROM metrics"))


_ROWS_AT_ONCE = 200


def _wrapped(a: int, b: int) -> int:
    return signed(a + b)
