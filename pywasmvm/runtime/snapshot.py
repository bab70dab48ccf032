"""`Snapshot`: what an instance has become by its initialisation, kept, so that others start from there.

A snapshot holds memories (only blocks that are not all zero), globals, tables, and which segments were
dropped; of references only null, i31 and functions of the instance itself, by index. It names the module by
the SHA-256 of its bytes and fits no other. What it cannot hold makes `Snapshot.take` refuse, so that an
instance made from a snapshot is one that could have come out of the initialisation itself - the one that got
to see just that randomness and time of day (docs/adr/0014-snapshot.md).

A snapshot is data, like a module: bytes from anywhere are refused with SnapshotError or give an instance
within the module's declarations and the store's limits, whatever they say.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pywasmvm.errors import SnapshotError
from pywasmvm.module import Module
from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.runtime import instantiate
from pywasmvm.runtime.constant import evaluate
from pywasmvm.runtime.func import Func, WasmFunc
from pywasmvm.runtime.gc import I31, is_instance
from pywasmvm.runtime.global_ import Global
from pywasmvm.runtime.memory import PAGE, Memory
from pywasmvm.runtime.table import Table
from pywasmvm.types import F32, F64, FUNCREF, DefType, HeapType, NumType, RefType, ValType, VecType

if TYPE_CHECKING:
    from pywasmvm.runtime.instance import Extern, Instance

MAGIC = b"\0pywasmvm snapshot\n"

#: Of the format. Others are refused: whoever has the module can make the snapshot again.
VERSION = 2

#: Bytes: what is all zero in a memory is left out in such blocks.
BLOCK = 4096

#: Blocks that are packed together: unpacking never takes much more memory than the guest's own.
_CHUNK = 1024

#: The fastest level: it halves the size of what level 0 leaves four times over; level 6 wins a tenth more.
_LEVEL = 1

_BITMAP = PAGE // BLOCK // 8  # bytes per page
_HEAD = struct.Struct("<IQ32s")  # version, length and SHA-256 of the contents
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_VALUE = 16  # bytes of a global
_I31_FLAG = 0x8000_0000

_digests: weakref.WeakKeyDictionary[Module, bytes] = weakref.WeakKeyDictionary()


def digest(module: Module) -> bytes:
    """The SHA-256 of a module's binary, by which a snapshot knows it."""
    found = _digests.get(module)
    if found is None:
        found = _digests[module] = hashlib.sha256(module.to_bytes()).digest()
    return found


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """A memory: `pages` of 64 KiB; `bitmap` says which blocks are kept (numpy's order of bits), `chunks` are
    the kept ones, packed."""

    pages: int
    bitmap: bytes
    chunks: tuple[bytes, ...]

    @property
    def kept(self) -> int:
        """Bytes that are kept, before packing."""
        return sum(map(int.bit_count, self.bitmap)) * BLOCK


