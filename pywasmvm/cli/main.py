"""Finds sub-commands and runs one.

Commands are modules named by the entry points of the group `pywasmvm.commands`, so that the layers above
(and other packages) add theirs without being imported from here. A command module has `HELP` (one line),
`configure(parser)` and `run(args) -> exit status`, and imports nothing heavy until it runs.

Exit status: 0 fine, 1 an error (the message is on stderr), 2 wrong usage, 134 the guest trapped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType

from pywasmvm._version import __version__
from pywasmvm.cli.source import describe
from pywasmvm.errors import InvalidError, MalformedError, Trap, WasmError

GROUP = "pywasmvm.commands"

EXIT_ERROR, EXIT_USAGE, EXIT_TRAP = 1, 2, 134

#: The VM's own commands, for a source tree that was never installed and so has no entry points.
_OWN = {
    name: f"pywasmvm.cli.cmd_{name}"
    for name in [
        "call",
        "inspect",
        "validate",
        "wat",
        "wasm",
        "features",
        "wast",
        "trace",
        "doctor",
        "cache",
        "snapshot",
    ]
}


def commands() -> dict[str, str]:
    """Name -> module of every command there is."""
    found = dict(_OWN)
    for entry in metadata.entry_points(group=GROUP):
        found[entry.name] = entry.value
    return dict(sorted(found.items()))


def _load(name: str, module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"pywasmvm: the command {name} cannot be loaded: {error}", file=sys.stderr)
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    parser = argparse.ArgumentParser(prog="pywasmvm", description="A WebAssembly virtual machine in Python.")
    parser.add_argument("--version", action="version", version=f"pywasmvm {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the chosen command is imported; the listing needs every command's line of help.
    chosen = [name for name in known if arguments[:1] == [name]] or list(known)
    loaded: dict[str, ModuleType] = {}
    for name in chosen:
        module = _load(name, known[name])
        if module is not None:
            loaded[name] = module
            module.configure(subparsers.add_parser(name, help=module.HELP, description=module.HELP))
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    try:
        status: int = loaded[args.command].run(args)
        sys.stdout.flush()
        return status
    except Trap as trap:
        print(f"pywasmvm: trap: {trap}", file=sys.stderr)
        return EXIT_TRAP
    except WasmError as error:
        source = getattr(args, "module", None)
        if not isinstance(source, str):
            print(f"pywasmvm: {error}", file=sys.stderr)
        elif isinstance(error, MalformedError | InvalidError):
            print(f"pywasmvm: {describe(source, error)}", file=sys.stderr)
        else:
            print(f"pywasmvm: {source}: {error}", file=sys.stderr)
        return EXIT_ERROR
    except BrokenPipeError:
        # The reader of our output left early (`| head`): nothing more to say, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except MemoryError as error:
        print(f"pywasmvm: {error or 'out of memory'}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"pywasmvm: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
