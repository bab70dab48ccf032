"""What a guest may use up: memory, table elements, call depth, fuel, time.

The defaults stand here and nowhere else; `docs/adr/0008-default-limits.md` says why.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Instructions that use no fuel (the same as in wasmtime, so that counts agree).
FREE = frozenset({"nop", "drop", "block", "loop", "unreachable", "return", "else", "end", "try_table"})

#: How many units of fuel run between two looks at the clock: a few milliseconds of interpretation.
QUANTUM = 20_000

#: Bulk memory operations look at the clock after every piece of this many bytes.
BULK_PIECE = 4 << 20

#: Locals and operands that all active frames of a store may hold together. Without it a guest whose frames
#: are huge would fill the memory of the host long before its calls are too deep.
FRAME_SLOTS = 1 << 24

#: Frames with fewer are not counted: `call_depth` bounds them well enough.
BIG_FRAME = 1024

#: How often host and guest may call each other in turn. Each turn takes frames of the Python stack, which
#: guest calls among themselves do not.
REENTRY_DEPTH = 100


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Limits of a store; None means unlimited.

    `memory_pages` (64 KiB each) and `table_elements` count all memories and tables of the store together,
    `heap_fields` the fields and elements of all structs and arrays, and one more for each of them;
    `call_depth` is the number of nested calls; `fuel` a pool of units that instructions use up (one unit is
    one instruction, with blocks, ends, nops and drops free, one more per call of a function, and one more per
    byte, page or element that a bulk operation fills, copies or adds); `seconds` of wall-clock time for each
    outermost call from the host.
    """

    memory_pages: int | None = 1 << 14  # 1 GiB
    table_elements: int | None = 10_000_000
    heap_fields: int | None = 10_000_000
    call_depth: int | None = 10_000
    fuel: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("memory_pages", "table_elements", "heap_fields", "call_depth", "fuel", "seconds"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} cannot be negative: {value}")
