"""Named proposals: which instructions and encodings a module may use.

Every row of the instruction table names one of these; a feature that is switched off makes its rows
unknown to the decoder. Names are the proposals' own.
"""

from __future__ import annotations

from collections.abc import Iterable

MVP = "mvp"
SIGN_EXTENSION = "sign-extension"
SATURATING = "saturating-float-to-int"
MULTI_VALUE = "multi-value"
BULK_MEMORY = "bulk-memory"
REFERENCE_TYPES = "reference-types"
MUTABLE_GLOBALS = "mutable-globals"
SIMD = "simd"
RELAXED_SIMD = "relaxed-simd"
TAIL_CALL = "tail-call"
EXTENDED_CONST = "extended-const"
EXCEPTIONS = "exceptions"
FUNCTION_REFERENCES = "function-references"
GC = "gc"
MULTI_MEMORY = "multi-memory"
MEMORY64 = "memory64"

#: What each feature is, in the order in which they joined the specification.
DESCRIPTIONS: dict[str, str] = {
    MVP: "WebAssembly 1.0 as first published",
    MUTABLE_GLOBALS: "mutable globals may be imported and exported",
    SIGN_EXTENSION: "i32.extend8_s and its relatives",
    SATURATING: "float to integer conversions that never trap",
    MULTI_VALUE: "blocks and functions with any number of results, blocks with parameters",
    BULK_MEMORY: "memory.copy, memory.fill, passive segments",
    REFERENCE_TYPES: "externref, several tables, table instructions, typed select",
    SIMD: "v128 and its 236 instructions",
    RELAXED_SIMD: "vector instructions whose results may differ between machines (here they never do)",
    TAIL_CALL: "return_call and its relatives, in constant stack",
    EXTENDED_CONST: "i32 and i64 add, sub and mul in constant expressions",
    EXCEPTIONS: "tags, throw, try_table, exnref",
    FUNCTION_REFERENCES: "typed and non-null references, call_ref, tables with an initial value",
    GC: "structs, arrays, i31, recursive types and casts",
    MULTI_MEMORY: "more than one memory",
    MEMORY64: "memories and tables with 64-bit addresses",
}

#: Everything this version runs.
DEFAULT: frozenset[str] = frozenset(DESCRIPTIONS)

#: A feature that cannot be there without another one.
IMPLIES: dict[str, frozenset[str]] = {
    REFERENCE_TYPES: frozenset({BULK_MEMORY}),
    RELAXED_SIMD: frozenset({SIMD}),
    EXCEPTIONS: frozenset({REFERENCE_TYPES, BULK_MEMORY}),
    FUNCTION_REFERENCES: frozenset({REFERENCE_TYPES, BULK_MEMORY}),
    GC: frozenset({FUNCTION_REFERENCES, REFERENCE_TYPES, BULK_MEMORY}),
}


def resolve(names: Iterable[str] | None) -> frozenset[str]:
    """The set of features meant by `names` (None: the default set), implied ones included.

    A name with a minus before it is switched off, and with it whatever cannot be there without it:
    `["-simd"]` is everything but vectors, relaxed ones included. Names without one are all that is on.

    Raises ValueError for a name that is not a feature, with the names there are.
    """
    if names is None:
        return DEFAULT
    given = list(names)
    for name in given:
        if name.removeprefix("-") not in DESCRIPTIONS:
            raise ValueError(f"unknown feature {name!r}; there are: {', '.join(DESCRIPTIONS)}")
    wanted = [name for name in given if not name.startswith("-")]
    refused = {name[1:] for name in given if name.startswith("-")}
    chosen = {MVP}
    for name in wanted if wanted or not refused else DEFAULT:
        chosen |= {name, *IMPLIES.get(name, ())}
    off = refused | {name for name, needed in IMPLIES.items() if needed & refused}
    return frozenset(chosen - (off - {MVP}))
