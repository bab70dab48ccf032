"""CEL expressions over the attributes of an exchange, with the library cel-python (extra: `cel`).

Names are those of the properties (`request.path`, `xds.cluster_name`, a stored property's KEY); values are
encoded as properties are. Source: the CEL language and Envoy 1.40 as measured through `expr_evaluate`:
numbers of different kinds are compared by value, things of different kinds are not equal, header names are
compared without case, groups such as `request` have no byte form. Expressions are guests' code: source,
depth, steps and every value have a bound, and the time of the guest's call is looked at.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import lark
import re2
from celpy import celtypes
from celpy.celparser import CELParseError, CELParser
from celpy.evaluation import Activation, CELEvalError, Evaluator, base_functions, bool_eq

from abi.proxy_wasm.calls import properties
from abi.proxy_wasm.filter_state import FilterState
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.wire import encode_map
from pywasmvm import Trap

if TYPE_CHECKING:
    from abi.proxy_wasm.contexts import Context

MAX_SOURCE = 1 << 13
"""Bytes of an expression's source."""

MAX_DEPTH = 400
"""Levels of a syntax tree; CEL's grammar makes about a dozen of one operator in brackets."""

MAX_STEPS = 20_000
"""Nodes of the syntax tree that one evaluation may visit."""

MAX_VALUE = 1 << 20
"""Elements or characters of a value on the way, and bytes of a result."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_TIMES = frozenset(((b"request", b"time"),))
_DURATIONS = frozenset(
    (
        (b"request", b"duration"),
        (b"response", b"backend_latency"),
        (b"upstream", b"cx_pool_ready_duration"),
    )
)

_MACROS = frozenset(("map", "filter", "all", "exists", "exists_one", "has", "dyn"))

_NUMBERS = (celtypes.IntType, celtypes.UintType, celtypes.DoubleType)


class TooMuch(Exception):
    """An expression, or one of its values, is beyond the bounds."""


# --- reading ----------------------------------------------------------------------------------------------

_parser: list[CELParser] = []


def parse(source: bytes) -> lark.Tree[Any]:
    """The syntax tree. ValueError: it is no CEL; `TooMuch`."""
    if len(source) > MAX_SOURCE:
        raise TooMuch
    if not _parser:
        _parser.append(CELParser())
    try:
        tree: lark.Tree[Any] = _parser[0].parse(source.decode())
    except (CELParseError, lark.exceptions.LarkError) as error:
        raise ValueError(str(error)) from None
    return tree


def _checked(tree: lark.Tree[Any]) -> set[str]:
    """The names that a tree mentions. ValueError: functions that do not exist; `TooMuch`: too deep."""
    names: set[str] = set()
    level = [tree]
    for _ in range(MAX_DEPTH):
        if not level:
            return names
        below: list[lark.Tree[Any]] = []
        for node in level:
            if node.data in ("ident", "dot_ident"):
                names.add(str(node.children[0]))
            elif node.data in ("ident_arg", "dot_ident_arg", "member_dot_arg"):
                called = str(node.children[1 if node.data == "member_dot_arg" else 0])
                if called not in base_functions and called not in _MACROS:
                    raise ValueError(f"no function {called}")
            below += [child for child in node.children if isinstance(child, lark.Tree)]
        level = below
    raise TooMuch


# --- values ---------------------------------------------------------------------------------------------


class _Fields(celtypes.MapType):
    """Something of ours that looks like a map: members are made when they are asked for."""

    def __init__(self, item: object) -> None:
        super().__init__()
        self.item = item

    def __getitem__(self, key: Any) -> Any:
        name = str(key).encode("utf-8", "surrogateescape")
        found = self._member(name)
        if found is properties.MISSING:
            raise KeyError(key)
        return _cel(found)

    def _member(self, name: bytes) -> object:
        if isinstance(self.item, FilterState):
            stored = self.item.get(name)
            return properties.MISSING if stored is None else celtypes.BytesType(stored)
        return properties.step(self.item, name)

    def __contains__(self, key: object) -> bool:
        return self._member(str(key).encode("utf-8", "surrogateescape")) is not properties.MISSING

    def __iter__(self) -> Iterator[Any]:
        return iter([_cel(name) for name in self._names()])

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> Sequence[object]:
        if isinstance(self.item, HeaderMap):
            return [name for name, _ in self.item.lines]
        if isinstance(self.item, properties.Message):
            return list(self.item.fields)
        return list(self.item) if isinstance(self.item, Mapping) else ()


class _Group(_Fields):
    """A group of attributes, such as `request`, for one context."""

    def __init__(self, name: bytes, context: Context) -> None:
        super().__init__(properties.OPAQUE)
        self._name, self._context = name, context

    def _member(self, name: bytes) -> object:
        found = properties.attribute(self._context, self._name, name)
        if isinstance(found, int) and not isinstance(found, bool):
            place = self._name, name
            if place in _TIMES:
                return celtypes.TimestampType(EPOCH + timedelta(microseconds=found // 1000))
            if place in _DURATIONS:
                return celtypes.DurationType(timedelta(microseconds=found // 1000))
        return found


def _cel(item: object) -> Any:
    """A value of ours for the library. Attributes that are bytes are text to CEL, as in Envoy."""
    if isinstance(item, celtypes.BytesType | celtypes.TimestampType | celtypes.DurationType):
        return item
    if isinstance(item, bytes):
        return celtypes.StringType(item.decode("utf-8", "surrogateescape"))
    if isinstance(item, str):
        return celtypes.StringType(item)
    if isinstance(item, bool):
        return celtypes.BoolType(item)
    if isinstance(item, int):
        return celtypes.IntType(item)
    if isinstance(item, float):
        return celtypes.DoubleType(item)
    if isinstance(item, Sequence):
        return celtypes.ListType([_cel(one) for one in item])
    return _Fields(item)


def _variable(context: Context, name: str) -> Any:
    """What a name stands for; `MISSING` when there is nothing."""
    raw = name.encode()
    if properties.is_group(context, raw):
        return _Group(raw, context)
    found = properties.variable(context, raw)
    if found is properties.MISSING:
        return found
    if isinstance(found, bytes):  # a stored property
        declared = None if context.plugin is None else context.plugin.root.declared.get(raw)
        if declared is None or not declared.text:
            return celtypes.BytesType(found)
    return _cel(found)


def _encode(value: Any, room: list[int]) -> bytes | Status:
    """The bytes of a result. `room` is how many more there may be; `TooMuch`."""
    if isinstance(value, _Fields):
        data = Status.SERIALIZATION_FAILURE if isinstance(value, _Group) else properties.encode(value.item)
    elif isinstance(value, celtypes.BoolType):
        data = properties.encode(bool(value))
    elif isinstance(value, celtypes.TimestampType):
        data = properties.encode(datetime.__sub__(value, EPOCH) // _MICROSECOND * 1000)
    elif isinstance(value, celtypes.DurationType):
        data = properties.encode(timedelta.__floordiv__(value, _MICROSECOND) * 1000)
    elif isinstance(value, celtypes.MapType | celtypes.ListType):
        pairs = list(value.items()) if isinstance(value, celtypes.MapType) else [(one, b"") for one in value]
        lines = []
        for left, right in pairs:
            key = _encode(left, room)
            item = right if isinstance(right, bytes) and not right else _encode(right, room)
            if isinstance(key, Status) or isinstance(item, Status):
                return Status.SERIALIZATION_FAILURE
            lines.append((key, item))
        data = encode_map(lines)
    elif value is None or isinstance(value, type):
        return Status.SERIALIZATION_FAILURE
    else:
        data = properties.encode(value)
    if isinstance(data, bytes):
        room[0] -= len(data)
        if room[0] < 0:
            raise TooMuch
    return data


# --- running --------------------------------------------------------------------------------------------


def _plain(number: Any) -> int | float:
    """A number of the library as Python's own, which compares with every other."""
    return float(number) if isinstance(number, float) else int(number)


