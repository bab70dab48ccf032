"""`pywasmvm serve`: run the proxy that an Envoy configuration describes, or only check the configuration.

Ends with 0 after SIGTERM or SIGINT, with 1 when the configuration or the system does not let it start, with 2
for wrong usage. Everything heavy is imported only when the command runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywasmproxy.config.model import Address, Bootstrap
    from pywasmproxy.server.proxy import Proxy

MOST_WORKERS = 256

HELP = "run the reverse proxy of an Envoy configuration"

_LIMIT_FLAGS = {
    "callback-timeout": ("callback_time", "TIME", "how long one callback of a filter may run (1s)"),
    "start-timeout": ("start_time", "TIME", "how long one step of a filter's start-up may run (60s)"),
    "fuel": ("callback_fuel", "N", "instructions one callback may burn (unlimited)"),
    "memory-limit": ("memory_pages", "SIZE", "linear memory of one VM (256MiB)"),
    "table-limit": ("table_elements", "N", "elements in one table of a VM (1000000)"),
    "call-depth": ("call_depth", "N", "nested calls inside a filter (10000)"),
    "recycle-memory": (
        "recycle_memory_share",
        "SHARE",
        "part of the memory limit that brings a fresh VM (75%%)",
    ),
    "recycle-streams": ("recycle_streams", "N", "streams after which a fresh VM takes over (never)"),
}
"""Flag -> (name in the table of limits, placeholder, help). "unlimited" switches a limit off."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("-c", "--config-path", metavar="FILE", help="Envoy configuration in YAML or JSON")
    parser.add_argument("--config-yaml", metavar="TEXT", help="the configuration itself")
    parser.add_argument(
        "--wasm-plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="WasmPlugin objects (of Istio or Higress), before all filters of -c, or alone with --upstream",
    )
    parser.add_argument("--upstream", metavar="HOST:PORT", help="where requests go; instead of -c")
    parser.add_argument(
        "--listen", default="127.0.0.1:10000", metavar="HOST:PORT", help="with --upstream (127.0.0.1:10000)"
    )
    parser.add_argument(
        "-l",
        "--log-level",
        default="info",
        metavar="LEVEL",
        choices=("trace", "debug", "info", "warning", "warn", "error", "critical", "off"),
        help="trace, debug, info (default), warning, error, critical, off",
    )
    parser.add_argument(
        "--component-log-level",
        default="",
        metavar="NAME:LEVEL,...",
        help="levels of single components: main, config, http, filter (TCP), upstream, router, wasm, admin",
    )
    parser.add_argument(
        "--check", action="store_true", help="load the configuration, start its filters once, and end"
    )
    parser.add_argument(
        "--no-watch",
        action="store_true",
        help="load the configuration anew on SIGHUP only, not when one of its files has changed",
    )
    parser.add_argument(
        "--concurrency",
        type=_count,
        default=1,
        metavar="N",
        help="processes on the same ports (1, not one per core as Envoy's threads: each has VMs of "
        "its own, and what filters share then goes through a store)",
    )
    parser.add_argument(
        "--store",
        metavar="STORE",
        help="what keeps shared data, queues and metrics: memory, sqlite:PATH (for the processes of one "
        "host), redis://HOST:PORT/DB (for many); without: memory, or for several workers a file of their own",
    )
    parser.add_argument("--no-cache", action="store_true", help="keep nothing, and use nothing kept")
    parser.add_argument(
        "--drain-time-s",
        type=float,
        default=3.0,
        metavar="N",
        help="seconds that requests in flight get to finish at the end (3)",
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how log lines are written (text)"
    )
    parser.add_argument(
        "--codec", choices=("auto", "h11", "httptools"), default="auto", help="HTTP/1.1 library (auto)"
    )
    parser.add_argument(
        "--loop", choices=("auto", "asyncio", "uvloop"), default="auto", help="event loop (auto)"
    )
    limits = parser.add_argument_group("limits on filters (node.metadata.pywasmvm sets them, too)")
    parser.add_argument(
        "--snapshots",
        metavar="DIR|memory|off",
        help="start VMs from snapshots of initialised ones, kept in a folder or for the life of the process",
    )
    for flag, (_, placeholder, text) in _LIMIT_FLAGS.items():
        limits.add_argument(f"--{flag}", metavar=placeholder, help=text)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_WORKERS:
        raise ValueError(text)
    return number


_count.__name__ = f"number (1 to {MOST_WORKERS})"  # what argparse says it is not


