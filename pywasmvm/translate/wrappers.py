"""What stands around a translated function that needs more than a plain call.

A function with tail calls gets a trampoline: it returns the call it wants made, and the frame is gone when
that call is made. A function with very many variables is counted: without that, a guest that recurses with
huge frames would fill the memory of the host long before its calls are too deep. Both are written with
named parameters, because CPython 3.11 runs calls with `*` on the C stack, which a deep guest would
overflow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

from pywasmvm.errors import Exhaustion, TrapKind
from pywasmvm.runtime.limits import BIG_FRAME, FRAME_SLOTS
from pywasmvm.runtime.store import Store
from pywasmvm.translate.support import Tail

#: Calls nested so deep are left to Python's own recursion limit, which costs nothing; lower limits are
#: counted.
PYTHONS_OWN = 10_000

#: Tail calls with more arguments are made with `*`.
_MOST_NAMED = 8


def _resume() -> str:
    """Statements that make the tail call `r`."""
    lines = ["   a=r.arguments", "   n=len(a)", "   f=r.target.code", "   f=body(f,f)"]
    for count in range(_MOST_NAMED + 1):
        word = "if" if count == 0 else "elif"
        lines.append(f"   {word} n=={count}:r=f({','.join(f'a[{i}]' for i in range(count))})")
    return "\n".join([*lines, "   else:r=f(*a)"])


@functools.lru_cache(maxsize=256)
def _trampoline_maker(count: int) -> Callable[..., Any]:
    names = ",".join(f"a{i}" for i in range(count))
    source = (
        f"def make(code):\n def run({names}):\n  r=code({names})\n"
        f"  while r.__class__ is tail:\n{_resume()}\n  return r\n return run\n"
    )
    return _made(source, {"tail": Tail, "len": len, "body": _body})


@functools.lru_cache(maxsize=256)
def _bounded_maker(count: int) -> Callable[..., Any]:
    names = ",".join(f"a{i}" for i in range(count))
    source = (
        f"def make(code,store):\n def run({names}):\n"
        f"  deeper(store)\n  try:\n   return code({names})\n  finally:\n   store.depth-=1\n return run\n"
    )
    return _made(source, {"deeper": _deeper})


@functools.lru_cache(maxsize=256)
def _counted_maker(count: int) -> Callable[..., Any]:
    names = ",".join(f"a{i}" for i in range(count))
    source = (
        f"def make(code,store,size):\n def run({names}):\n"
        f"  reserve(store,size)\n  try:\n   return code({names})\n"
        "  finally:\n   store.slots-=size\n return run\n"
    )
    return _made(source, {"reserve": _reserve})


def _made(source: str, names: dict[str, Any]) -> Callable[..., Any]:
    exec(compile(source, "<wrapper>", "exec", dont_inherit=True), names)
    made: Callable[..., Any] = names["make"]
    return made


def _body(code: Any, default: Any) -> Any:
    """What a trampoline runs: another trampoline would only grow the stack."""
    return getattr(code, "body", default)


def _deeper(store: Store) -> None:
    most = store.limits.call_depth
    if most is not None and store.depth >= most:
        raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
    store.depth += 1


def _reserve(store: Store, size: int) -> None:
    if store.slots + size > FRAME_SLOTS:
        raise Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
    store.slots += size


def wrapped(function: FunctionType, store: Store) -> Callable[..., Any]:
    """The function with what it needs around it; itself if that is nothing."""
    code = function.__code__
    made: Callable[..., Any] = function
    size = code.co_nlocals + code.co_stacksize
    if size >= BIG_FRAME:
        made = _counted_maker(code.co_argcount)(made, store, size)
    most = store.limits.call_depth
    if most is not None and most < PYTHONS_OWN:
        made = _bounded_maker(code.co_argcount)(made, store)
    if "tail" in code.co_names:
        body, made = made, _trampoline_maker(code.co_argcount)(made)
        made.body = body  # type: ignore[attr-defined] # what `_body` asks for
    return made