def _equal(left: Any, right: Any) -> Any:
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return celtypes.BoolType(_plain(left) == _plain(right))
    if isinstance(left, celtypes.BoolType) is not isinstance(right, celtypes.BoolType):
        return celtypes.BoolType(False)
    try:
        answer = bool_eq(left, right)
    except TypeError:
        return celtypes.BoolType(False)
    return celtypes.BoolType(False) if isinstance(answer, CELEvalError) else answer


def _unequal(left: Any, right: Any) -> Any:
    return celtypes.BoolType(not _equal(left, right))


def _by_value(name: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """An ordering that takes numbers of different kinds."""
    ordering = base_functions[name]

    def ordered(left: Any, right: Any) -> Any:
        if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
            return celtypes.BoolType(compare(_plain(left), _plain(right)))
        return ordering(left, right)

    return ordered


def _of_one_kind(name: str) -> Callable[[Any, Any], Any]:
    """An operator that knows no numbers of different kinds, as CEL says."""
    calculation = base_functions[name]

    def checked(left: Any, right: Any) -> Any:
        if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS) and type(left) is not type(right):
            raise TypeError(f"{name} of {type(left).__name__} and {type(right).__name__}")
        return calculation(left, right)

    return checked


_REGEX = re2.Options()
_REGEX.log_errors = False  # guests' mistakes are not for our standard error
_REGEX.max_mem = 1 << 20


