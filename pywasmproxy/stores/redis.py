"""`RedisStore`: a Redis or Valkey server that the processes of many hosts share. Needs the package `redis`.

What is more than one command is a script, which the server runs as a whole. Every answer is waited for
`PATIENCE` seconds at most. All keys begin with the option `prefix` of the address (`?prefix=...`, by default
`pywasmvm`); proxies that give the same address and prefix share everything, their metrics included.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from abi.proxy_wasm.store import ENTRY_COST, LAST_CAS, Bounds, Cell, Store, StoreError, numbers, signed
from abi.proxy_wasm.types import MetricType, Status

if TYPE_CHECKING:
    import redis

PATIENCE = 0.25
"""Seconds for which an answer, or a connection, is waited for."""

REMEMBERED = 3600
"""Seconds for which the server knows the last item that each client took out."""

#: Keys: the value; counter of writes; room. Arguments: value, cas, bound, cost of key and entry.
SET = f"""
local size = redis.call('STRLEN', KEYS[1])
if size > 0 and ARGV[2] ~= '0' then
  if struct.unpack('<I4', redis.call('GETRANGE', KEYS[1], 0, 3)) ~= tonumber(ARGV[2]) then return 8 end
end
local grows = #ARGV[1]
if size == 0 then grows = grows + tonumber(ARGV[4]) else grows = grows - (size - 4) end
local used = tonumber(redis.call('HGET', KEYS[3], 'data') or '0')
if used + grows > tonumber(ARGV[3]) then return 10 end
redis.call('HSET', KEYS[3], 'data', used + grows)
local cas = (redis.call('INCR', KEYS[2]) - 1) % {LAST_CAS} + 1
redis.call('SET', KEYS[1], struct.pack('<I4', cas) .. ARGV[1])
return 0
"""

#: Keys: tokens by queue; listeners by token; room; notifications of the listener. Arguments: queue, listener,
#: bound, beginning of the keys.
REGISTER = """
local token = redis.call('HGET', KEYS[1], ARGV[1])
if not token then
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
  token = redis.call('HINCRBY', KEYS[3], 'token', 1)
  redis.call('HSET', KEYS[1], ARGV[1], token)
  redis.call('HSET', KEYS[2], token, ARGV[2])
else
  local former = redis.call('HGET', KEYS[2], token)
  if former ~= ARGV[2] then
    redis.call('HSET', KEYS[2], token, ARGV[2])
    redis.call('LREM', ARGV[4] .. 'notes:' .. former, 0, token)
    for _ = 1, redis.call('LLEN', ARGV[4] .. 'queue:' .. token) do
      redis.call('RPUSH', KEYS[4], token)
    end
  end
end
return tonumber(token)
"""

#: As REGISTER, with the wanted token in the place of the bound, and how many items the client may have taken
#: out without knowing.
RESTORE = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known then
  if redis.call('HEXISTS', KEYS[2], ARGV[3]) == 1 then return 0 end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[2])
  if tonumber(redis.call('HGET', KEYS[3], 'token') or '0') < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[3], 'token', ARGV[3])
  end
elseif known == ARGV[3] and redis.call('HGET', KEYS[2], known) == ARGV[2] then
  redis.call('LREM', KEYS[4], 0, known)
  for _ = 1, redis.call('LLEN', ARGV[4] .. 'queue:' .. known) + tonumber(ARGV[5]) do
    redis.call('RPUSH', KEYS[4], known)
  end
end
return 1
"""

#: Keys: listeners by token; the queue; room. Arguments: token, item, bounds of bytes and of notifications,
#: cost of an item, beginning of the keys.
ENQUEUE = """
local listener = redis.call('HGET', KEYS[1], ARGV[1])
if not listener then return 1 end
local used = tonumber(redis.call('HGET', KEYS[3], 'items') or '0') + #ARGV[2] + tonumber(ARGV[5])
local notes = ARGV[6] .. 'notes:' .. listener
if used > tonumber(ARGV[3]) or redis.call('LLEN', notes) >= tonumber(ARGV[4]) then return 10 end
redis.call('HSET', KEYS[3], 'items', used)
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('RPUSH', notes, ARGV[1])
return 0
"""