@dataclass(frozen=True, slots=True)
class SavedTable:
    """A table of `size` elements; `packed` has a code of 32 bits for each: 0 is null, else see `_decoded`."""

    size: int
    packed: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an instance after its initialisation.

    `module` is the SHA-256 of the module's bytes. `key` is for whoever takes it: what else the state depends
    on, such as the environment the guest saw; `extra` is for them, too: what else there is to bring back.
    Nothing here looks at either.

        instance = linker.instantiate(module)
        instance.exports._initialize()
        Snapshot.take(instance).save("app.snapshot")
        ...
        another = linker.instantiate(module, snapshot=Snapshot.load("app.snapshot"))
    """

    module: bytes
    key: bytes
    memories: tuple[SavedMemory, ...]
    globals: tuple[bytes, ...]
    tables: tuple[SavedTable, ...]
    dropped_data: tuple[int, ...]
    dropped_elems: tuple[int, ...]
    extra: bytes = b""

    # -- taking ------------------------------------------------------------------------------------------

    @classmethod
    def take(cls, instance: Instance, *, key: bytes = b"", extra: bytes = b"") -> Snapshot:
        """The state of an instance as it is now; the instance goes on, and shares nothing with it.

        Raises SnapshotError where the state is not the instance's alone: a call is running, memories, tables,
        tags, mutable globals or guest functions are imported, or a reference leads to an object of the host,
        a struct, an array, an exception or a function of another instance.
        """
        if instance.store.nesting:
            raise SnapshotError("a call is running in the instance's store")
        _check_imports(instance)
        module = instance.module
        codes = _Codes(instance)
        for index, items in enumerate(instance.elems):
            for item in items:
                codes.encoded(item, f"element segment {index}")
        segments = module.syntax.data.memory
        return cls(
            digest(module),
            key,
            tuple(map(_saved_memory, instance.memories)),
            tuple(_saved_global(entry, n, codes) for n, entry in enumerate(instance.globals)),
            tuple(_saved_table(table, n, codes) for n, table in enumerate(instance.tables)),
            tuple(sorted(n for n in instance.dropped_data if segments[n] < 0)),
            tuple(
                n
                for n, (elem, items) in enumerate(zip(module.syntax.elems, instance.elems, strict=True))
                if elem.mode == "passive" and elem.items and not items
            ),
            extra,
        )

    # -- bringing back -----------------------------------------------------------------------------------

    def check(self, module: Module) -> None:
        """Raise SnapshotError unless it was taken of this module."""
        if digest(module) != self.module:
            raise SnapshotError(
                f"it was taken of another module (SHA-256 {self.module.hex()}, not {digest(module).hex()})"
            )

    def restore(self, instance: Instance, externs: list[Extern]) -> None:
        """Fill an instance that is being made: what `allocate` and `initialise` do where there is none.

        Raises SnapshotError when it does not fit the module, the imports or the store's limits.
        """
        module = instance.module
        self.check(module)
        instantiate.link(instance, externs)
        _check_imports(instance)
        syntax, context = module.syntax, module.context
        found = len(self.memories), len(self.globals), len(self.tables)
        if found != (len(context.memories), len(context.globals), len(context.tables)):
            _misfit("the number of memories, globals or tables")
        for number, memory in enumerate(self.memories):
            instance.memories.append(_memory(memory, number, instance))
        references = _References(instance)
        for number, (raw, type_) in enumerate(zip(self.globals, context.globals, strict=True)):
            defined = number - context.imported_globals
            if defined < 0:
                if _number(type_.value, instance.globals[number].raw) != raw:
                    raise SnapshotError(f"the imported global {number} had another value when it was taken")
                continue
            value = (
                _global(type_.value, raw, number, references)
                if type_.mutable
                else evaluate(instance, syntax.globals[defined].init)
            )
            instance.globals.append(Global.from_raw(type_, value, instance.store))
        for number, table in enumerate(self.tables):
            instance.tables.append(_table(table, number, instance, references))
        self._segments(instance)

    def _segments(self, instance: Instance) -> None:
        syntax = instance.module.syntax
        memory = syntax.data.memory
        if any(n >= len(memory) or memory[n] >= 0 for n in self.dropped_data):
            _misfit("a dropped data segment")
        if any(n >= len(syntax.elems) or syntax.elems[n].mode != "passive" for n in self.dropped_elems):
            _misfit("a dropped element segment")
        dropped = set(range(len(memory)))
        if -1 in memory:
            dropped -= {n for n, target in enumerate(memory) if target < 0} - {*self.dropped_data}
        instance.dropped_data = dropped
        gone = {*self.dropped_elems}
        for number, elem in enumerate(syntax.elems):
            kept = elem.mode == "passive" and number not in gone
            instance.elems.append(instantiate.items(instance, elem) if kept else [])

    # -- bytes -------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The snapshot as a file has it."""
        contents = b"".join(self._parts())
        head = _HEAD.pack(VERSION, len(contents), hashlib.sha256(contents).digest())
        return MAGIC + head + contents

    def _parts(self) -> Iterator[bytes]:
        yield self.module
        yield from _counted(self.key)
        yield _U32.pack(len(self.memories))
        for memory in self.memories:
            yield _U64.pack(memory.pages)
            yield memory.bitmap
            for chunk in memory.chunks:
                yield from _counted(chunk)
        yield _U32.pack(len(self.globals))
        yield from self.globals
        yield _U32.pack(len(self.tables))
        for table in self.tables:
            yield _U64.pack(table.size)
            yield from _counted(table.packed)
        for dropped in (self.dropped_data, self.dropped_elems):
            yield from _counted(struct.pack(f"<{len(dropped)}I", *dropped))
        yield from _counted(self.extra)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Snapshot:
        """Read what `to_bytes` wrote. Raises SnapshotError."""
        data = bytes(data)
        if not data.startswith(MAGIC):
            raise SnapshotError("these bytes are no snapshot")
        begin = len(MAGIC) + _HEAD.size
        if len(data) < begin:
            raise SnapshotError("the snapshot ends early")
        version, length, checksum = _HEAD.unpack_from(data, len(MAGIC))
        if version != VERSION:
            raise SnapshotError(f"the snapshot has format {version}; this is a reader of format {VERSION}")
        if len(data) - begin != length:
            raise SnapshotError(f"the snapshot has {len(data) - begin} bytes of contents, not {length}")
        if hashlib.sha256(memoryview(data)[begin:]).digest() != checksum:
            raise SnapshotError("the snapshot is damaged: its checksum is wrong")
        reader = _Reader(data, begin)
        found = cls(
            reader.take(32),
            reader.counted(),
            tuple(reader.memory() for _ in range(reader.count(8))),
            tuple(reader.take(_VALUE) for _ in range(reader.count(_VALUE))),
            tuple(SavedTable(reader.u64(), reader.counted()) for _ in range(reader.count(12))),
            reader.indices(),
            reader.indices(),
            reader.counted(),
        )
        if reader.pos != len(data):
            _misfit("its end")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, which is complete or not there. Raises OSError."""
        path = os.path.abspath(path)
        file, temporary = tempfile.mkstemp(".tmp", os.path.basename(path), os.path.dirname(path))
        try:
            with open(file, "wb") as stream:
                stream.write(self.to_bytes())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Read a file. Raises OSError, SnapshotError."""
        with open(path, "rb") as stream:
            return cls.from_bytes(stream.read())

    def __repr__(self) -> str:
        pages = sum(memory.pages for memory in self.memories)
        return f"<Snapshot of {self.module.hex()[:16]}: {pages} pages of memory>"


