"""`Module`: what a user holds - decoded and valid by construction (spec: Structure, Modules).

A module can be shared: it holds no run-time state but the decoded bodies that engines asked for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pywasmvm.binary import code as binary_code
from pywasmvm.binary import custom
from pywasmvm.binary.decode import MAGIC, decode
from pywasmvm.cache import folder
from pywasmvm.cache.entry import Entry, clock
from pywasmvm.cache.segments import columns
from pywasmvm.errors import InvalidError
from pywasmvm.syntax import Code, Instr, ModuleSyntax
from pywasmvm.types import DefType, ExternType, FuncType, TagType
from pywasmvm.valid.code import validate_function
from pywasmvm.valid.context import Context
from pywasmvm.valid.facts import CodeFacts
from pywasmvm.valid.module import validate_module

#: Modules up to this many bytes keep the bodies that were validated, because most of them will be run.
_KEPT = 1 << 18


@dataclass(frozen=True, slots=True)
class ImportType:
    """What a module asks for; `type` is closed, `deftype` the defined type behind a function or a tag."""

    module: str
    name: str
    kind: str
    type: ExternType
    deftype: DefType | None = None


class Function:
    """One function of a module as listings see it."""

    def __init__(self, module: Module, index: int) -> None:
        self.module, self.index = module, index

    @property
    def type(self) -> FuncType:
        """Parameters and results."""
        return self.module.context.functions[self.index].func

    @property
    def name(self) -> str:
        """From the name section, else from an export, else `func[n]`."""
        return self.module.function_name(self.index)

    @property
    def body(self) -> tuple[Instr, ...]:
        """Its instructions, made on demand; empty for an imported function."""
        defined = self.index - self.module.context.imported_functions
        return tuple(binary_code.body(self.module.syntax, defined)) if defined >= 0 else ()

    def __repr__(self) -> str:
        return f"<function {self.name}: {self.type}>"


class Functions(Mapping[str | int, Function]):
    """Functions of a module by name or index; iterating gives indices."""

    def __init__(self, module: Module) -> None:
        self._module = module

    def __getitem__(self, key: str | int) -> Function:
        count = len(self)
        if isinstance(key, int) and 0 <= key < count:
            return Function(self._module, key)
        for index in range(count) if isinstance(key, str) else ():
            if self._module.function_name(index) == key:
                return Function(self._module, index)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str | int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self._module.context.functions)


class Module:
    """A valid module.

    `data` is the binary, or the text format as a string or as UTF-8 bytes.
    `validate="eager"` (the default) checks every function at once, `"lazy"` each before its first run: then a
    faulty body shows as MalformedError or InvalidError when it is first called. No function ever runs
    unvalidated. `features` names the proposals the module may use (None: all). `name` is what backtraces call
    the module; without it the name section's, or `wasm`. With `cache` (the default), what is dear to find out
    about a binary - that it is valid, the code its functions are translated to - is kept for later processes
    in a folder of the user's (`pywasmvm/cache/folder.py`: where, and how to have none); without it nothing is
    read or written there.

    Raises MalformedError or InvalidError.
    """

    def __init__(
        self,
        data: bytes | bytearray | memoryview | str,
        *,
        validate: Literal["eager", "lazy"] = "eager",
        features: Iterable[str] | None = None,
        name: str | None = None,
        cache: bool = True,
    ) -> None:
        if validate not in ("eager", "lazy"):
            raise ValueError(f"validate is 'eager' or 'lazy', not {validate!r}")
        # The text format is loaded when it is needed: who runs binaries shall not pay for it.
        if isinstance(data, str) or is_text(bytes(data[:4])):
            from pywasmvm.text.parser import parse_module

            entry = None
            syntax = parse_module(data if isinstance(data, str) else bytes(data), features=features)
        else:
            features = None if features is None else tuple(sorted(features))
            source = bytes(data)
            entry = Entry(source) if cache and folder.folder() is not None else None
            known = None if entry is None else columns(entry.segments)
            syntax = decode(source, features=features, bodies=False, segments=known)
        self._set(syntax, validate == "eager", name, features, entry)

    def _set(
        self,
        syntax: ModuleSyntax,
        eager: bool,
        name: str | None,
        features: Iterable[str] | None = None,
        cache: Entry | None = None,
    ) -> None:
        self.syntax = syntax
        self._name = name
        #: What is known of this module from earlier processes; None where nothing is kept.
        self.cache = cache
        if cache is not None:
            cache.keep_until_the_end(self)
        #: Prepared code, by (engine, function index): shared by all instances of this module.
        self.prepared: dict[tuple[str, int], object] = {}
        #: Bodies that were asked for, decoded and validated.
        self._bodies: dict[int, tuple[Code, CodeFacts]] = {}
        try:
            self.context: Context = validate_module(syntax)
            if eager:
                self._validate(None if features is None else tuple(features))
        except InvalidError as error:
            if eager:
                # Malformed comes before invalid: a body further on may not even be well-formed.
                for index in range(len(syntax.functions)):
                    binary_code.body(syntax, index)
            raise self._placed(error) from None

    def _placed(self, error: InvalidError) -> InvalidError:
        """The error with the line and column of its instruction, if the module came as text."""
        if self.syntax.text is None or error.offset is None:
            return error
        from pywasmvm.text.lexer import position

        line, column = position(self.syntax.text, error.offset)
        return InvalidError(error.message, error.function, error.offset, error.instruction, line, column)

    @classmethod
    def from_syntax(cls, syntax: ModuleSyntax, *, name: str | None = None) -> Module:
        """Validate a decoded module. Raises InvalidError (MalformedError for a body not read before)."""
        module = cls.__new__(cls)
        module._set(syntax, True, name)
        return module

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        validate: Literal["eager", "lazy"] = "eager",
        features: Iterable[str] | None = None,
        name: str | None = None,
        cache: bool = True,
    ) -> Module:
        """The same as the constructor, for symmetry with `from_file`."""
        return cls(data, validate=validate, features=features, name=name, cache=cache)

    @classmethod
    def from_text(
        cls,
        text: str | bytes,
        *,
        validate: Literal["eager", "lazy"] = "eager",
        features: Iterable[str] | None = None,
        name: str | None = None,
    ) -> Module:
        """A module in the text format; its errors have line and column."""
        source = text if isinstance(text, str) else text.decode()
        return cls(source, validate=validate, features=features, name=name)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        validate: Literal["eager", "lazy"] = "eager",
        features: Iterable[str] | None = None,
        name: str | None = None,
        cache: bool = True,
    ) -> Module:
        """Read a `.wasm` or `.wat` file; its stem names it unless something else does. Raises OSError."""
        module = cls(Path(path).read_bytes(), validate=validate, features=features, name=name, cache=cache)
        if name is None and module.names.module is None:
            module._name = Path(path).stem
        return module

    def _validate(self, features: tuple[str, ...] | None) -> None:
        cache = self.cache
        if cache is None or features not in cache.valid:
            begin = clock()
            self.validate_bodies()
            if cache is not None:
                cache.found_valid(features, clock() - begin)

    def validate_bodies(self) -> None:
        """Validate every function body now. Raises InvalidError."""
        first, count = self.context.imported_functions, len(self.syntax.functions)
        small = len(self.syntax.source) <= _KEPT
        for index in range(first, first + count):
            if small:
                self.body(index)
            else:
                self._body(index)

    def body(self, index: int) -> tuple[Code, CodeFacts]:
        """Decode and validate the body of a defined function (index with imports counted), once."""
        found = self._bodies.get(index)
        if found is None:
            found = self._bodies[index] = self._body(index)
        return found

    def _body(self, index: int) -> tuple[Code, CodeFacts]:
        code = binary_code.body(self.syntax, index - self.context.imported_functions)
        return code, validate_function(self.context, index, code)

    def to_text(self) -> str:
        """The module in the text format, canonical: parsing it gives an equal module."""
        from pywasmvm.text.printer import print_module

        return print_module(self.syntax)

    def to_bytes(self) -> bytes:
        """The module in the binary format."""
        if self.syntax.text is None:
            return self.syntax.source
        from pywasmvm.binary.encode import encode

        return encode(self.syntax)

    @functools.cached_property
    def names(self) -> custom.Names:
        """The name section."""
        return custom.names(self.syntax)

    @property
    def name(self) -> str:
        """What backtraces call this module."""
        return self._name or self.names.module or "wasm"

    @functools.cached_property
    def _export_names(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for export in self.syntax.exports:
            if export.kind == "func":
                found.setdefault(export.index, export.name)
        return found

    def function_name(self, index: int) -> str:
        """The name of a function for people."""
        return self.names.functions.get(index) or self._export_names.get(index) or f"func[{index}]"

    @functools.cached_property
    def exports(self) -> Mapping[str, ExternType]:
        """Types of the exports by name, in the order of the export section."""
        context = self.context
        spaces: dict[str, Callable[[int], ExternType]] = {
            "func": lambda index: context.functions[index].func,
            "table": context.table,
            "memory": context.memory,
            "global": context.global_,
            "tag": lambda index: TagType(context.tags[index].func),
        }
        return MappingProxyType({e.name: spaces[e.kind](e.index) for e in self.syntax.exports})

    @functools.cached_property
    def import_list(self) -> tuple[ImportType, ...]:
        """The imports in order; a module may ask for the same name twice."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[ImportType]:
        context = self.context
        spaces: dict[str, Iterator[ExternType | DefType]] = {
            "func": iter(context.functions),
            "table": iter(context.tables),
            "memory": iter(context.memories),
            "global": iter(context.globals),
            "tag": iter(context.tags),
        }
        for entry in self.syntax.imports:
            found = next(spaces[entry.kind])
            if isinstance(found, DefType):
                type_ = TagType(found.func) if entry.kind == "tag" else found.func
                yield ImportType(entry.module, entry.name, entry.kind, type_, found)
            else:
                yield ImportType(entry.module, entry.name, entry.kind, found)

    @functools.cached_property
    def imports(self) -> Mapping[tuple[str, str], ExternType]:
        """Types of the imports by (module, name)."""
        return MappingProxyType({(i.module, i.name): i.type for i in self.import_list})

    @functools.cached_property
    def custom_sections(self) -> Mapping[str, bytes]:
        """Contents of the custom sections by name; of several with one name the last."""
        source = self.syntax.source
        return MappingProxyType({s.name: source[s.start : s.end] for s in self.syntax.customs})

    @property
    def functions(self) -> Functions:
        """All functions, by name or index."""
        return Functions(self)

    def __repr__(self) -> str:
        return f"<Module {self.name}: {len(self.context.functions)} functions>"


def is_text(start: bytes) -> bool:
    """Whether a file that starts so is meant as text: binaries start with a zero byte, or are damaged."""
    return not MAGIC.startswith(start) and start[:1] in b" \t\r\n(;\xef"


def validate(syntax: ModuleSyntax, *, name: str | None = None) -> Module:
    """Check a decoded module against every typing rule. Raises InvalidError with function and offset."""
    return Module.from_syntax(syntax, name=name)
