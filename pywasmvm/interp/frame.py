"""A frame: the activation of a guest function (spec: Execution, Activation Frames)."""

from __future__ import annotations

from typing import Any

from pywasmvm.errors import Frame as TraceFrame
from pywasmvm.interp.blocks import Block, Prepared
from pywasmvm.runtime.func import WasmFunc


class Frame:
    """An activation of a guest function.

    `index` is the instruction at which it waits for a call, or at which it stopped.
    """

    __slots__ = ("block", "func", "index", "instance", "locals", "prepared", "stack")

    def __init__(self, func: WasmFunc, prepared: Prepared, locals_: list[Any]) -> None:
        self.func, self.prepared, self.locals = func, prepared, locals_
        self.instance = func.instance
        self.stack: list[Any] = []
        self.block: Block = prepared.entry
        self.index = 0

    def pop_many(self, count: int) -> list[Any]:
        """Take several operands off the stack, the last one was on top."""
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    @property
    def labels(self) -> list[str]:
        """The labels that are open here, innermost last."""
        return self.prepared.labels(self.index)

    def trace(self) -> TraceFrame:
        """This frame as a backtrace shows it."""
        module, code = self.instance.module, self.prepared.code
        inside = self.index < len(code)
        return TraceFrame(
            module.name,
            module.function_name(self.func.index),
            self.func.index,
            code.offsets[self.index] if inside else None,
            code.ops[self.index].name if inside else None,
        )

    def __str__(self) -> str:
        code = self.prepared.code
        at = f"{code.ops[self.index].name}" if self.index < len(code) else "end"
        return (
            f"{self.func.name}: at {at} (instruction {self.index})\n"
            f"  locals {self.locals}\n  stack  {self.stack}\n  labels {' > '.join(self.labels)}"
        )