def _misfit(what: str) -> NoReturn:
    """Contents that no `take` writes: not an accident, since the checksum was right."""
    raise SnapshotError(f"the snapshot is damaged: {what} does not fit")


# -- what may be imported ------------------------------------------------------------------------------------


def _check_imports(instance: Instance) -> None:
    """Raise SnapshotError for imports whose state is another instance's, or the host's."""
    counts: dict[str, int] = {}
    for entry in instance.module.import_list:
        index = counts.get(entry.kind, 0)
        counts[entry.kind] = index + 1
        what = f"the import {entry.module}.{entry.name}"
        if entry.kind == "func":
            if isinstance(instance.funcs[index], WasmFunc):
                raise SnapshotError(f"{what} is a function of another instance, whose state is its own")
        elif entry.kind == "global":
            found = instance.globals[index]
            if found.type.mutable:
                raise SnapshotError(f"{what} is a mutable global, which others may set")
            if found.raw is not None and isinstance(found.type.value, RefType):
                raise SnapshotError(f"{what} is a reference that is not the instance's own")
        else:
            raise SnapshotError(f"{what} is a {entry.kind}, which belongs to somebody else")


# -- references ----------------------------------------------------------------------------------------------


class _Codes:
    """References to codes: 0 for null, 1 + index for a function, the high bit and 31 bits for an i31."""

    def __init__(self, instance: Instance) -> None:
        self._indices: dict[int, int] = {}
        for index, func in enumerate(instance.funcs):
            self._indices.setdefault(id(func), index + 1)

    def encoded(self, value: Any, where: str) -> int:
        """Raises SnapshotError for what has none."""
        if value is None:
            return 0
        found = self._indices.get(id(value))
        if found is not None:
            return found
        if isinstance(value, I31):
            return _I31_FLAG | value.value
        if isinstance(value, Func):
            raise SnapshotError(f"{where} holds a function of another instance or of the host: {value!r}")
        raise SnapshotError(f"{where} holds a reference to an object that cannot be kept: {value!r}")


def _functions_only(type_: RefType) -> bool:
    heap = type_.heap
    return heap is HeapType.FUNC or (isinstance(heap, DefType) and heap.kind == "func")


class _References:
    """Codes to references of an instance, typed."""

    def __init__(self, instance: Instance) -> None:
        self._by_code: list[Any] = [None, *instance.funcs]

    def decoded(self, code: int, type_: RefType, where: str) -> Any:
        """Raises SnapshotError unless the reference is of the type."""
        if code >> 32:
            _misfit(where)
        if code & _I31_FLAG:
            value: Any = I31(code)
        elif code < len(self._by_code):
            value = self._by_code[code]
        else:
            _misfit(where)
        if not is_instance(value, type_) or (isinstance(value, Func) and not _functions_only(type_)):
            _misfit(where)
        return value

    def all_decoded(self, codes: list[int], type_: RefType, where: str) -> Iterator[Any]:
        """The same for many."""
        if type_ == FUNCREF and max(codes, default=0) < len(self._by_code):
            return map(self._by_code.__getitem__, codes)  # any function will do: nearly always so
        values = {code: self.decoded(code, type_, where) for code in set(codes)}
        return map(values.__getitem__, codes)


# -- memories, globals, tables -------------------------------------------------------------------------------


