"""`Instance`: a module brought to life, and its exports (spec: Execution, Module Instances)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import CellType
from typing import TYPE_CHECKING, Any

from pywasmvm.module import Module
from pywasmvm.runtime import instantiate
from pywasmvm.runtime.func import Caller, Func, HostFunc, WasmFunc
from pywasmvm.runtime.global_ import Global
from pywasmvm.runtime.memory import Memory
from pywasmvm.runtime.store import Store
from pywasmvm.runtime.table import Table
from pywasmvm.runtime.tag import Tag

if TYPE_CHECKING:
    from pywasmvm.runtime.snapshot import Snapshot

Extern = Func | Memory | Table | Global | Tag


class Exports(Mapping[str, Extern]):
    """Exports by name, in the order of the export section; attribute access where the name allows it."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, Extern]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(self._entries) or "nothing"
            raise AttributeError(f"no export named {name!r}; the module exports {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Exports: {', '.join(self._entries)}>"


class Instance:
    """A module with its imports resolved and its memories, tables and globals made.

    `imports` is a nested mapping, module name -> name -> extern (a function, memory, table, global or tag of
    another instance, or a Python function). `store` owns everything; without one the store of the first
    import that has one is taken, else a fresh one is made.

    With a `snapshot` of an earlier instance of the module it begins as that one was: neither segments nor the
    start function run.

    Raises LinkError for imports, Trap where a segment does not fit or the start function traps, MemoryError
    where a limit forbids a declared minimum, SnapshotError for a snapshot that does not fit.
    """

    def __init__(
        self,
        module: Module,
        imports: Mapping[str, Mapping[str, Extern | Callable[..., Any]]] | None = None,
        *,
        store: Store | None = None,
        start: bool = True,
        snapshot: Snapshot | None = None,
    ) -> None:
        given = {} if imports is None else imports
        externs = instantiate.resolve(module, lambda i: given.get(i.module, {}).get(i.name))
        self._set_up(module, externs, store, start, snapshot)

    @classmethod
    def from_externs(
        cls,
        module: Module,
        externs: list[Extern],
        *,
        store: Store | None = None,
        start: bool = True,
        snapshot: Snapshot | None = None,
    ) -> Instance:
        """An instance whose imports have been resolved, in the order of the import section."""
        made = cls.__new__(cls)
        made._set_up(module, externs, store, start, snapshot)
        return made

    def _set_up(
        self,
        module: Module,
        externs: list[Extern],
        store: Store | None,
        start: bool,
        snapshot: Snapshot | None,
    ) -> None:
        self.module = module
        self.store: Store = instantiate.store_for(externs, store)
        self.store.instances.add(self)
        self.funcs: list[Func] = []
        self.tables: list[Table] = []
        self.memories: list[Memory] = []
        self.globals: list[Global] = []
        self.tags: list[Tag] = []
        self.types = module.context.types
        self.dropped_data: set[int] = set()
        self.elems: list[list[Any]] = []
        self.caller = Caller(self)
        #: Closure cells of translated code with what runs a function, by index; made when first needed.
        self.code_cells: dict[int, CellType] = {}
        #: What runs the functions that were called before: behind their doors (`doors.py`), if they have any.
        self.codes: dict[int, Callable[..., Any]] = {}
        #: Whether an engine has got ready what it knew to be needed.
        self.warm = False
        if snapshot is None:
            instantiate.allocate(self, externs)
        else:
            snapshot.restore(self, externs)
        #: What loads and stores without a memory index use.
        self.memory0 = self.memories[0] if self.memories else None
        #: What global.get and global.set of the engines use.
        self.global_cells = [entry.cell for entry in self.globals]
        self.exports = Exports(instantiate.exports(self))
        if snapshot is None:
            instantiate.initialise(self)
            if start:
                self.start()

    def start(self) -> None:
        """Run the start function, if there is one. The constructor does, unless told not to."""
        if self.module.syntax.start is not None:
            self.funcs[self.module.syntax.start].raw()

    def code_cell(self, index: int) -> CellType:
        """A cell with what runs the function, kept up to date when an engine finds something better."""
        func = self.funcs[index]
        if isinstance(func, WasmFunc) and func.instance is not self:
            return func.instance.code_cell(func.index)
        found = self.code_cells.get(index)
        if found is None:
            code = func.code_for(self.caller) if isinstance(func, HostFunc) else func.code
            found = self.code_cells[index] = CellType(code)
        return found

    def set_code(self, index: int, code: Callable[..., Any]) -> None:
        """From now on this runs the function, wherever it is called from."""
        self.codes[index] = self.funcs[index].code = code
        cell = self.code_cells.get(index)
        if cell is not None:
            cell.cell_contents = code

    def forget_code(self) -> None:
        """The engine shall decide anew what runs each function, at its next call."""
        self.warm = False
        for func in self.funcs:
            if isinstance(func, WasmFunc) and func.instance is self:
                func.fast = func.prepared = None
                self.set_code(func.index, func.first_code())

    def data(self, index: int) -> memoryview:
        """The bytes of a data segment; none once it is dropped."""
        segments = self.module.syntax.data
        if index in self.dropped_data:
            return memoryview(b"")
        begin = segments.start[index]
        return memoryview(self.module.syntax.source)[begin : begin + segments.length[index]]

    def __repr__(self) -> str:
        return f"<Instance of {self.module.name}>"