def _matches(text: Any, pattern: Any) -> Any:
    return celtypes.BoolType(re2.compile(pattern, options=_REGEX).search(text) is not None)


_FUNCTIONS = {
    "_==_": _equal,
    "_!=_": _unequal,
    "matches": _matches,
    "_<_": _by_value("_<_", operator.lt),
    "_<=_": _by_value("_<=_", operator.le),
    "_>_": _by_value("_>_", operator.gt),
    "_>=_": _by_value("_>=_", operator.ge),
    **{name: _of_one_kind(name) for name in ("_+_", "_-_", "_*_", "_/_", "_%_")},
}


class _Machine(Evaluator):
    """The library's evaluator, counting what it does."""

    def __init__(
        self, ast: lark.Tree[Any], activation: Activation, context: Context, left: list[int]
    ) -> None:
        super().__init__(ast, activation)
        self._context, self._left = context, left

    def sub_evaluator(self, ast: lark.Tree[Any]) -> _Machine:
        return _Machine(ast, self.activation, self._context, self._left)

    def _visit_tree(self, tree: lark.Tree[Any]) -> Any:
        self._left[0] -= 1
        if self._left[0] < 0:
            raise TooMuch
        self._context.vm.store.check_deadline()
        value = super()._visit_tree(tree)
        if isinstance(value, str | bytes | list) and len(value) > MAX_VALUE:
            raise TooMuch
        return value


class Program:
    """An expression that can be evaluated. ValueError: it uses functions that are not there; `TooMuch`."""

    __slots__ = ("_names", "_tree")

    def __init__(self, tree: lark.Tree[Any]) -> None:
        self._names = _checked(tree)
        self._tree = tree

    def evaluate(self, context: Context) -> bytes | Status:
        """The value's bytes, or why there are none (`Expressions.evaluate`)."""
        try:
            values = {name: _variable(context, name) for name in self._names}
            given = {name: value for name, value in values.items() if value is not properties.MISSING}
            activation = Activation(functions=_FUNCTIONS, vars=given)
            value = _Machine(self._tree, activation, context, [MAX_STEPS]).evaluate()
            return _encode(value, [MAX_VALUE])
        except Trap:
            raise
        except Exception:  # the library has many of them, and expressions are a guest's
            return Status.INTERNAL_FAILURE
