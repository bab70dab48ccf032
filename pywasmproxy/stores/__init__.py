"""Stores that several processes share (`abi.proxy_wasm.store`), and how they are named.

`memory`, `sqlite:PATH` (one host) and `redis://HOST:PORT/DB` (many hosts; also rediss, unix). Whatever keeps
a store is imported only when it is named.
"""

from __future__ import annotations

from abi.proxy_wasm.store import MemoryStore, Store

MEMORY = "memory"

SQLITE = "sqlite:"

REDIS = ("redis://", "rediss://", "unix://")
"""Beginnings of addresses of Redis or Valkey, as its client takes them."""

FORMS = "memory, sqlite:PATH, or redis://HOST:PORT/DB"


def known(name: str) -> bool:
    """Whether something is the name of a store; nothing is opened."""
    return name == MEMORY or (name.startswith(SQLITE) and name != SQLITE) or name.startswith(REDIS)


def open_store(name: str) -> Store:
    """A store by its name; nothing is opened before its first use.

    ValueError: the name is none, or says something that makes no sense. ImportError: a package is missing.
    """
    if name == MEMORY:
        return MemoryStore()
    if not known(name):
        raise ValueError(f"a store is {FORMS}, not {name!r}")
    if name.startswith(SQLITE):
        from pywasmproxy.stores.sqlite import SqliteStore

        return SqliteStore(name.removeprefix(SQLITE))
    from pywasmproxy.stores.redis import RedisStore

    return RedisStore(name)
