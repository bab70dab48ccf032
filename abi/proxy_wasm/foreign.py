"""Foreign functions: the host's own functions, which guests call by name with bytes for bytes.

Four places are looked at: what the embedder gave (`Vm(foreign_functions=...)`), those of Envoy that make
sense here (`BUILT_IN`), those of the extension that the guest's version of the ABI is from, and what other
packages bring under the entry point group `abi.proxy_wasm.foreign_functions`, where an entry's name is the
function's. Statuses and results are as measured on Envoy 1.40, but for one thing: an empty result is address
0 and size 0 here, because the allocators of some guests cannot give an empty block. `sign` and
`verify_signature` are not there: they need a library for public keys.
"""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, TypeAlias

from abi.proxy_wasm.extensions import extensions_of
from abi.proxy_wasm.filter_state import WELL_KNOWN, Declaration, LifeSpan
from abi.proxy_wasm.protobuf import read_fields
from abi.proxy_wasm.types import Status
from pywasmvm import Trap

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from abi.proxy_wasm.contexts import Context
    from abi.proxy_wasm.vm import Vm

ForeignFunction: TypeAlias = Callable[["Context", bytes], bytes | Status | None]
"""Gets the context it acts on (its plugin, its exchange's facts) and the arguments; gives a result, None for
an empty one, or the status of a failure. It runs while the guest waits, so it must be quick. An exception is
reported and becomes INTERNAL_FAILURE, but a `pywasmvm.Trap` ends the guest."""

ENTRY_POINTS = "abi.proxy_wasm.foreign_functions"

MAX_UNCOMPRESSED = 1 << 26
"""Most bytes that `uncompress` gives (64 MiB, as much as a body can have); more is INTERNAL_FAILURE."""

PIECE = 1 << 20
"""Bytes that are compressed, or come out of what is uncompressed, between two looks at the time."""

MAX_DECLARED = 1024
"""Properties that one context may declare."""

MAX_NAME = 1 << 10
"""Bytes of the name of a declared property."""


def find(vm: Vm, name: str) -> ForeignFunction | None:
    """The function of a name; None when there is none."""
    given = vm.foreign_functions.get(name)
    if given is not None:
        return _guarded(name, lambda: given)
    if name in BUILT_IN:
        return BUILT_IN[name]
    for extension in extensions_of(vm.version):
        theirs = extension.foreign_functions.get(name)
        if theirs is not None:
            return _guarded(name, partial(_itself, theirs))
    entry = _installed().get(name)
    return None if entry is None else _guarded(name, entry.load)


def _itself(function: ForeignFunction) -> ForeignFunction:
    return function


