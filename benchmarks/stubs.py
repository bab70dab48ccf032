"""The host that all engines get: as little as the filters need to run, the same Python functions for each.

It is no proxy-wasm host (that is `abi`), so that what is compared is the machines.
"""

# The adapter that defines a host function gives it its types (`engines.py`), as each engine wants them.
# mypy: allow-untyped-defs

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.engines import Guest, Imports

OK, NOT_FOUND = 0, 1  # proxy-wasm's
SUCCESS, BAD_FILE = 0, 8  # WASI's


class SeedHost:
    """What the AssemblyScript filter of the example calls.

    It hands out blocks that were allocated before the call, each of exactly the length of what goes into it:
    the filter takes the length of a value from the header of its block, and `pywasm` cannot be entered again
    from a host function.
    """

    guest: Guest

    def __init__(self, configuration: bytes) -> None:
        self.configuration = configuration
        self.blocks: list[int] = []
        self.calls = 0
        self.added: tuple[bytes, bytes] | None = None

    def _give(self, data: bytes, pointer: int, size: int) -> int:
        block, write = self.blocks.pop(), self.guest.write
        write(block, data)
        write(pointer, block.to_bytes(4, "little"))
        write(size, len(data).to_bytes(4, "little"))
        return OK

    def imports(self) -> Imports:
        """Fresh functions, without annotations: an adapter may add some."""

        def proxy_log(level, pointer, size):
            self.calls += 1
            self.guest.read(pointer, size)
            return OK

        def proxy_get_property(path, path_size, pointer, size):
            self.calls += 1
            if self.guest.read(path, path_size) != b"plugin_root_id":
                return NOT_FOUND
            return self._give(b"add_header", pointer, size)

        def proxy_get_buffer_bytes(kind, begin, count, pointer, size):
            self.calls += 1
            return self._give(self.configuration, pointer, size)

        def proxy_set_effective_context(context):
            return OK

        def proxy_add_header_map_value(kind, key, key_size, value, value_size):
            self.calls += 1
            read = self.guest.read
            self.added = read(key, key_size), read(value, value_size)
            return OK

        def proc_exit(code):
            raise SystemExit(f"the filter gave up: {code}")

        functions = {name: f for name, f in locals().items() if name.startswith("proxy_")}
        found = {("env", name): f for name, f in functions.items()}
        return found | {("wasi_unstable", "proc_exit"): proc_exit}


class GoHost:
    """What plugins written in Go call: WASI's clock and random numbers, no arguments, no environment, a
    standard output that nobody reads; a proxy whose getters find nothing and which agrees to all else.
    """

    guest: Guest

    def __init__(self) -> None:
        #: How often each function was called.
        self.calls: defaultdict[str, int] = defaultdict(int)
        #: What the plugin logged.
        self.lines: list[str] = []

    def imports(self) -> Imports:
        """Fresh functions, without annotations: an adapter may add some."""
        calls, guest = self.calls, self

        def number(pointer: int, value: int, size: int = 4) -> None:
            guest.guest.write(pointer, value.to_bytes(size, "little"))

        def clock_time_get(kind, precision, pointer):
            number(pointer, time.time_ns() if kind == 0 else time.monotonic_ns(), 8)
            return SUCCESS

        def random_get(pointer, size):
            # Always the same: a map of Go takes its order from here, and so the number of instructions.
            guest.guest.write(pointer, bytes(i * 151 & 255 for i in range(size)))
            return SUCCESS

        def nothing_of(count, size):
            number(count, 0)
            number(size, 0)
            return SUCCESS

        def args_sizes_get(count, size):
            return nothing_of(count, size)

        def environ_sizes_get(count, size):
            return nothing_of(count, size)

        def args_get(table, texts):
            return SUCCESS

        def environ_get(table, texts):
            return SUCCESS

        def fd_write(file, vectors, count, written):
            total = 0
            for place in range(vectors, vectors + 8 * count, 8):
                begin, size = (int.from_bytes(guest.guest.read(place + k, 4), "little") for k in (0, 4))
                guest.lines.append(guest.guest.read(begin, size).decode("utf-8", "replace"))
                total += size
            number(written, total)
            return SUCCESS

        def proc_exit(code):
            raise SystemExit(f"the plugin gave up: {code}\n" + "".join(self.lines))

        def sched_yield():
            return SUCCESS

        def poll_oneoff(subscriptions, events, count, happened):
            number(happened, count)
            return SUCCESS

        def proxy_log(level, pointer, size):
            calls["proxy_log"] += 1
            self.lines.append(guest.guest.read(pointer, size).decode("utf-8", "replace"))
            return OK

        wasi: dict[str, Callable[..., Any]] = {
            f.__name__: f
            for f in (
                *(clock_time_get, random_get, args_sizes_get, environ_sizes_get, args_get, environ_get),
                *(fd_write, proc_exit, sched_yield, poll_oneoff),
            )
        }
        for name, count in _FILES.items():
            wasi[name] = _answer(name, count, BAD_FILE, calls)
        proxy: dict[str, Callable[..., Any]] = {"proxy_log": proxy_log}
        for name, count in _PROXY.items():
            proxy[name] = _answer(name, count, NOT_FOUND if name in _GETTERS else OK, calls)
        return {("wasi_snapshot_preview1", name): f for name, f in wasi.items()} | {
            ("env", name): f for name, f in proxy.items()
        }


#: Functions that only answer, by the number of their parameters.
_FILES = {
    "fd_close": 1,
    "fd_read": 4,
    "path_filestat_get": 5,
    "path_open": 9,
    "fd_fdstat_get": 2,
    "fd_fdstat_set_flags": 2,
    "fd_prestat_get": 2,
    "fd_prestat_dir_name": 3,
}
_PROXY = {
    "proxy_get_header_map_value": 5,
    "proxy_add_header_map_value": 5,
    "proxy_replace_header_map_value": 5,
    "proxy_remove_header_map_value": 3,
    "proxy_get_header_map_pairs": 3,
    "proxy_set_header_map_pairs": 3,
    "proxy_get_buffer_bytes": 5,
    "proxy_set_buffer_bytes": 5,
    "proxy_call_foreign_function": 6,
    "proxy_set_tick_period_milliseconds": 1,
    "proxy_set_effective_context": 1,
    "proxy_get_property": 4,
    "proxy_set_property": 4,
    "proxy_send_local_response": 8,
    "proxy_get_shared_data": 5,
    "proxy_set_shared_data": 5,
    "proxy_continue_stream": 1,
    "proxy_http_call": 10,
    "proxy_define_metric": 4,
    "proxy_increment_metric": 2,
}


#: What would give something back. (`get_log_level` is a foreign function.)
_GETTERS = {name for name in _PROXY if "_get_" in name} | {"proxy_call_foreign_function"}


def _answer(name: str, count: int, status: int, calls: defaultdict[str, int]) -> Callable[..., int]:
    """A function of so many parameters that always answers the same: engines look at how many there are."""

    def told(*arguments: int) -> int:
        calls[name] += 1
        return status

    names = ", ".join(f"p{k}" for k in range(count))
    made: Callable[..., int] = eval(f"lambda {names}: told({names})", {"told": told})
    return made
