"""`proxy_call_foreign_function`: functions of the host that are no part of the ABI, called by name.

Source: proxy-wasm specification 0.2.1, "Foreign function interface"; an unknown name leaves the outputs
untouched, a function that fails has them written with 0 (Envoy 1.40, measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import Bytes, OptionalBytes, OutStatus, proxy_call
from abi.proxy_wasm.foreign import find
from abi.proxy_wasm.types import Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


@proxy_call
def proxy_call_foreign_function(
    vm: Vm, name: Bytes, arguments: Bytes
) -> Status | tuple[OutStatus, OptionalBytes]:
    """Call one. NOT_FOUND when there is none of this name; else its own status, and its result."""
    function = find(vm, name.decode("utf-8", "surrogateescape"))
    if function is None:
        return Status.NOT_FOUND
    answer = function(vm.active, arguments)
    if isinstance(answer, Status):
        return answer, b""
    return Status.OK, b"" if answer is None else answer
