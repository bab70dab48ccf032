"""`pywasmvm features MODULE`: which proposals a module uses, and where each thing stands first."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pywasmvm.cli.source import read_syntax

if TYPE_CHECKING:
    from pywasmvm.syntax import ModuleSyntax
    from pywasmvm.valid.features import Use

HELP = "show which proposals a module uses, and where"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", help="a .wasm or .wat file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _place(syntax: ModuleSyntax, use: Use) -> str:
    if use.offset is None:
        return use.where
    if syntax.text is None:
        return f"{use.where}, offset {use.offset:#x}"
    from pywasmvm.text.lexer import position

    line, column = position(syntax.text, use.offset)
    return f"{use.where}, line {line}, column {column}"


def run(args: argparse.Namespace) -> int:
    """Print them. The module must be well-formed and need not be valid."""
    from pywasmvm import features
    from pywasmvm.valid.features import uses

    syntax = read_syntax(args.module)
    found: dict[str, list[Use]] = {}
    for use in uses(syntax):
        found.setdefault(use.feature, []).append(use)
    if args.json:
        entries: dict[str, list[dict[str, Any]]] = {
            name: [
                {
                    "what": use.what,
                    "where": use.where,
                    "function": use.function,
                    "offset": use.offset,
                    "count": use.count,
                }
                for use in found.get(name, ())
            ]
            for name in features.DESCRIPTIONS
            if name in found or name == features.MVP
        }
        print(json.dumps({"module": args.module, "features": entries}, indent=1))
        return 0
    print(f"{features.MVP}: {features.DESCRIPTIONS[features.MVP]}")
    for name, description in features.DESCRIPTIONS.items():
        if name not in found:
            continue
        print(f"{name}: {description}")
        for use in found[name]:
            count = "" if use.count == 1 else f" ({use.count} times)"
            print(f"  {use.what}{count}: {_place(syntax, use)}")
    return 0
