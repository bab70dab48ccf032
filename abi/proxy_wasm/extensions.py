"""Host functions and callbacks that other packages bring: found through an entry point, linked like our own.

A package that knows more of an ABI than this one (another proxy's own calls, say) names an `Extension` under
the entry point group `abi.proxy_wasm`; `abi.higress` is one. What its functions ask for leaves as subclasses
of `deferred.CallOut`, and answers come back through `Plugin.deliver`, or as subclasses of
`deferred.StreamEffect`; the proxy finds who carries them out in the same way (`pywasmproxy.server.callouts`,
`...filters`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from abi.proxy_wasm.contexts import Context
    from abi.proxy_wasm.foreign import ForeignFunction
    from abi.proxy_wasm.versions import AbiVersion, Callback, HostFunction

ENTRY_POINTS = "abi.proxy_wasm"


@dataclass(frozen=True, slots=True)
class Extension:
    """What a package adds: versions of the ABI (each may be based on one of ours), host functions, callbacks,
    and buffer types of those versions, which are empty unless an answer brings them (`callouts.Answer`). What
    we have already is not replaced.

    Guests of those versions find `foreign_functions`, too, and an exchange's property that is a key of
    `commands` means something when they set it: the function is called with the context and the value.
    """

    functions: tuple[HostFunction, ...] = ()
    callbacks: tuple[Callback, ...] = ()
    versions: tuple[AbiVersion, ...] = ()
    buffers: frozenset[int] = frozenset()
    foreign_functions: Mapping[str, ForeignFunction] = field(default_factory=dict)
    commands: Mapping[bytes, Callable[[Context, bytes], None]] = field(default_factory=dict)


@cache
def extensions() -> tuple[Extension, ...]:
    """All that are installed; looked for once, and only when a module wants what we do not have."""
    import importlib.metadata  # starts without it are faster

    return tuple(entry.load() for entry in importlib.metadata.entry_points(group=ENTRY_POINTS))


def extensions_of(version: AbiVersion) -> Iterator[Extension]:
    """Those that bring this version."""
    return (extension for extension in extensions_in_use() if version in extension.versions)


def extensions_in_use() -> tuple[Extension, ...]:
    """All that are installed, if a module wanted something of theirs."""
    return extensions() if extensions.cache_info().currsize else ()
