"""Functions: of a guest and of the host, and the way values cross (spec: Execution, Functions)."""

from __future__ import annotations

import abc
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.matching import def_type
from pywasmvm.numerics.bits import f32_from_python
from pywasmvm.runtime import thunks
from pywasmvm.runtime.values import to_canonical, to_python
from pywasmvm.types import F32, F64, DefType, FuncType, HostValue, NumType, RefType, VecType

if TYPE_CHECKING:
    from pywasmvm.runtime.instance import Exports, Instance
    from pywasmvm.runtime.memory import Memory


class Func(abc.ABC):
    """Something callable with a wasm signature.

    Calling it converts: integers may be given signed or unsigned and come back signed; one result comes back
    as itself, several as a tuple, none as None. `raw` takes and gives canonical values without conversion.
    `deftype` is the defined type behind `type`; indirect calls and casts compare it. `code` is what engines
    call, inside of an entered store: canonical values in; None, one value or a tuple out.
    """

    __slots__ = ("__weakref__", "arity", "code", "deftype", "fast", "name", "type")

    code: Callable[..., Any]
    #: Of a guest function: translated code, when an interpreter runs the rest and calls this.
    fast: Callable[..., Any] | None

    def __init__(self, type_: FuncType | DefType, name: str) -> None:
        self.deftype = type_ if isinstance(type_, DefType) else def_type(type_)
        self.type, self.name = self.deftype.func, name
        self.arity = len(self.type.params)

    @abc.abstractmethod
    def raw(self, *args: Any) -> Any:
        """Call with canonical values. Raises Trap, or what a host function raised."""

    def __call__(self, *args: Any) -> Any:
        type_ = self.type
        if len(args) != self.arity:
            raise TypeError(f"{self.name} takes {self.arity} arguments ({type_}), got {len(args)}")
        values = [to_canonical(t)(v) for t, v in zip(type_.params, args, strict=True)]
        result = self.raw(*values)
        count = len(type_.results)
        if count == 0:
            return None
        if count == 1:
            return to_python(type_.results[0])(result)
        return tuple(to_python(t)(v) for t, v in zip(type_.results, result, strict=True))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.type}>"


class WasmFunc(Func):
    """A function of a guest instance. `prepared` belongs to the engine."""

    __slots__ = ("index", "instance", "prepared", "store")

    def __init__(self, instance: Instance, index: int, type_: DefType) -> None:
        # The name is looked up when somebody asks: a big module has thousands of functions.
        self.deftype, self.type = type_, type_.func
        self.arity = len(self.type.params)
        self.instance, self.index, self.store = instance, index, instance.store
        self.prepared: Any = None
        self.fast = None
        self.code = self.first_code()

    @property
    def name(self) -> str:  # type: ignore[override] # a slot of the others
        """Its name for people."""
        name: str = self.instance.module.function_name(self.index)
        return name

    # Of the two ways in most functions need none and the others one: each is made when it is first gone.

    def __call__(self, *args: Any) -> Any:
        type(self).__call__ = thunks.entry(self.type)  # type: ignore[method-assign] # each signature has a class
        return self(*args)

    def raw(self, *args: Any) -> Any:
        """Call with canonical values; several results come back as a tuple."""
        type(self).raw = thunks.raw_entry(self.type)  # type: ignore[method-assign] # likewise
        return self.raw(*args)

    def first_code(self) -> Callable[..., Any]:
        """What asks the engine for its code when the function is called."""
        return functools.partial(_first_call, self)

    def wrong_count(self, args: Sequence[Any]) -> NoReturn:
        """Refuse a call with too many or too few arguments."""
        raise TypeError(f"{self.name} takes {self.arity} arguments ({self.type}), got {len(args)}")


@functools.lru_cache(maxsize=4096)
def guest_function(type_: FuncType) -> type[WasmFunc]:
    """The class of guest functions with a signature: their ways in are generated for it at the first call."""
    return type("WasmFunc", (WasmFunc,), {"__slots__": (), "__module__": __name__})


def _first_call(func: WasmFunc, *args: Any) -> Any:
    """What runs a function that was never called: the engine of its store decides what runs it next."""
    func.instance.set_code(func.index, func.store.engine.prepare(func))
    return func.code(*args)