class _Usage(Exception):
    """Options that make no sense."""


def _address(flag: str, written: str) -> Address:
    """`HOST:PORT`; IPv6 addresses stand in brackets."""
    from pywasmproxy.config.model import Address

    host, colon, port = written.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise _Usage(f"{flag}: expected HOST:PORT, found {written!r}")
    return Address(host, int(port))


def _configured(args: argparse.Namespace) -> Bootstrap:
    """What the files and the addresses on the command line say."""
    from pywasmproxy.config import load, load_file
    from pywasmproxy.config.envoy import read_text
    from pywasmproxy.config.wasm_objects import added, holds_objects, load_objects, serving

    objects = [(read_text(path), path) for path in args.wasm_plugin]
    path, inline = args.config_path, args.config_yaml
    if path is not None and inline is None and holds_objects(text := read_text(path), path):
        objects.append((text, path))
        path = None
    if sum(one is not None for one in (path, inline, args.upstream)) != 1:
        if objects:
            raise _Usage(
                "WasmPlugin objects need one of --upstream HOST:PORT, -c FILE and --config-yaml TEXT"
            )
        raise _Usage("give one of -c FILE and --config-yaml TEXT")
    if args.upstream is not None:
        if not objects:
            raise _Usage("--upstream goes with --wasm-plugin FILE")
        found = load_objects(objects)
        files = (*(name for _, name in objects), *found.files)
        upstream, listen = _address("--upstream", args.upstream), _address("--listen", args.listen)
        return dataclasses.replace(serving(found, upstream, listen), files=files)
    bootstrap = load_file(path) if path is not None else load(inline, "--config-yaml")
    if not objects:
        return bootstrap
    both = added(bootstrap, load_objects(objects))
    return dataclasses.replace(both, files=(*both.files, *(name for _, name in objects)))


def _load(args: argparse.Namespace) -> Bootstrap:
    """The configuration with the flags' limits. Raises ConfigError, OSError, _Usage."""
    from pywasmproxy import stores
    from pywasmproxy.config.limits import LimitError, override

    bootstrap = _configured(args)
    limits = bootstrap.limits
    for flag, (name, _, _) in _LIMIT_FLAGS.items():
        value = getattr(args, flag.replace("-", "_"))
        if value is not None:
            try:
                limits = override(limits, name, value)
            except LimitError as error:
                raise _Usage(f"--{flag}: {error.message}") from None
    snapshots = bootstrap.snapshots if args.snapshots is None else args.snapshots
    store = bootstrap.store if args.store is None else args.store
    if store and not stores.known(store):
        raise _Usage(f"--store: a store is {stores.FORMS}, not {store!r}")
    return dataclasses.replace(bootstrap, limits=limits, snapshots=snapshots, store=store)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; the exit status."""
    from pywasmproxy.config import ConfigError
    from pywasmproxy.config.report import report
    from pywasmproxy.server.log import LEVEL_NAMES, Log, parse_component_levels
    from pywasmproxy.server.proxy import Proxy, StartError
    from pywasmvm.cache import folder

    if args.no_cache:
        folder.turn_off()
    try:
        levels = parse_component_levels(args.component_log_level)
    except ValueError as error:
        return _complain(str(error), 2)
    try:
        bootstrap = _load(args)
        log = Log(LEVEL_NAMES[args.log_level], levels, json=args.log_format == "json")
        proxy = Proxy(
            bootstrap,
            log=log,
            codec=None if args.codec == "auto" else args.codec,
            loop=args.loop,
            source=functools.partial(_load, args),
            watch=not args.no_watch,
            drain_time=args.drain_time_s,
        )
        if args.check:
            proxy.check()
            print(report(bootstrap))
        elif args.concurrency == 1:
            proxy.run()
        else:
            return _run_workers(proxy, args.concurrency)
    except _Usage as error:
        return _complain(str(error), 2)
    except (ConfigError, StartError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}", 1)
    except ImportError as error:
        return _complain(f"{error}; `pip install 'pywasmvm[proxy]'` brings what `serve` needs", 1)
    return 0


def _run_workers(proxy: Proxy, count: int) -> int:
    """Serve with several processes where that is possible."""
    from pywasmproxy.server import workers

    if workers.possible():
        return workers.Workers(proxy, count).run()
    proxy.log["main"].warning(f"--concurrency {count}: this system cannot fork, one worker serves")
    proxy.run()
    return 0


def _complain(text: str, status: int) -> int:
    print(f"pywasmvm serve: {text}", file=sys.stderr)
    return status
