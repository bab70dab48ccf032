"""Rules of the memory instructions whose signature depends on more than one memory."""

from __future__ import annotations

from pywasmvm.types import I32, I64
from pywasmvm.valid.code import CodeValidator, rule


@rule("memory.copy")
def _memory_copy(v: CodeValidator, immediate: tuple[int, int]) -> None:
    target, source = (v.context.memory(index).address for index in immediate)
    # The length must fit both memories, so it has the smaller address type.
    v.pop(I64 if target is source is I64 else I32)
    v.pop(source)
    v.pop(target)
