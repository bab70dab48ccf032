"""Where fuzzed modules come from: `wasm-tools smith` for valid ones, its mutator and flipped bytes for
damaged ones. Everything follows from a seed and the version of the tool.
"""

from __future__ import annotations

import functools
import json
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.wat import wasm_tools

#: All of 3.0, and nothing that came after it.
FEATURES: dict[str, Any] = {
    "bulk-memory-enabled": True,
    "multi-value-enabled": True,
    "reference-types-enabled": True,
    "saturating-float-to-int-enabled": True,
    "sign-extension-ops-enabled": True,
    "simd-enabled": True,
    "relaxed-simd-enabled": True,
    "memory64-enabled": True,
    "gc-enabled": True,
    "exceptions-enabled": True,
    "tail-call-enabled": True,
    "extended-const-enabled": True,
    "threads-enabled": False,
    "shared-everything-threads-enabled": False,
    "custom-page-sizes-enabled": False,
    "wide-arithmetic-enabled": False,
    "custom-descriptors-enabled": False,
    "compact-imports-enabled": False,
}

#: Any module at all.
SHAPE: dict[str, Any] = {
    **FEATURES,
    "max-memories": 4,
    "max-tables": 4,
    "max-tags": 4,
    "max-instructions": 200,
}

#: Modules that can be run: no imports, small memories, everything exported.
RUNNABLE: dict[str, Any] = {
    **FEATURES,
    "export-everything": True,
    "allow-start-export": True,
    "max-imports": 0,
    "min-funcs": 3,
    "max-funcs": 12,
    "max-instructions": 200,
    "min-memories": 1,
    "max-memories": 3,
    "max-memory32-bytes": 1 << 20,
    "max-memory64-bytes": 1 << 20,
    "memory-max-size-required": True,
    "max-tables": 3,
    "min-tables": 1,
    "max-table-elements": 100,
    "table-max-size-required": True,
    "min-data-segments": 1,
    "max-data-segments": 5,
    "min-element-segments": 1,
    "max-element-segments": 5,
    "min-globals": 1,
    "max-globals": 10,
    "min-types": 6,
    "max-tags": 3,
}


@functools.cache
def smith(seed: int, *, run: bool = False) -> bytes:
    """The valid module of a seed; with `run` one that can be run, and ends."""
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(RUNNABLE if run else SHAPE))
        options = ["--ensure-termination", "--fuel", "500"] if run else []
        done = subprocess.run(
            [wasm_tools(), "smith", *options, "--config", str(config)],
            input=source.randbytes(source.choice([300, 1000, 3000, 6000])),
            capture_output=True,
        )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return done.stdout


def mutant(seed: int, originals: list[bytes]) -> bytes:
    """One of the originals, changed: by the mutator of wasm-tools, or in one to three places of its bytes."""
    source = random.Random(seed)
    original = source.choice(originals)
    if seed % 4 == 0:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.wasm"
            path.write_bytes(original)
            done = subprocess.run(
                [wasm_tools(), "mutate", "--seed", str(seed), str(path)], capture_output=True
            )
        if done.returncode == 0:
            return done.stdout  # some modules offer nothing that could be mutated: those are flipped
    return flipped(original, source)


_TELLING = [0x00, 0x01, 0x05, 0x0B, 0x1F, 0x40, 0x4E, 0x50, 0x5E, 0x60, 0x63, 0x64, 0x6E, 0x70, 0x7B, 0x7F]
_TELLING += [0x80, 0xD0, 0xD5, 0xFB, 0xFC, 0xFD, 0xFF]


def flipped(original: bytes, source: random.Random) -> bytes:
    """The bytes with one to three faults."""
    data = bytearray(original)
    for _ in range(source.choice([1, 1, 1, 2, 3])):
        place = source.randrange(8 if source.random() < 0.95 else 0, max(len(data), 9))
        other = source.randrange(max(len(data), 1))
        match source.randrange(7):
            case 0 if place < len(data):
                data[place] ^= 1 << source.randrange(8)
            case 1 if place < len(data):
                data[place] = source.randrange(256)
            case 2 if place < len(data):
                data[place] = source.choice(_TELLING)
            case 3:
                del data[place : place + source.randrange(1, 5)]
            case 4:
                data[place:place] = source.randbytes(source.randrange(1, 4))
            case 5 if place < len(data) and other < len(data):
                data[place] = data[other]
            case _:
                data[place : place + 4] = data[other : other + 4]
    return bytes(data)
