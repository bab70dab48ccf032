"""`Expressions`: the CEL expressions of one plugin, by token, for the foreign functions `expr_*`.

Source: Envoy 1.40 as measured: tokens count from 0 per plugin and are never given twice; an expression that
parses but cannot be built takes one, too. What an expression is and gives is `cel.py`, for which the extra
`cel` is needed; without it there are none, and the log says so once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.proxy_wasm.types import Status

if TYPE_CHECKING:
    from abi.proxy_wasm.cel import Program
    from abi.proxy_wasm.contexts import Context
    from abi.proxy_wasm.plugin import Plugin

MAX_EXPRESSIONS = 1024
"""Expressions that one plugin may have at a time."""

MISSING = "expressions (expr_create) need cel-python: pip install 'pywasmvm[cel]'"


class Expressions:
    """The living ones. Statuses are those of the foreign functions."""

    __slots__ = ("_last", "_plugin", "_programs", "_warned")

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._programs: dict[int, Program] = {}
        self._last = -1
        self._warned = False

    def create(self, source: bytes) -> bytes | Status:
        """The token of a new expression. BAD_ARGUMENT: the source is no CEL, or uses functions that are not
        there; INTERNAL_FAILURE: it is too long, too deep, or there are too many; UNIMPLEMENTED: the extra
        is missing."""
        try:
            from abi.proxy_wasm import cel
        except ModuleNotFoundError:
            if not self._warned:
                self._warned = True
                self._plugin.vm.host.error(f"plugin {self._plugin.name}: {MISSING}")
            return Status.UNIMPLEMENTED
        if len(self._programs) >= MAX_EXPRESSIONS:
            return Status.INTERNAL_FAILURE
        try:
            tree = cel.parse(source)
        except cel.TooMuch:
            return Status.INTERNAL_FAILURE
        except ValueError:
            return Status.BAD_ARGUMENT
        self._last += 1
        try:
            self._programs[self._last] = cel.Program(tree)
        except cel.TooMuch:
            return Status.INTERNAL_FAILURE
        except ValueError:
            return Status.BAD_ARGUMENT
        return self._last.to_bytes(4, "little")

    def evaluate(self, token: int, context: Context) -> bytes | Status:
        """The value for a context. NOT_FOUND: no such token; INTERNAL_FAILURE: it has no value there, or
        takes too much; SERIALIZATION_FAILURE: the value has no byte form."""
        program = self._programs.get(token)
        return Status.NOT_FOUND if program is None else program.evaluate(context)

    def delete(self, token: int) -> None:
        """Forget one, if there is one."""
        self._programs.pop(token, None)
