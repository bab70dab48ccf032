"""Functions that cross between Python and a guest, generated for each signature.

Every call pays for its crossing, so there is no argument list to build and no conversion to look up: a
generated function names its parameters, converts each in line in the usual case, and leaves the rest to the
converters of `values.py`. The source is made of names of ours and nothing else; it is made once per
signature.
"""

from __future__ import annotations

import functools
from _thread import get_ident
from collections.abc import Callable
from types import CodeType
from typing import Any

from pywasmvm.runtime.values import to_canonical
from pywasmvm.types import F64, I32, I64, FuncType, NumType, ValType

#: The most that takes one digit inside of Python, which is compared fastest, and is above nearly all values.
_DIGIT = (1 << 30) - 1

#: More parameters than these are taken as a tuple.
_MOST_NAMED = 8

#: Stands for an argument that was not given.
_MISSING = object()

#: What Python shows as the file of generated functions.
_FILE = "<thunk>"

_TOP = {I32: (1 << 32) - 1, I64: (1 << 64) - 1}
_HALF = {I32: 1 << 31, I64: 1 << 63}
_SIZE = {I32: 1 << 32, I64: 1 << 64}


def _compile(source: str, names: dict[str, Any], name: str) -> Callable[..., Any]:
    exec(compile(source, _FILE, "exec", dont_inherit=True), names)
    made: Callable[..., Any] = names[name]
    return made


def _converted(name: str, type_: ValType, place: int) -> str:
    """Statement that makes a parameter canonical that is no integer."""
    if type_ is F64:
        return f"if {name}.__class__ is not float:{name}=c{place}({name})"
    return f"{name}=c{place}({name})"


def _shown(name: str, type_: ValType) -> str:
    """Expression that shows a canonical value to a user: integers signed."""
    if type_ in _TOP:
        return f"{name} if {name}<={_DIGIT} or {name}<{_HALF[type_]} else {name}-{_SIZE[type_]}"
    return name


def _taken(names: list[str], scope: dict[str, Any]) -> list[str]:
    """The head of a way in, and how it takes as many arguments as there must be."""
    if not names:
        return ["def enter(self,*args):", " if args:self.wrong_count(args)"]
    if len(names) > _MOST_NAMED:
        return [
            "def enter(self,*args):",
            " try:",
            f"  {','.join(names)},=args",
            " except ValueError:",
            "  self.wrong_count(args)",
        ]
    scope["missing"] = _MISSING
    given = f"[a for a in ({','.join(names)},*rest) if a is not missing]"
    return [
        f"def enter(self,{','.join(f'{name}=missing' for name in names)},/,*rest):",
        f" if {names[-1]} is missing or rest:self.wrong_count({given})",
    ]


def _others(types: tuple[ValType, ...]) -> Callable[[tuple[Any, ...]], list[int]]:
    """Makes integers canonical of which one is big, negative, or none yet. Not part of each way in: those are
    compiled when somebody waits for the first call.
    """
    rows = [(_TOP[type_], to_canonical(type_)) for type_ in types if isinstance(type_, NumType)]

    def convert(values: tuple[Any, ...]) -> list[int]:
        return [
            value if value.__class__ is int and 0 <= value <= top else canonical(value)
            for value, (top, canonical) in zip(values, rows, strict=True)
        ]

    return convert


def _entry(type_: FuncType, *, convert: bool) -> Callable[..., Any]:
    names = [f"a{i}" for i in range(len(type_.params))]
    scope: dict[str, Any] = {"get_ident": get_ident}
    lines = _taken(names, scope)
    if convert:
        integers = [name for name, param in zip(names, type_.params, strict=True) if param in _TOP]
        if integers:
            usual = [f"{name}.__class__ is int" for name in integers]
            lines.append(f" if not({' and '.join(usual)} and 0<={'|'.join(integers)}<={_DIGIT}):")
            lines.append(f"  {','.join(integers)},=others(({','.join(integers)},))")
            scope["others"] = _others(tuple(param for param in type_.params if param in _TOP))
        for place, (name, param) in enumerate(zip(names, type_.params, strict=True)):
            if param not in _TOP:
                scope[f"c{place}"] = to_canonical(param)
                lines.append(" " + _converted(name, param, place))
    call = f"self.code({','.join(names)})"
    lines += [
        " store=self.store",
        " if store.nesting or not store.ready:",
        "  store.enter()",
        " else:",
        "  store.owner=get_ident()",
        "  store.nesting=1",
        "  store.serial+=1",
        " try:",
        f"  r={call}",
        " except Exception as error:",
        "  stopped=store.engine.stopped(error,store)",
        "  if stopped is error:raise",
        "  raise stopped from None",
        " finally:",
        "  if store.nesting==1 and not store.untidy:",
        "   store.nesting=0",
        "  else:",
        "   store.leave()",
    ]
    results = type_.results
    if not convert:
        lines.append(" return r")
    elif len(results) == 1:
        lines.append(f" return {_shown('r', results[0])}")
    elif results:
        parts = [f"r{i}" for i in range(len(results))]
        lines.append(f" {','.join(parts)},=r")
        shown = ",".join([f"({_shown(p, t)})" for p, t in zip(parts, results, strict=True)])
        lines.append(f" return ({shown},)")
    return _compile("\n".join(lines), scope, "enter")


