"""Generated source to callables: compile once for a module, bind to each instance (spec: Execution,
Invocation).

Code objects know nothing of instances: what they share with the world are free variables, and each instance
binds them to closure cells of its own memories, globals and functions. The name of a free variable says what
it is: `m0` memory 0 as bytes (`m0I` as 32-bit words), `a0` its numpy array, `M0` the memory itself, `g3` a
global, `f7` what runs function 7, `T0` the elements of table 0, `U0` the table, `I` the instance, `stop`
the flag of its store and `fuel` its units. Code that was made quickly counts its calls: after `left` of them
`better` gives what is called in its place.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Callable, Iterator, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any

from pywasmvm.cache.entry import clock
from pywasmvm.module import Module
from pywasmvm.runtime.instance import Instance
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options
from pywasmvm.translate.support import NAMES
from pywasmvm.types import HeapType, ref

#: Bytes of code that take some ten milliseconds when they are interpreted for the first time.
MUCH = 2000

_FREE = re.compile(r"([amMgfTU])(\d+)([HIQbhidf]?)")
_TYPE = re.compile(r"y(\d+)")
_REFERENCE = re.compile(r"r([01])_(\w+)")

_NO_CELLS: Mapping[str, CellType] = {}

#: The file name of translated code; backtraces and `faults.py` know it by that.
PREFIX = "<wasm "


def file_name(module: Module, index: int, loop: int = -1) -> str:
    """What Python shows as the file of a translated function."""
    return f"{PREFIX}{index} {loop} {module.name}>"


class Translation:
    """The translated functions of a module with one set of options: code objects, and the globals they
    share.
    """

    def __init__(self, module: Module, options: Options) -> None:
        self.module, self.options = module, options
        self.variant = str(options)
        self.codes: dict[tuple[int, int], CodeType | None] = {}
        self.globals: dict[str, Any] = dict(NAMES)
        self.globals["__wasm__"] = self
        #: Functions that the interpreter was given, in the order of their first calls.
        self.interpreted: dict[int, None] = {}
        if module.cache is not None:
            module.cache.at_exit(self.translate_interpreted)

    def known(self, index: int) -> bool:
        """Whether an earlier process has translated the function: then translated code costs nothing."""
        cache = self.module.cache
        return cache is not None and cache.has((self.variant, index, -1))

    def known_loops(self, index: int) -> list[int]:
        """The loops of the function for which an earlier process has translated what is left."""
        cache = self.module.cache
        return [] if cache is None else cache.loops(self.variant, index)

    def code(self, index: int, loop: int = -1) -> CodeType | None:
        """The code object of a function, or of what is left of it from the head of a loop on (the index of
        the `loop`; None where that cannot be entered); translated when first asked for.
        """
        key = (index, loop)
        if key not in self.codes:
            cache = self.module.cache
            try:
                if cache is None:
                    raise KeyError(key)
                found = cache.code((self.variant, index, loop))
            except (KeyError, ValueError, EOFError, TypeError):
                found = self._translated(index, loop)
            else:
                # Another file may have held the same module under another name.
                file = file_name(self.module, index, loop)
                if found is not None and found.co_filename != file:
                    found = found.replace(co_filename=file)
            self.codes[key] = found
        return self.codes[key]

    def translate_interpreted(self, may_go_on: Callable[[], bool]) -> None:
        """Translate what the interpreter was given, if there is so much of it that reading, checking and
        interpreting it again would be felt.
        """
        syntax, first = self.module.syntax, self.module.context.imported_functions
        left = [index for index in self.interpreted if (index, -1) not in self.codes]
        if sum(syntax.body_end[i - first] - syntax.body_start[i - first] for i in left) >= MUCH:
            for index in left:
                if not may_go_on():
                    break
                self.code(index)

    def _translated(self, index: int, loop: int) -> CodeType | None:
        begin = clock()
        with _no_collection():
            source = source_of(self.module, index, self.options, loop=loop)
            code = None if source is None else compiled(source, file_name(self.module, index, loop))
        if self.module.cache is not None:
            self.module.cache.add((self.variant, index, loop), code, clock() - begin)
        return code

    def function(
        self, instance: Instance, index: int, loop: int = -1, given: Mapping[str, CellType] = _NO_CELLS
    ) -> FunctionType | None:
        """The function, or that part of it, bound to an instance; `given` are cells of its own."""
        code = self.code(index, loop)
        if code is None:
            return None
        for name in code.co_names:
            if name not in self.globals:
                self._define(name)
        cells = tuple([given.get(name) or bind(name, instance) for name in code.co_freevars])
        return FunctionType(code, self.globals, f"f{index}", None, cells)

    def _define(self, name: str) -> None:
        """A type that the code names: made from the module's own."""
        context = self.module.context
        found = _TYPE.fullmatch(name)
        if found is not None:
            self.globals[name] = context.types[int(found[1])]
            return
        found = _REFERENCE.fullmatch(name)
        if found is not None:
            heap = int(found[2]) if found[2].isdigit() else HeapType[found[2]]
            self.globals[name] = context.close_ref(ref(found[1] == "1", heap))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Many small objects are made that all go at the end: to look for cycles meanwhile is a tenth of the
    work.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def compiled(source: str, file: str) -> CodeType:
    """Compile; the code object of the one function inside."""
    outer = compile(source, file, "exec", dont_inherit=True, optimize=0)
    for _ in range(2):
        outer = next(constant for constant in outer.co_consts if isinstance(constant, CodeType))
    return outer


@functools.lru_cache(maxsize=4096)
def _parts(name: str) -> tuple[str, int, str]:
    """What a free variable is, with which index, and as which view of a memory."""
    found = _FREE.fullmatch(name)
    if found is None:
        raise LookupError(f"translated code has no free variable {name!r}")
    return found[1], int(found[2]), found[3]


def bind(name: str, instance: Instance) -> CellType:
    """The cell of a free variable."""
    if name == "I":
        return CellType(instance)
    if name == "stop":
        return instance.store.stop
    if name == "fuel":
        return instance.store.fuel_cell
    kind, index, letter = _parts(name)
    if kind == "m":
        return instance.memories[index].cell(letter or "B")
    if kind == "a":
        return instance.memories[index].cell("a")
    if kind == "f":
        return instance.code_cell(index)
    if kind == "g":
        return instance.globals[index].cell
    if kind == "M":
        return CellType(instance.memories[index])
    if kind == "T":
        return CellType(instance.tables[index].elements)
    return CellType(instance.tables[index])
