"""`pywasmvm validate MODULE ...`: decode or parse, and validate; nothing else."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pywasmvm.cli.source import describe

HELP = "check modules against every rule of the specification"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("modules", nargs="+", metavar="MODULE", help=".wasm or .wat files")
    parser.add_argument(
        "--features", help="which may be used, comma-separated; --features=-simd switches one off"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per module")


def run(args: argparse.Namespace) -> int:
    """Validate each; status 1 if one is not valid."""
    from pywasmvm import InvalidError, MalformedError, Module
    from pywasmvm.features import resolve

    names = None if args.features is None else [n.strip() for n in args.features.split(",") if n.strip()]
    try:
        resolve(names)
    except ValueError as error:
        print(f"pywasmvm: {error}", file=sys.stderr)
        return 2
    status = 0
    for path in args.modules:
        verdict: dict[str, Any] = {"module": path, "valid": True}
        try:
            Module.from_file(path, features=names)
        except (MalformedError, InvalidError) as error:
            status = 1
            kind = "malformed" if isinstance(error, MalformedError) else "invalid"
            verdict |= {"valid": False, "kind": kind, "message": error.message, "offset": error.offset}
            if isinstance(error, InvalidError):
                verdict |= {"function": error.function, "instruction": error.instruction}
            if error.line is not None:
                verdict |= {"line": error.line, "column": error.column}
            if not args.json:
                print(describe(path, error, f"{kind}: "))
        else:
            if not args.json:
                print(f"{path}: valid")
        if args.json:
            print(json.dumps(verdict))
    return status
