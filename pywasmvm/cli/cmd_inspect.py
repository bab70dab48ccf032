"""`pywasmvm inspect MODULE`: sections, imports, exports, sizes, proposals used; or a listing of the code.

What a layer above the VM knows about a module (its ABI, say) comes through the entry points of the group
`pywasmvm.inspectors`: functions from a Module to a mapping of title to text or list.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmvm.module import Module

HELP = "show what a module consists of: sections, imports, exports, sizes, features"

GROUP = "pywasmvm.inspectors"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", help="a .wasm file, or a .wat file: then its binary is shown")
    parser.add_argument(
        "--instructions", action="store_true", help="list the code instead: offset, bytes, instruction"
    )
    parser.add_argument(
        "--python", action="store_true", help="list the Python that the translator makes of the code"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def describe(module: Module) -> dict[str, Any]:
    """Everything about a module that the VM itself knows, ready for JSON."""
    from pywasmvm.runtime.instantiate import describe as type_text
    from pywasmvm.valid.features import features_used

    syntax = module.syntax
    return {
        "module": module.name,
        "bytes": len(syntax.source),
        "sections": [
            {"id": s.id, "name": s.name, "offset": s.start, "bytes": s.end - s.start} for s in syntax.sections
        ],
        "imports": [
            {"module": i.module, "name": i.name, "type": type_text(i.type)} for i in module.import_list
        ],
        "exports": [{"name": name, "type": type_text(t)} for name, t in module.exports.items()],
        "functions": len(module.context.functions),
        "code_bytes": sum(e - s for s, e in zip(syntax.body_start, syntax.body_end, strict=True)),
        "data_segments": len(syntax.data),
        "data_bytes": sum(syntax.data.length),
        "start": None if syntax.start is None else module.function_name(syntax.start),
        "features": features_used(syntax),
    }


def _more(module: Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in metadata.entry_points(group=GROUP):
        try:
            said = entry.load()(module)
        except ImportError as error:
            print(f"pywasmvm: {entry.name}: {error}", file=sys.stderr)
            continue
        if said:
            found[entry.name] = said
    return found


def _print(title: str, value: Any, indent: str = "") -> None:
    if isinstance(value, dict):
        print(f"{indent}{title}:")
        for key, item in value.items():
            _print(str(key), item, indent + "  ")
    elif isinstance(value, list | tuple):
        print(f"{indent}{title}: {'none' if not value else ''}".rstrip())
        for item in value:
            print(f"{indent}  {item}")
    else:
        print(f"{indent}{title}: {value}")


def _list(module: Module, as_json: bool) -> int:
    from pywasmvm.debug.disassembly import Disassembler

    listing = Disassembler(module.syntax)
    if not as_json:
        for index in range(len(module.functions)):
            print(
                *listing.listing(index), sep="\n", end="\n\n" if index + 1 < len(module.functions) else "\n"
            )
        return 0
    functions = [
        {
            "index": index,
            "title": listing.title(index),
            "instructions": [
                {"offset": line.offset, "bytes": line.encoding.hex(), "depth": line.depth, "text": line.text}
                for line in listing.lines(index)
            ],
        }
        for index in range(len(module.functions))
    ]
    print(json.dumps({"module": module.name, "functions": functions}, indent=1))
    return 0


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from pywasmvm import Module

    module = Module.from_file(args.module, validate="lazy")
    if module.syntax.text is not None:
        module = Module(module.to_bytes(), validate="lazy", name=module.name)
    if args.python:
        from pywasmvm.debug import disassemble

        print(disassemble(module, translated=True))
        return 0
    if args.instructions:
        return _list(module, args.json)
    facts = describe(module) | _more(module)
    if args.json:
        print(json.dumps(facts, indent=1, default=str))
        return 0
    facts["sections"] = [f"{s['offset']:#08x} {s['bytes']:>9}  {s['name']}" for s in facts["sections"]]
    facts["imports"] = [f"{i['module']}.{i['name']}: {i['type']}" for i in facts["imports"]]
    facts["exports"] = [f"{e['name']}: {e['type']}" for e in facts["exports"]]
    facts["features"] = ", ".join(facts["features"])
    for title, value in facts.items():
        _print(title.replace("_", " "), value)
    return 0
