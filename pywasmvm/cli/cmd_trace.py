"""`pywasmvm trace MODULE FUNCTION [ARGUMENT ...]`: one line for each instruction of a call."""

from __future__ import annotations

import argparse
import sys

HELP = "call an exported function and print every instruction, the stack, and what changed"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", help="a .wasm or .wat file")
    parser.add_argument("function", help="name of the export")
    parser.add_argument("arguments", nargs="*", help="numbers; integers also in hexadecimal")
    parser.add_argument("--limit", type=int, default=10_000, help="stop after so many lines (10,000)")
    parser.add_argument("--only", metavar="NAME", help="print only what this function does")


def run(args: argparse.Namespace) -> int:
    """Trace it."""
    from pywasmvm import Linker, Module, Trap, WasmException
    from pywasmvm.cli.cmd_call import parse_arguments
    from pywasmvm.debug.tracing import trace
    from pywasmvm.runtime.func import WasmFunc

    module = Module.from_file(args.module)
    instance = Linker(unknown_imports="trap").instantiate(module)
    function = instance.exports.get(args.function)
    if not isinstance(function, WasmFunc):
        offered = ", ".join(n for n, e in instance.exports.items() if isinstance(e, WasmFunc)) or "none"
        print(
            f"pywasmvm: {args.module} exports no function {args.function!r} of its own; functions: {offered}",
            file=sys.stderr,
        )
        return 2
    try:
        values = parse_arguments(function, args.arguments)
    except (ValueError, OverflowError, TypeError) as error:
        print(f"pywasmvm: {args.function} takes ({function.type}): {error}", file=sys.stderr)
        return 2
    lines = 0
    try:
        for step in trace(instance, function, *values):
            if args.only is not None and step.before.function != args.only:
                continue
            if lines >= args.limit:
                print(f"... stopped after {lines} lines (--limit)")
                return 0
            lines += 1
            print(step)
    except (Trap, WasmException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