def _saved_memory(memory: Memory) -> SavedMemory:
    words = memory.data.view(np.uint64).reshape(-1, BLOCK // 8)
    used = words.any(axis=1)
    blocks = np.flatnonzero(used)
    pieces = (words[blocks[at : at + _CHUNK]] for at in range(0, len(blocks), _CHUNK))
    chunks = tuple(zlib.compress(piece.tobytes(), _LEVEL) for piece in pieces)
    return SavedMemory(memory.pages, np.packbits(used).tobytes(), chunks)


def _memory(saved: SavedMemory, number: int, instance: Instance) -> Memory:
    where = f"memory {number}"
    type_ = instance.module.context.memories[number]
    most = type_.limits.max
    if saved.pages < type_.limits.min or (most is not None and saved.pages > most):
        _misfit(f"the size of {where}")
    try:
        made = Memory(type_, instance.store, pages=saved.pages)
    except MemoryError as error:
        raise SnapshotError(f"{where} cannot have {saved.pages} pages: {error}") from error
    blocks = np.flatnonzero(np.unpackbits(np.frombuffer(saved.bitmap, dtype=np.uint8)))
    if len(saved.chunks) != -(-len(blocks) // _CHUNK):
        _misfit(where)
    target = made.data.reshape(-1, BLOCK)
    for at, chunk in zip(range(0, len(blocks), _CHUNK), saved.chunks, strict=True):
        here = blocks[at : at + _CHUNK]
        raw = _unpacked(chunk, len(here) * BLOCK, where)
        target[here] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, BLOCK)
    return made


def _unpacked(packed: bytes, size: int, where: str) -> bytes:
    """Exactly `size` bytes, and never more of them made than that. Raises SnapshotError."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, size + 1)
    except zlib.error:
        _misfit(where)
    if len(found) != size or not stream.eof or stream.unused_data:
        _misfit(where)
    return found


def _number(type_: ValType, raw: Any) -> bytes:
    """A canonical number or vector (a reference: null) as the bytes of a global."""
    if type_ is F32:
        raw = f32_to_bits(raw)
    elif type_ is F64:
        raw = f64_to_bits(raw)
    return int(raw or 0).to_bytes(_VALUE, "little")


def _saved_global(entry: Global, number: int, codes: _Codes) -> bytes:
    value = entry.raw
    if isinstance(entry.type.value, RefType):
        value = codes.encoded(value, f"global {number}")
    return _number(entry.type.value, value)


def _global(type_: ValType, raw: bytes, number: int, references: _References) -> Any:
    """The canonical value of a global."""
    where = f"global {number}"
    bits = int.from_bytes(raw, "little")
    if isinstance(type_, RefType):
        return references.decoded(bits, type_, where)
    if not isinstance(type_, NumType | VecType) or bits >> type_.bits:
        _misfit(where)
    return f32_from_bits(bits) if type_ is F32 else f64_from_bits(bits) if type_ is F64 else bits


def _saved_table(table: Table, number: int, codes: _Codes) -> SavedTable:
    where = f"table {number}"
    encoded = [codes.encoded(element, where) for element in table.elements]
    return SavedTable(len(encoded), zlib.compress(np.array(encoded, dtype="<u4").tobytes(), _LEVEL))


def _table(saved: SavedTable, number: int, instance: Instance, references: _References) -> Table:
    where = f"table {number}"
    type_ = instance.module.context.tables[number]
    most = type_.limits.max
    if saved.size < type_.limits.min or (most is not None and saved.size > most):
        _misfit(f"the size of {where}")
    try:
        made = Table(type_, None, instance.store, size=saved.size)
    except MemoryError as error:
        raise SnapshotError(f"{where} cannot have {saved.size} elements: {error}") from error
    codes = np.frombuffer(_unpacked(saved.packed, 4 * saved.size, where), dtype="<u4").tolist()
    made.elements[:] = references.all_decoded(codes, type_.element, where)
    return made


# -- reading -------------------------------------------------------------------------------------------------


def _counted(data: bytes) -> tuple[bytes, bytes]:
    return _U32.pack(len(data)), data


class _Reader:
    """Reads contents whose checksum is right, and believes nothing of them."""

    def __init__(self, data: bytes, pos: int) -> None:
        self.data, self.pos = data, pos

    def take(self, size: int) -> bytes:
        """The next bytes. Raises SnapshotError where there are fewer."""
        end = self.pos + size
        if end > len(self.data):
            _misfit("a length")
        found = self.data[self.pos : end]
        self.pos = end
        return found

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def count(self, least: int) -> int:
        """How many things follow, each of at least so many bytes."""
        count = self.u32()
        if count * least > len(self.data) - self.pos:
            _misfit("a count")
        return count

    def counted(self) -> bytes:
        return self.take(self.u32())

    def indices(self) -> tuple[int, ...]:
        raw = self.counted()
        if len(raw) % 4:
            _misfit("a list of segments")
        return struct.unpack(f"<{len(raw) // 4}I", raw)

    def memory(self) -> SavedMemory:
        pages = self.u64()
        bitmap = self.take(pages * _BITMAP)
        kept = sum(map(int.bit_count, bitmap))
        return SavedMemory(pages, bitmap, tuple(self.counted() for _ in range(-(-kept // _CHUNK))))