#: Keys: the queue; listeners by token; room; what the client took last. Arguments: token, number of the
#: attempt, cost of an item, seconds to remember. An attempt whose answer was lost is made
#: again under its number.
DEQUEUE = """
local last = redis.call('HMGET', KEYS[4], 'attempt', 'item')
if last[1] == ARGV[2] then return last[2] end
local item = redis.call('LPOP', KEYS[1])
if not item then
  if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 7 end
  return 1
end
redis.call('HINCRBY', KEYS[3], 'items', -(#item + tonumber(ARGV[3])))
redis.call('HSET', KEYS[4], 'attempt', ARGV[2], 'item', item)
redis.call('EXPIRE', KEYS[4], ARGV[4])
return item
"""

#: Key: the notifications.
NOTES = """
local notes = redis.call('LRANGE', KEYS[1], 0, -1)
if #notes > 0 then redis.call('DEL', KEYS[1]) end
return notes
"""

#: Keys: the metrics; room. Arguments: name with kind and cell; bound.
DEFINE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 1 end
if tonumber(redis.call('HGET', KEYS[2], 'metrics') or '0') >= tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[2], 'metrics', 1)
redis.call('HSET', KEYS[1], ARGV[1], 0)
return 1
"""

#: Key: the metrics. Arguments: name and signed number in turn. HINCRBY does not wrap, so what would be too
#: great or too small goes around in steps that are not.
ADD = """
for n = 1, #ARGV, 2 do
  local done = redis.pcall('HINCRBY', KEYS[1], ARGV[n], ARGV[n + 1])
  if type(done) == 'table' and done.err then
    local steps
    if string.sub(ARGV[n + 1], 1, 1) == '-' then
      steps = {'9223372036854775807', '1', ARGV[n + 1], '9223372036854775807', '1'}
    else
      steps = {'-9223372036854775808', ARGV[n + 1], '-9223372036854775808'}
    end
    for _, step in ipairs(steps) do redis.call('HINCRBY', KEYS[1], ARGV[n], step) end
  end
