"""`pywasmvm cache`: what is kept of earlier runs, and where; `pywasmvm cache clear` removes it."""

from __future__ import annotations

import argparse
import datetime
import json
from typing import Any

HELP = "show or clear what is kept of earlier runs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action", nargs="?", choices=("show", "clear"), default="show", help="show (default) or clear"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def report() -> dict[str, Any]:
    """The findings; sizes in bytes, times in UTC."""
    from pywasmvm.cache import folder

    files = folder.files()
    return {
        "folder": folder.folder(),
        "bytes": sum(file.size for file in files),
        "most_bytes": folder.most(),
        "files": [
            {
                "module": file.module,
                "bytes": file.size,
                "used": datetime.datetime.fromtimestamp(file.used, datetime.UTC).isoformat(
                    timespec="seconds"
                ),
                "path": file.path,
            }
            for file in files
        ],
    }


def run(args: argparse.Namespace) -> int:
    """Print it, or remove the files."""
    if args.action == "clear":
        from pywasmvm.cache import folder

        removed = folder.clear()
        print(json.dumps({"removed": removed}) if args.json else f"removed {_count(removed)}")
        return 0
    found = report()
    if args.json:
        print(json.dumps(found, indent=1))
    elif found["folder"] is None:
        print("there is no cache: PYWASMVM_CACHE_DIR is empty, or there is no home folder")
    else:
        print(f"{found['folder']}: {_count(len(found['files']))}")
        print(f"{_megabytes(found['bytes'])} of at most {_megabytes(found['most_bytes'])}")
        for file in found["files"]:
            print(f"  module {file['module'][:16]}  {_megabytes(file['bytes']):>9}  used {file['used']}")
    return 0


def _count(files: int) -> str:
    return "1 file" if files == 1 else f"{files} files"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
