"""`spectest`: the host module that the official suite's scripts import from.

A script gets a fresh one, and its modules share it: what a segment writes into its table or memory is still
there for the next module.
"""

from __future__ import annotations

from pywasmvm.runtime.func import HostFunc
from pywasmvm.runtime.global_ import Global
from pywasmvm.runtime.instance import Extern
from pywasmvm.runtime.memory import Memory
from pywasmvm.runtime.store import Store
from pywasmvm.runtime.table import Table
from pywasmvm.types import (
    BY_NAME,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
)

#: Parameters of the printing functions; each is named after its own.
_PRINTED = ("", "i32", "i64", "f32", "f64", "i32 f32", "f64 f64")


def spectest(store: Store) -> dict[str, Extern]:
    """The module's exports, made in `store`. The functions print nothing: a run has thousands of calls."""
    made: dict[str, Extern] = {}
    for words in _PRINTED:
        name = "_".join(["print", *words.split()])
        type_ = FuncType(tuple(BY_NAME[word] for word in words.split()))
        made[name] = HostFunc(type_, _ignore, name=f"spectest.{name}")
    for value_type, value in ((I32, 666), (I64, 666), (F32, 666.6), (F64, 666.6)):
        made[f"global_{value_type}"] = Global(GlobalType(value_type), value, store)
    made["table"] = Table(TableType(FUNCREF, Limits(10, 20)), None, store)
    made["table64"] = Table(TableType(FUNCREF, Limits(10, 20), I64), None, store)
    made["memory"] = Memory(MemoryType(Limits(1, 2)), store)
    return made


def _ignore(*values: object) -> None:
    pass
