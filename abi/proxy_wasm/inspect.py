"""What the ABI layer knows about a module, for `pywasmvm inspect`.

Reads the tables of `versions.py` only: nothing of the module is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywasmvm import Module


def describe(module: Module) -> dict[str, object]:
    """ABI version, callbacks, host calls used, and what would keep the module from working here.

    Empty for a module that is no proxy-wasm filter. `unbuilt` are calls that only answer UNIMPLEMENTED, with
    the reason; `problems` are the texts with which a host would refuse the module.
    """
    from abi.proxy_wasm.failures import MISSING_MALLOC
    from abi.proxy_wasm.linking import export_errors, exported_functions, import_errors, version_of
    from abi.proxy_wasm.versions import WASI_MODULES, callbacks, host_function
    from abi.proxy_wasm.vm import ALLOCATORS

    version = version_of(module)
    if version is None:
        return {}
    known = callbacks(version)
    exports = exported_functions(module)
    rows = [(item, host_function(version, item.module, item.name)) for item in module.import_list]
    used = [item for item, row in rows if row is not None]
    problems = [*import_errors(module, version), *export_errors(module, version)]
    if not any(name in exports for name in ALLOCATORS):
        problems.append(MISSING_MALLOC)
    return {
        "abi_version": str(version),
        "callbacks": [name for name in exports if name in known],
        "host_calls": [item.name for item in used if item.module not in WASI_MODULES],
        "wasi_calls": [item.name for item in used if item.module in WASI_MODULES],
        "problems": problems,
    }