end
return 0
"""

_R = TypeVar("_R")


class RedisStore(Store):
    """A store in a Redis server. Each process connects for itself, at its first use.

    `address` is what the package `redis` takes, with our option `prefix`. ImportError: it is not installed;
    ValueError: the address makes no sense.
    """

    shared = True

    def __init__(self, address: str, bounds: Bounds | None = None) -> None:
        super().__init__(bounds)
        try:
            import redis
        except ImportError as error:
            raise ImportError(
                f"{error}: `pip install 'pywasmvm[redis]'` brings what stores in Redis need"
            ) from error
        parts = urlsplit(address)
        options = dict(parse_qsl(parts.query))
        self._prefix = options.pop("prefix", "pywasmvm") + ":"
        self._address = urlunsplit(parts._replace(query=urlencode(options)))
        self.name = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # without a password
        self._module = redis
        self._process = 0
        self._client: redis.Redis | None = None
        self._scripts: dict[str, Callable[..., Any]] = {}
        self._connect()  # checks the address, and opens nothing
        key = self._prefix.encode()
        self._data, self._queue = key + b"data:", key + b"queue:"
        self._writes, self._room = key + b"writes", key + b"room"
        self._tokens, self._listeners = key + b"tokens", key + b"listeners"
        self._metrics_key = key + b"metrics"

    # --- the server -----------------------------------------------------------------------------------------

    def _connect(self) -> redis.Redis:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._client = self._module.Redis.from_url(
            self._address,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),  # ours is the only judge of what may be asked twice
            protocol=2,
        )
        self._scripts.clear()
        self._process = os.getpid()
        # Of this process: another one's attempts are not ours.
        self._claim = f"{self._prefix}taken:{uuid.uuid4().hex}".encode()
        self._attempt = 0
        self._unsure: dict[int, int] = {}
        return self._client

    def _try(self, operation: Callable[[redis.Redis], _R], *, again: bool = False) -> _R:
        """Ask the server; once more over a fresh connection if that can do no harm. StoreError."""
        client = self._client
        if client is None or self._process != os.getpid():
            client = self._connect()
        errors = self._module.exceptions
        for last in (False, True) if again else (True,):
            try:
                return operation(client)
            except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
                client.connection_pool.disconnect()
                if last or isinstance(error, errors.TimeoutError | errors.AuthenticationError):
                    raise StoreError(str(error) or type(error).__name__) from None
            except errors.RedisError as error:  # the server refuses: no memory, read only
                raise StoreError(str(error), away=False) from None
        raise AssertionError("the loop ends above")

    def _run(self, script: str, keys: list[bytes], arguments: list[Any], *, again: bool = False) -> Any:
        def operation(client: redis.Redis) -> Any:
            found = self._scripts.get(script)
            if found is None:
                found = self._scripts[script] = client.register_script(script)
            return found(keys=keys, args=arguments)

        return self._try(operation, again=again)

    def check(self) -> None:
        self._try(lambda client: client.ping(), again=True)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    # --- shared data ----------------------------------------------------------------------------------------

    def get(self, scope: bytes, key: bytes) -> tuple[bytes, int] | None:
        place = self._data + _pair(scope, key)
        found: Any = self._try(lambda client: client.get(place), again=True)
        return None if found is None else (found[4:], struct.unpack_from("<I", found)[0])

    def set(self, scope: bytes, key: bytes, value: bytes, cas: int) -> Status:
        keys = [self._data + _pair(scope, key), self._writes, self._room]
        return Status(self._run(SET, keys, [value, cas, self.bounds.shared_data, ENTRY_COST + len(key)]))

    # --- shared queues --------------------------------------------------------------------------------------

    def _notes(self, listener: str) -> bytes:
        return f"{self._prefix}notes:{listener}".encode()

    def register(self, scope: bytes, name: bytes, listener: str) -> int | None:
        keys = [self._tokens, self._listeners, self._room, self._notes(listener)]
        arguments = [_pair(scope, name), listener, self.bounds.queues, self._prefix]
        return self._run(REGISTER, keys, arguments, again=True) or None

    def restore(self, scope: bytes, name: bytes, listener: str, token: int) -> None:
        keys = [self._tokens, self._listeners, self._room, self._notes(listener)]
        arguments = [_pair(scope, name), listener, token, self._prefix, int(token in self._unsure)]
        self._run(RESTORE, keys, arguments, again=True)

    def resolve(self, scope: bytes, name: bytes) -> int | None:
        found: Any = self._try(lambda client: client.hget(self._tokens, _pair(scope, name)), again=True)
        return None if found is None else int(found)

    def enqueue(self, token: int, data: bytes) -> Status:
        bounds = self.bounds
        keys = [self._listeners, self._queue + b"%d" % token, self._room]
        limits = [bounds.queued, bounds.notifications, ENTRY_COST, self._prefix]
        return Status(self._run(ENQUEUE, keys, [token, data, *limits]))

    def dequeue(self, token: int) -> bytes | Status:
        if self._process != os.getpid():
            self._connect()
        attempt = self._unsure.get(token)
        if attempt is None:
            self._attempt += 1
            attempt = self._unsure[token] = self._attempt
        keys = [
            self._queue + b"%d" % token,
            self._listeners,
            self._room,
            self._claim + b":%d" % token,
        ]
        found = self._run(DEQUEUE, keys, [token, attempt, ENTRY_COST, REMEMBERED], again=True)
        del self._unsure[token]
        return found if isinstance(found, bytes) else Status(found)

    def notifications(self, listener: str) -> list[int]:
        return [int(token) for token in self._run(NOTES, [self._notes(listener)], [])]

    # --- metrics --------------------------------------------------------------------------------------------

    def define(self, kind: MetricType, name: bytes) -> bool:
        arguments = [_field((kind, name, 0)), self.bounds.metrics]
        return bool(self._run(DEFINE, [self._metrics_key, self._room], arguments, again=True))

    def add(self, changes: Mapping[Cell, int]) -> None:
        pairs = [part for cell, change in changes.items() for part in (_field(cell), signed(change))]
        for begin in range(0, len(pairs), 1000):
            self._run(ADD, [self._metrics_key], pairs[begin : begin + 1000])

    def assign(self, name: bytes, value: int) -> None:
        field = _field((MetricType.GAUGE, name, 0))
        self._try(lambda client: client.hset(self._metrics_key, field, signed(value)), again=True)

    def value(self, kind: MetricType, name: bytes) -> int:
        field = _field((kind, name, 0))
        found: Any = self._try(lambda client: client.hget(self._metrics_key, field), again=True)
        return int(found or 0) & 0xFFFF_FFFF_FFFF_FFFF

    def metrics(self) -> dict[Cell, int]:
        found: Any = self._try(lambda client: client.hgetall(self._metrics_key), again=True)
        return numbers((field[0], field[2:], field[1], int(value)) for field, value in found.items())


def _pair(scope: bytes, name: bytes) -> bytes:
    """Two texts as one, such that no other two give the same."""
    return b"%d:%b%b" % (len(scope), scope, name)


def _field(cell: Cell) -> bytes:
    kind, name, which = cell
    return bytes((kind, which)) + name
