"""`pywasmvm filter run FILTER.wasm`: one HTTP exchange through one filter, without any socket.

Shows the headers before and after, what each callback answered, a local response and the filter's log lines.
Exit status 0; 134 when the guest trapped, 1 when it was refused or cannot be read, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import sys

HELP = "run one HTTP exchange through a proxy-wasm filter"

LEVELS = ("trace", "debug", "info", "warn", "error", "critical", "off")

TRAPPED, REFUSED = 134, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pywasmvm filter`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="filter_command")
    run_parser = commands.add_parser("run", help=HELP, description=HELP)
    add = run_parser.add_argument
    add("filter", metavar="FILTER.wasm", help="the filter's module")

    request = run_parser.add_argument_group("the request")
    add = request.add_argument
    add("-H", "--header", action="append", default=[], type=field, metavar="'NAME: VALUE'", help="a header")
    add("--path", default="/", help="default: /")
    add("--method", default=None, help="default: GET, or POST with a body")
    add("--authority", default="localhost", help="default: localhost")
    add("--body", default=None, type=data, metavar="TEXT|@FILE")
    add("--trailer", action="append", default=[], type=field, metavar="'NAME: VALUE'")

    response = run_parser.add_argument_group("the upstream's response")
    add = response.add_argument
    add("--status", type=int, default=200, help="default: 200")
    add("--response-header", action="append", default=[], type=field, metavar="'NAME: VALUE'")
    add("--response-body", default=b"", type=data, metavar="TEXT|@FILE")
    add("--response-trailer", action="append", default=[], type=field, metavar="'NAME: VALUE'")

    plugin = run_parser.add_argument_group("the plugin")
    add = plugin.add_argument
    add("--name", default="", help="plugin name")
    add("--root-id", default="")
    add("--config", default=b"", type=data, metavar="TEXT|@FILE", help="plugin configuration")
    add("--vm-id", default="")
    add("--vm-config", default=b"", type=data, metavar="TEXT|@FILE", help="VM configuration")
    add("--env", action="append", default=[], type=variable, metavar="NAME=VALUE")
    add("--snapshot", metavar="FILE", help="start from what `pywasmvm snapshot` made of the filter")
    add("--allow-on-headers-stop-iteration", action="store_true", help="PAUSE holds the headers only")

    others = run_parser.add_argument_group("limits and output")
    add = others.add_argument
    add("--seconds", type=float, default=5.0, help="time limit of one callback (default: 5)")
    add("--start-seconds", type=float, default=60.0, help="time limit of one start-up call (default: 60)")
    add("--log-level", choices=LEVELS, default="trace", help="least severe log line shown (default: trace)")
    add("--no-cache", action="store_true", help="keep nothing, and use nothing kept")
    add("--json", action="store_true", help="print one JSON object")


def field(text: str) -> tuple[str, str]:
    """A header line given as `name: value`."""
    name, colon, value = text.partition(":") if not text.startswith(":") else _pseudo(text)
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


def _pseudo(text: str) -> tuple[str, str, str]:
    name, colon, value = text[1:].partition(":")
    return ":" + name, colon, value


def data(text: str) -> bytes:
    """Bytes given as text, or as the name of a file behind `@`."""
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        with open(text[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {error.strerror}") from error


def variable(text: str) -> tuple[str, str]:
    """An environment variable given as `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; its exit status."""
    from abi.proxy_wasm.exchange import Exchange, Message, show, to_json
    from abi.proxy_wasm.failures import PluginStartError
    from abi.proxy_wasm.host import MemoryHost
    from abi.proxy_wasm.plugin import Plugin
    from abi.proxy_wasm.types import LogLevel
    from pywasmvm import Snapshot, SnapshotError, StoreLimits
    from pywasmvm.cache import folder

    if args.no_cache:
        folder.turn_off()
    host = MemoryHost(LogLevel[args.log_level.upper()])
    try:
        plugin = Plugin.from_file(
            args.filter,
            name=args.name,
            root_id=args.root_id,
            config=args.config,
            vm_id=args.vm_id,
            vm_config=args.vm_config,
            environment=dict(args.env),
            host=host,
            limits=StoreLimits(seconds=args.seconds),
            start_limits=StoreLimits(seconds=args.start_seconds),
            allow_on_headers_stop_iteration=args.allow_on_headers_stop_iteration,
            snapshot=None if args.snapshot is None else Snapshot.load(args.snapshot),
        )
    except OSError as error:
        print(f"{error.filename or args.filter}: {error.strerror}", file=sys.stderr)
        return REFUSED
    except SnapshotError as error:
        print(f"{args.snapshot}: {error}", file=sys.stderr)
        return REFUSED
    except PluginStartError:
        for record in host.records:
            print(record, file=sys.stderr)
        for line in host.errors:
            print(f"{args.filter}: {line}", file=sys.stderr)
        return REFUSED

    method = args.method or ("GET" if args.body is None else "POST")
    head = [(":authority", args.authority), (":path", args.path), (":method", method), (":scheme", "http")]
    request = Message([*head, *args.header], args.body or b"", args.trailer)
    response = Message(
        [(":status", str(args.status)), *args.response_header], args.response_body, args.response_trailer
    )
    exchange = Exchange(plugin, request, response)
    exchange.run()
    if args.json:
        print(to_json(exchange, host))
    else:
        print(show(exchange, host))
    if exchange.failure is not None:
        print(f"{args.filter}: {exchange.failure}", file=sys.stderr)
        return TRAPPED
    return 0
