"""`pywasmvm snapshot MODULE -o FILE`: initialise a module once and keep what it has become; `--show FILE`.

A module that a layer above the VM hosts (a filter, say) is started by that layer, as it starts it in earnest:
through the entry points of the group `pywasmvm.starters`, functions from a Module, environment variables and
limits to a Snapshot, or None for a module that is not theirs. Others are instantiated without imports, and
`_initialize` is called where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmvm.module import Module
    from pywasmvm.runtime.limits import StoreLimits
    from pywasmvm.runtime.snapshot import Snapshot

HELP = "initialise a module once and keep its memory, globals and tables in a file"

GROUP = "pywasmvm.starters"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", nargs="?", help="a .wasm file")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write the snapshot")
    parser.add_argument(
        "--invoke",
        action="append",
        metavar="NAME",
        help="call this export, without arguments; may be repeated. Then nobody else starts the module",
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME=VALUE",
        help="what the module shall see of its environment; it fits starts with the same only",
    )
    parser.add_argument("--seconds", type=float, help="stop each call after this much wall-clock time")
    parser.add_argument("--memory-pages", type=int, help="most pages of 64 KiB the guest may have")
    parser.add_argument("--show", metavar="FILE", help="say what is in a snapshot instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """What a snapshot holds, ready for JSON."""
    return {
        "module": snapshot.module.hex(),
        "key": snapshot.key.hex(),
        "bytes": len(snapshot.to_bytes()),
        "memories": [{"pages": memory.pages, "kept_bytes": memory.kept} for memory in snapshot.memories],
        "globals": len(snapshot.globals),
        "tables": [table.size for table in snapshot.tables],
        "dropped_data_segments": list(snapshot.dropped_data),
        "dropped_element_segments": list(snapshot.dropped_elems),
    }


def _print(facts: dict[str, Any]) -> None:
    facts["memories"] = [f"{m['pages']} pages, {m['kept_bytes']} bytes not zero" for m in facts["memories"]]
    facts["tables"] = [f"{size} elements" for size in facts["tables"]]
    for title, value in facts.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        print(f"{title.replace('_', ' ')}: {shown if shown != '' else 'none'}")


def _started(module: Module, environment: dict[str, str], limits: StoreLimits) -> Snapshot | None:
    """What the layer above that hosts such modules makes of this one."""
    for entry in metadata.entry_points(group=GROUP):
        try:
            start = entry.load()
        except ImportError as error:
            print(f"pywasmvm: {entry.name}: {error}", file=sys.stderr)
            continue
        found: Snapshot | None = start(module, environment, limits)
        if found is not None:
            return found
    return None


def _invoked(module: Module, names: list[str], limits: StoreLimits) -> Snapshot | None:
    """Instantiate, and call exports; None, with a message, when one cannot be called so."""
    from pywasmvm import Func, Linker, Snapshot, Store

    instance = Linker(unknown_imports="trap").instantiate(module, Store(limits))
    for name in names:
        function = instance.exports.get(name)
        if not isinstance(function, Func) or function.type.params:
            print(f"pywasmvm: there is no export {name!r} that takes no arguments", file=sys.stderr)
            return None
        function()
    return Snapshot.take(instance)


def run(args: argparse.Namespace) -> int:
    """Make one, or show one."""
    from pywasmvm import Module, Snapshot, StoreLimits

    if (args.show is None) == (args.module is None) or (args.module is None) != (args.output is None):
        print("pywasmvm: give MODULE and -o FILE, or --show FILE", file=sys.stderr)
        return 2
    if args.show is not None:
        snapshot = Snapshot.load(args.show)
    else:
        pages = StoreLimits().memory_pages if args.memory_pages is None else args.memory_pages
        try:
            limits = StoreLimits(memory_pages=pages, seconds=args.seconds)
        except ValueError as error:
            print(f"pywasmvm: {error}", file=sys.stderr)
            return 2
        module = Module.from_file(args.module, validate="lazy")
        made = None if args.invoke else _started(module, dict(args.env), limits)
        if made is None:
            if args.env:
                print("pywasmvm: --env is for modules that have a host, such as filters", file=sys.stderr)
                return 2
            usual = ["_initialize"] if "_initialize" in module.exports else []
            made = _invoked(module, args.invoke or usual, limits)
        if made is None:
            return 2
        snapshot = made
        snapshot.save(args.output)
    facts = describe(snapshot)
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts)
    return 0