@cache
def _installed() -> Mapping[str, EntryPoint]:
    import importlib.metadata  # starts without it are faster

    return {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _guarded(name: str, load: Callable[[], ForeignFunction]) -> ForeignFunction:
    """A function that is not ours: its faults are not the guest's, nor are those of the package it is in."""

    def guarded(context: Context, arguments: bytes) -> bytes | Status | None:
        try:
            answer = load()(context, arguments)
            if not isinstance(answer, bytes | Status | None):
                raise TypeError(f"it gave {type(answer).__name__}, not bytes, a Status or None")
        except Trap:
            raise
        except Exception:
            context.vm.host.error(f"foreign function {name} failed: {traceback.format_exc().rstrip()}")
            return Status.INTERNAL_FAILURE
        return answer

    return guarded


# --- compression ------------------------------------------------------------------------------------------


def compress(context: Context, arguments: bytes) -> bytes:
    """A zlib stream of the arguments."""
    work = zlib.compressobj()
    out = []
    for at in range(0, len(arguments), PIECE):
        out.append(work.compress(arguments[at : at + PIECE]))
        context.vm.store.check_deadline()
    return b"".join(out) + work.flush()


def uncompress(context: Context, arguments: bytes) -> bytes | Status:
    """What a zlib stream holds; bytes behind its end do not matter."""
    work = zlib.decompressobj()
    out: list[bytes] = []
    size, rest = 0, arguments
    try:
        while not work.eof:
            piece = work.decompress(rest, PIECE)
            if not piece and not work.eof:  # cut off
                return Status.SERIALIZATION_FAILURE
            rest = work.unconsumed_tail
            size += len(piece)
            if size > MAX_UNCOMPRESSED:
                return Status.INTERNAL_FAILURE
            out.append(piece)
            context.vm.store.check_deadline()
    except zlib.error:
        return Status.SERIALIZATION_FAILURE
    return b"".join(out)


# --- the exchange -----------------------------------------------------------------------------------------


def clear_route_cache(context: Context, arguments: bytes) -> None:
    """Choose the route again; nothing outside of an exchange."""
    context.clear_route_cache()


class _Message:
    """A protobuf message of a guest's: the last field of each number counts. ValueError when it is none."""

    def __init__(self, data: bytes) -> None:
        self._fields = dict(read_fields(data))

    def data(self, number: int) -> bytes:
        value = self._fields.get(number, b"")
        if not isinstance(value, bytes):
            raise ValueError(f"field {number} is a number")
        return value

    def number(self, number: int) -> int:
        value = self._fields.get(number, 0)
        if isinstance(value, bytes):
            raise ValueError(f"field {number} is no number")
        return value

    def span(self, number: int) -> LifeSpan:
        """Numbers that mean nothing are the shortest life, as in Envoy."""
        value = self.number(number)
        return LifeSpan(value) if value in tuple(LifeSpan) else LifeSpan.FILTER_CHAIN


TEXT = 1
"""`WasmType` of a declared property that is a string."""


def declare_property(context: Context, arguments: bytes) -> Status | None:
    """Say how a property that `proxy_set_property` stores is kept.

    Only what a root context declares has an effect, as in Envoy; schemas are taken and not used (fields of
    FlatBuffers values cannot be read as properties).
    """
    try:
        message = _Message(arguments)
        name = message.data(1)
        declaration = Declaration(bool(message.number(2)), message.number(3) == TEXT, message.span(5))
        message.data(4)
    except ValueError:
        return Status.BAD_ARGUMENT
    if name in context.declared:
        return Status.BAD_ARGUMENT
    if len(context.declared) >= MAX_DECLARED or len(name) > MAX_NAME:
        return Status.INTERNAL_FAILURE
    context.declared = {**context.declared, name: declaration}
    return None


def set_envoy_filter_state(context: Context, arguments: bytes) -> Status | None:
    """Store a value under one of Envoy's well-known names."""
    try:
        message = _Message(arguments)
        name, value, span = message.data(1), message.data(2), message.span(3)
    except ValueError:
        return Status.BAD_ARGUMENT
    info, reader = context.info, WELL_KNOWN.get(name)
    if info is None or reader is None:
        return Status.NOT_FOUND
    try:
        kept = reader(value)
    except ValueError:
        return Status.BAD_ARGUMENT
    if kept is None:
        return None
    return None if info.filter_state.put(name, kept, span) else Status.INTERNAL_FAILURE


# --- expressions ------------------------------------------------------------------------------------------


def expr_create(context: Context, arguments: bytes) -> bytes | Status:
    """Make an expression of CEL source; its token, a u32. Tokens are the plugin's."""
    plugin = context.plugin
    return Status.INTERNAL_FAILURE if plugin is None else plugin.expressions.create(arguments)


def _token(arguments: bytes) -> int | None:
    return int.from_bytes(arguments, "little") if len(arguments) == 4 else None


def expr_evaluate(context: Context, arguments: bytes) -> bytes | Status:
    """The value of an expression for this context, encoded as properties are."""
    token = _token(arguments)
    if token is None:
        return Status.BAD_ARGUMENT
    plugin = context.plugin
    return Status.NOT_FOUND if plugin is None else plugin.expressions.evaluate(token, context)


def expr_delete(context: Context, arguments: bytes) -> Status | None:
    """Forget an expression; it need not exist."""
    token = _token(arguments)
    if token is None:
        return Status.BAD_ARGUMENT
    if context.plugin is not None:
        context.plugin.expressions.delete(token)
    return None


BUILT_IN: Mapping[str, ForeignFunction] = {
    function.__name__: function
    for function in (
        compress,
        uncompress,
        clear_route_cache,
        declare_property,
        set_envoy_filter_state,
        expr_create,
        expr_evaluate,
        expr_delete,
    )
}
"""Envoy's functions. The embedder's own take precedence over them."""