class HostFunc(Func):
    """A function of the host: `callable` takes canonical values (a `Caller` first when `caller`) and gives
    them: None, one value, or a sequence. Integer results are taken modulo 2^32 or 2^64, f32 results rounded.
    """

    __slots__ = ("callable", "caller", "direct", "masks", "own")

    def __init__(
        self,
        type_: FuncType | DefType,
        callable: Callable[..., Any],
        *,
        name: str = "",
        caller: bool = False,
        own: tuple[Callable[..., Any], tuple[bool, ...]] | None = None,
    ) -> None:
        super().__init__(type_, name or getattr(callable, "__name__", "host function"))
        self.callable, self.caller = callable, caller
        #: What `callable` converts for: a function that wants integers as users see them, and which of them
        #: it wants signed. `direct` is that function while it is what the host function does.
        self.own = None if own is None else (callable, *own)
        self.direct = None if own is None else own[0]
        self.masks = tuple(
            (1 << t.bits) - 1 if isinstance(t, NumType) and t.integer else None for t in self.type.results
        )
        self.code = thunks.leaving(self, Caller(None))

    def code_for(self, caller: Caller) -> Callable[..., Any]:
        """`code` for the functions of one instance, which is told to those who want to know."""
        return thunks.leaving(self, caller) if self.caller else self.code

    def result(self, returned: Any) -> Any:
        """What the Python function returned, as `code` gives it: one value, or a tuple."""
        results = self.results(returned)
        if not results:
            return None
        return results[0] if len(results) == 1 else tuple(results)

    def rebind(self, callable: Callable[..., Any]) -> None:
        """Let the function do something else from now on, in every instance that imports it."""
        self.callable = callable
        self.direct = self.own[1] if self.own is not None and self.own[0] is callable else None

    def raw(self, *args: Any) -> Any:
        """Call it from the host; there is no calling instance."""
        return self.code(*args)

    def results(self, returned: Any) -> Sequence[Any]:
        """What the Python function returned, as canonical results. Raises TypeError when it does not fit."""
        masks = self.masks
        if not masks:
            return ()
        if len(masks) == 1:
            returned = (returned,)
        elif not isinstance(returned, Sequence) or len(returned) != len(masks):
            raise TypeError(f"host function {self.name} must return {len(masks)} values, not {returned!r}")
        checked = []
        for mask, type_, value in zip(masks, self.type.results, returned, strict=True):
            if mask is not None:
                if not isinstance(value, int):
                    raise TypeError(f"host function {self.name} ({self.type}) returned {value!r}")
                value = int(value) & mask
            elif type_ is F32 or type_ is F64:
                if not isinstance(value, float | int):
                    raise TypeError(f"host function {self.name} ({self.type}) returned {value!r}")
                value = f32_from_python(value) if type_ is F32 else float(value)
            elif isinstance(type_, RefType | VecType):
                value = to_canonical(type_)(value)
            checked.append(value)
        return checked


class Caller:
    """The guest that called a host function."""

    __slots__ = ("_instance",)

    def __init__(self, instance: Instance | None) -> None:
        self._instance = instance

    @property
    def instance(self) -> Instance:
        """The calling instance. Raises RuntimeError when the host itself called."""
        if self._instance is None:
            raise RuntimeError("this host function was called by the host, not by a guest")
        return self._instance

    @property
    def exports(self) -> Exports:
        """What the calling instance exports."""
        return self.instance.exports

    @property
    def memory(self) -> Memory:
        """The memory the caller exports as `memory`. Raises Trap when there is none."""
        from pywasmvm.runtime.memory import Memory  # memory needs numpy, callers may not

        found = self.instance.exports.get("memory")
        if not isinstance(found, Memory):
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS, "(the calling module exports no memory)")
        return found


def unknown_import(module: str, name: str, type_: FuncType | DefType) -> HostFunc:
    """A stand-in for a function nobody defined: calling it traps."""

    def trap(*args: Any) -> None:
        raise Trap(TrapKind.UNKNOWN_IMPORT, f"{module}.{name}")

    return HostFunc(type_, trap, name=f"{module}.{name}")


def from_python(function: Callable[..., Any], *, name: str = "", type_: FuncType | None = None) -> HostFunc:
    """Make a host function of a Python function.

    Its annotations (`i32`, `u32`, `f64`, ...) say the signature and how integers are shown; a first parameter
    annotated `Caller` gets the caller. A function without annotations gets the signature `type_`, integers
    signed. Raises TypeError when neither tells.
    """
    hints: Mapping[str, Any] = typing.get_type_hints(function, include_extras=True)
    names = list(inspect.signature(function).parameters)
    caller = bool(names) and hints.get(names[0]) is Caller
    params = [_host_value(hints.get(n)) for n in (names[1:] if caller else names)]
    back = hints.get("return", type(None))
    parts = typing.get_args(back) if typing.get_origin(back) is tuple else (back,)
    results = [_host_value(part) for part in parts if part is not type(None)]
    if None not in params and None not in results and (hints or type_ is None):
        inputs = [p for p in params if p is not None]
        outputs = [r for r in results if r is not None]
        type_ = FuncType(tuple(p.type for p in inputs), tuple(r.type for r in outputs))
        signed = tuple(p.signed for p in inputs)
    elif type_ is not None and len(hints) <= caller:
        signed = (True,) * len(type_.params)
    else:
        raise TypeError(f"annotate every parameter and result of {function.__name__} with i32, u32, f64, ...")
    convert = functools.wraps(function)(thunks.shown_to_python(function, type_, signed, caller))
    return HostFunc(type_, convert, name=name or function.__name__, caller=caller, own=(function, signed))


def _host_value(hint: Any) -> HostValue | None:
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, HostValue):
            return part
    return None
