"""Random valid modules from `wasm-tools smith`: the features this VM runs, always terminating."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import tempfile
from pathlib import Path

from tests.support.wat import wasm_tools

#: NaN bits of computations are open in the specification, so the modules make them canonical themselves.
CONFIG = {
    "export-everything": True,
    "canonicalize-nans": True,
    "allow-start-export": True,
    "min-funcs": 2,
    "max-funcs": 12,
    "max-instructions": 150,
    "max-imports": 0,
    "max-memories": 1,
    "min-memories": 1,
    "max-tables": 3,
    "min-tables": 1,
    "max-memory32-bytes": 1 << 20,
    "max-table-elements": 100,
    "min-data-segments": 1,
    "min-element-segments": 1,
    "max-data-segments": 5,
    "max-element-segments": 5,
    "max-globals": 10,
    "min-globals": 1,
    "bulk-memory-enabled": True,
    "multi-value-enabled": True,
    "reference-types-enabled": True,
    "saturating-float-to-int-enabled": True,
    "sign-extension-ops-enabled": True,
    "simd-enabled": False,
    "relaxed-simd-enabled": False,
    "memory64-enabled": False,
    "gc-enabled": False,
    "exceptions-enabled": False,
    "tail-call-enabled": False,
    "threads-enabled": False,
    "shared-everything-threads-enabled": False,
    "custom-page-sizes-enabled": False,
    "wide-arithmetic-enabled": False,
    "extended-const-enabled": False,
    "custom-descriptors-enabled": False,
    "compact-imports-enabled": False,
}


@functools.cache
def smith(seed: int, size: int = 3000) -> bytes:
    """The module grown from `size` random bytes: always the same one for a seed, with one tool version."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(CONFIG))
        done = subprocess.run(
            [wasm_tools(), "smith", "--ensure-termination", "--fuel", "300", "--config", str(config)],
            input=random.Random(seed).randbytes(size),
            capture_output=True,
        )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return done.stdout