def is_entry(code: CodeType) -> bool:
    """Whether this is the code of a way into a guest: its local `store` is the store it enters."""
    return code.co_name == "enter" and code.co_filename == _FILE


@functools.lru_cache(maxsize=4096)
def entry(type_: FuncType) -> Callable[..., Any]:
    """The method that calls a guest function with Python values and gives its results back so."""
    return _entry(type_, convert=True)


@functools.lru_cache(maxsize=4096)
def raw_entry(type_: FuncType) -> Callable[..., Any]:
    """The method that calls a guest function with canonical values."""
    return _entry(type_, convert=False)


def _checked(type_: FuncType) -> list[str]:
    """Statements that check the canonical result `r` of a host function and return it."""
    if not type_.results:
        return [" return None"]
    if len(type_.results) == 1:
        (result,) = type_.results
        if result in _TOP:
            return [f" if r.__class__ is int and 0<=r<={_TOP[result]}:return r", " return func.result(r)"]
        if result is F64:
            return [" if r.__class__ is float:return r", " return func.result(r)"]
    return [" return func.result(r)"]


@functools.lru_cache(maxsize=4096)
def _exit_maker(type_: FuncType, caller: bool) -> Callable[..., Any]:
    names = [f"a{i}" for i in range(len(type_.params))]
    given = ",".join((["caller"] if caller else []) + names)
    lines = [
        "def make(func,caller):",
        f" def leave({','.join(names)}):",
        f"  r=func.callable({given})",
        *(f" {line}" for line in _checked(type_)),
        " return leave",
    ]
    return _compile("\n".join(lines), {}, "make")


@functools.lru_cache(maxsize=4096)
def _direct_maker(type_: FuncType, signed: tuple[bool, ...], caller: bool) -> Callable[..., Any]:
    names = [f"a{i}" for i in range(len(type_.params))]
    head = ["caller"] if caller else []
    shown = [
        f"{_shown(name, param)}" if sign else name
        for name, param, sign in zip(names, type_.params, signed, strict=True)
    ]
    lines = [
        "def make(func,caller,given):",
        f" def leave({','.join(names)}):",
        "  f=func.direct",
        "  if f is None:",
        f"   r=func.callable({','.join(head + names)})",
        *(f"  {line}" for line in _checked(type_)),
        f"  r=f({','.join(head + shown)})",
    ]
    if type_.results:
        lines += [f"  if r.__class__ is int and 0<=r<={_DIGIT}:return r", "  return given(r)"]
    return _compile("\n".join([*lines, " return leave"]), {}, "make")


def leaving(func: Any, caller: Any) -> Callable[..., Any]:
    """What guest code calls to run a host function: its result is checked; `caller` is who calls.

    A Python function that wants integers as users see them, and gives one or none, is called directly.
    """
    results = func.type.results
    if func.own is not None and (not results or (len(results) == 1 and results[0] in _TOP)):
        made: Callable[..., Any] = _direct_maker(func.type, func.own[2], func.caller)(
            func, caller, *[to_canonical(t) for t in results or (I32,)]
        )
        return made
    made = _exit_maker(func.type, func.caller)(func, caller)
    return made


def shown_to_python(
    function: Callable[..., Any], type_: FuncType, signed: tuple[bool, ...], caller: bool
) -> Callable[..., Any]:
    """A Python function that wants integers as users see them, as one on canonical values."""
    made: Callable[..., Any] = _shower(type_, signed, caller)(
        function, *[to_canonical(t) for t in type_.results]
    )
    return made


@functools.lru_cache(maxsize=4096)
def _shower(type_: FuncType, signed: tuple[bool, ...], caller: bool) -> Callable[..., Any]:
    names = [f"a{i}" for i in range(len(type_.params))]
    shown = [
        f"{_shown(name, param)}" if sign else name
        for name, param, sign in zip(names, type_.params, signed, strict=True)
    ]
    head = ["caller"] if caller else []
    given = [f"g{i}" for i in range(len(type_.results))]
    lines = [
        f"def make({','.join(['function', *given])}):",
        f" def convert({','.join(head + names)}):",
        f"  r=function({','.join(head + shown)})",
    ]
    if not given:
        lines.append("  return None")
    elif len(given) == 1:
        (result,) = type_.results
        if result in _HALF:
            lines.append(f"  if r.__class__ is int and 0<=r<{_HALF[result]}:return r")
        lines.append("  return g0(r)")
    else:
        parts = [f"r{i}" for i in range(len(given))]
        lines.append(f"  {','.join(parts)},=r")
        lines.append(f"  return ({','.join(f'{g}({p})' for g, p in zip(given, parts, strict=True))},)")
    lines.append(" return convert")
    return _compile("\n".join(lines), {}, "make")
