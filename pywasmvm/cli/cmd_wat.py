"""`pywasmvm wat MODULE`: the module in the text format."""

from __future__ import annotations

import argparse

from pywasmvm.cli.source import read_syntax, write

HELP = "print a module in the text format"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", help="a .wasm file; of a .wat file the canonical form is printed")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of printing")


def run(args: argparse.Namespace) -> int:
    """Print it. The module must be well-formed and need not be valid."""
    from pywasmvm.text.printer import print_module

    write(args.output, print_module(read_syntax(args.module)).encode())
    return 0
