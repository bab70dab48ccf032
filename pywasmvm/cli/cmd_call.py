"""`pywasmvm call MODULE FUNCTION [ARGUMENT ...]`: call one exported function."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmvm.runtime.func import Func

HELP = "call an exported function and print its results"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", help="a .wasm file")
    parser.add_argument("function", help="name of the export")
    parser.add_argument("arguments", nargs="*", help="numbers; integers also in hexadecimal")
    parser.add_argument("--fuel", type=int, help="stop after this many instructions")
    parser.add_argument("--seconds", type=float, help="stop after this much wall-clock time")
    parser.add_argument("--memory-pages", type=int, help="most pages of 64 KiB the guest may have")
    parser.add_argument("--engine", default="auto", help="auto (default), interp, translate, translate-flat")
    parser.add_argument("--snapshot", metavar="FILE", help="begin from what `pywasmvm snapshot` made")
    parser.add_argument("--no-cache", action="store_true", help="keep nothing, and use nothing kept")
    parser.add_argument("--json", action="store_true", help="print a JSON object with the list of results")


def _number(text: str, type_name: str) -> int | float:
    return int(text, 0) if type_name.startswith("i") else float(text)


def parse_arguments(function: Func, words: list[str]) -> list[int | float]:
    """Words of a command line as arguments. Raises ValueError for what is no number, or for their count."""
    return [_number(word, type_.name) for word, type_ in zip(words, function.type.params, strict=True)]


def _printable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinities
    return value if isinstance(value, int | float) or value is None else repr(value)


def run(args: argparse.Namespace) -> int:
    """Call it."""
    from pywasmvm import Func, Linker, Module, Snapshot, Store, StoreLimits

    module = Module.from_file(args.module, cache=not args.no_cache)
    defaults = StoreLimits()
    pages = defaults.memory_pages if args.memory_pages is None else args.memory_pages
    try:
        store = Store(
            StoreLimits(memory_pages=pages, fuel=args.fuel, seconds=args.seconds), engine=args.engine
        )
    except ValueError as error:
        print(f"pywasmvm: {error}", file=sys.stderr)
        return 2
    snapshot = None if args.snapshot is None else Snapshot.load(args.snapshot)
    instance = Linker(unknown_imports="trap").instantiate(module, store, snapshot=snapshot)
    function = instance.exports.get(args.function)
    if not isinstance(function, Func):
        offered = ", ".join(n for n, e in instance.exports.items() if isinstance(e, Func)) or "none"
        print(
            f"pywasmvm: {args.module} exports no function {args.function!r}; functions: {offered}",
            file=sys.stderr,
        )
        return 2
    try:
        values = parse_arguments(function, args.arguments)
        result = function(*values)
    except (ValueError, OverflowError, TypeError) as error:
        print(f"pywasmvm: {args.function} takes ({function.type}): {error}", file=sys.stderr)
        return 2
    results = [] if result is None and not function.type.results else [result]
    if isinstance(result, tuple):
        results = list(result)
    if args.json:
        print(json.dumps({"results": [_printable(r) for r in results], "fuel_left": store.fuel_left}))
    else:
        for value in results:
            print(_printable(value))
    return 0
