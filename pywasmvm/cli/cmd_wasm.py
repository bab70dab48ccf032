"""`pywasmvm wasm MODULE -o FILE`: the module in the binary format."""

from __future__ import annotations

import argparse
import sys

from pywasmvm.cli.source import read_syntax, write

HELP = "turn the text format into a binary"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", help="a .wat file; of a .wasm file the shortest form is written")
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: standard output)")
    parser.add_argument("--no-validation", action="store_true", help="write invalid modules too")


def run(args: argparse.Namespace) -> int:
    """Write it."""
    from pywasmvm.binary.encode import encode
    from pywasmvm.module import validate

    if args.output is None and sys.stdout.isatty():
        print("pywasmvm: a binary is nothing for a terminal: name a file with -o", file=sys.stderr)
        return 2
    syntax = read_syntax(args.module)
    if not args.no_validation:
        validate(syntax)
    write(args.output, encode(syntax))
    return 0
