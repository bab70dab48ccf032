"""Loads, stores and the other memory instructions.

Bytes are reached through views that live in closure cells: `m0` is memory 0 as bytes, `m0I` the same memory
as 32-bit words, and so on. An index past the end raises; an index is never negative, because addresses are
canonical and offsets are added without wrapping. Where an address is known to be a multiple of the width, the
typed view is indexed, which is twice as fast as reading through `struct`.
"""

from __future__ import annotations

from typing import Any

from pywasmvm.isa import Access, Opcode
from pywasmvm.isa.registry import ROWS
from pywasmvm.syntax import MemArg
from pywasmvm.translate.body import Body
from pywasmvm.translate.expr import ATOM, READS, READS_MEMORY, TRAPS, Expr, Place, merged
from pywasmvm.translate.floats import CARRIED, clean
from pywasmvm.translate.integers import canonical
from pywasmvm.translate.places import SIZES
from pywasmvm.translate.rows import in_row
from pywasmvm.translate.rules import rule
from pywasmvm.translate.symbolic import BITS, MASKS, number
from pywasmvm.translate.versions import SMALL
from pywasmvm.types import F32, F64, I32, I64

#: Letters of the typed views by kind of access, and the bounds of what they give.
_LETTERS = {
    "u8": "B",
    "s8": "b",
    "u16": "H",
    "s16": "h",
    "u32": "I",
    "s32": "i",
    "u64": "Q",
    "f32": "f",
    "f64": "d",
}

#: After an access to a 32-bit memory its address is below this: such a memory never has its last page.
HIGHEST = (1 << 32) - (1 << 16)


def address(body: Body, e: Expr, memarg: MemArg, size: int) -> tuple[Expr, int]:
    """The canonical address operand, and the whole constant that is added to it."""
    bits = body.context.memories[memarg.memory].address.bits
    e = canonical(e, bits, body)
    if e.base is not None and e.base.lo >= 0:
        base, offset = e.base, e.offset + memarg.offset
    elif e.value is not None:
        base, offset = Expr("0"), e.value + memarg.offset
        base.value, base.align = 0, 64
    else:
        base, offset = e, memarg.offset
    if bits == 32:
        _learn(body, base, offset, size)
    return base, offset


def _learn(body: Body, base: Expr, offset: int, size: int) -> None:
    """Once the access has succeeded, the local it went through is known to be small enough."""
    if base.local is not None:
        lo, hi, align = body.fact(base.local)
        top = (SMALL if body.options.small else HIGHEST) - offset - size
        if lo <= top < hi:
            body.facts[base.local] = (lo, top, align)


def _place(base: Expr, offset: int) -> str:
    """The index of a byte."""
    if base.value == 0:
        return str(offset)
    if offset == 0:
        return base.text
    return f"{base.at(9)}{offset:+d}"


def _aligned(body: Body, base: Expr, offset: int, size: int) -> str | None:
    """The index in a typed view, where alignment is proven."""
    shift = size.bit_length() - 1
    if shift == 0:
        return _place(base, offset)
    if base.align < shift or offset & (size - 1):
        return None
    if base.value == 0:
        return str(offset >> shift)
    step = offset >> shift
    text = _divided(body, base, shift)
    if text in body.known.kept or (not text.isidentifier() and _worth_keeping(body, base)):
        text = body.keep(text, base.locals).text
    return f"{text}{step:+d}" if step else text


def _divided(body: Body, base: Expr, shift: int) -> str:
    """An address that is a multiple, divided; the parts of a sum by themselves: one may be a product."""
    if base.scaled is not None and base.scaled[1] >= shift and base.effects == base.scaled[0].effects:
        inner, by = base.scaled
        return inner.at(9) if by == shift else f"{inner.at(10)}*{1 << (by - shift)}"
    if base.parts is not None and all(part.align >= shift and part.lo >= 0 for part in base.parts):
        left, right = base.parts
        if right.scaled is not None or left.scaled is not None:
            return f"{_divided(body, left, shift)}+{_divided(body, right, shift)}"
    text = f"{base.at(10)}//{1 << shift}"
    if base.local in body.bases or text in body.known.kept:
        text = body.keep(text, base.locals).text
    return text


def _worth_keeping(body: Body, base: Expr) -> bool:
    """Whether an address is computed elsewhere again, and may be computed now."""
    return body.at_instruction in body.repeated and not base.effects


def _kept(body: Body, base: Expr) -> Expr:
    """The address operand, in a variable if it is used again."""
    if base.depth < 2 or not _worth_keeping(body, base):
        return base
    made = body.keep(base.text, base.locals)
    made.lo, made.hi, made.align, made.bits = base.lo, base.hi, base.align, base.bits
    return made


def load_text(body: Body, access: Access, base: Expr, offset: int, memory: int) -> str:
    """The expression that reads a number."""
    letter = _LETTERS[access.kind]
    index = _aligned(body, base, offset, access.size)
    if index is not None:
        view = body.use(f"m{memory}" if letter == "B" else f"m{memory}{letter}")
        return f"{view}[{index}]"
    return f"load_{access.kind}({body.use(f'm{memory}')},{_place(_kept(body, base), offset)})[0]"


def _again(body: Body, known: Expr) -> Expr:
    """A value that is known to be in memory, as an operand."""
    if known.local is not None:
        return body.local(known.local)
    made = Expr(known.text, ATOM, known.lo, known.hi)
    made.value, made.align = known.value, known.align
    return made


def _load(access: Access, bits: int) -> Any:
    kind, size = access.kind, access.size
    lo, hi = 0, 0
    if kind[0] == "u":
        hi = (1 << 8 * size) - 1
    elif kind[0] == "s":
        lo, hi = -(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1

    def load(body: Body, memarg: MemArg) -> None:
        base, offset = address(body, body.pop(), memarg, size)
        place: Place = (memarg.memory, base.text, offset, kind)
        found = body.known.places.get(place) if not base.effects else None
        if found is not None:
            body.push(_again(body, found[0]), bits)
            return
        text = load_text(body, access, base, offset, memarg.memory)
        locals_, effects, depth = merged(base)
        made = Expr(body.mark(text), ATOM, lo, hi, locals_, effects | READS_MEMORY | TRAPS, depth)
        if kind == "f32":  # a NaN that is not the canonical one carries its bits
            body.spill(TRAPS)
            name = body.variable(made.text)
            retry = body.mark(f"load_f32_nan({body.use(f'm{memarg.memory}')},{_place(base, offset)})")
            body.statement(f"if {name}!={name}:{name}={retry}")
            made = Expr(name)
        elif kind in SIZES and not base.effects:
            made.loaded = place
        made.nan = CARRIED
        body.push(made, bits)

    return load


def _store(access: Access, bits: int) -> Any:
    kind, size = access.kind, access.size

    def store(body: Body, memarg: MemArg) -> None:
        value, target = body.pop(), body.pop()
        if kind == "f64":
            value = clean(value, body)
        elif bits != 8 * size:
            value = _low(value, 8 * size)
        else:
            value = canonical(value, bits, body)
        if value.loose:
            value = number(value)
        body.spill(TRAPS | READS_MEMORY)
        if target.effects & TRAPS and value.effects & TRAPS:
            target = body.temp(target)
        base, offset = address(body, target, memarg, size)
        index = _aligned(body, base, offset, size)
        letter = _LETTERS[kind]
        if index is not None:
            view = body.use(f"m{memarg.memory}" if letter == "B" else f"m{memarg.memory}{letter}")
            text = f"{body.mark(f'{view}[{index}]')}={value.text}"
        else:
            view = body.use(f"m{memarg.memory}")
            text = body.mark(f"store_{kind}({view},{_place(_kept(body, base), offset)},{value.text})")
        if index is None and base.is_name and offset & (size - 1) == 0 and not body.options.quick:
            view, step = f"m{memarg.memory}{letter}", offset // size
            in_row(body, base.text, size, text, view, step, value.text)
        else:
            body.statement(text)
        body.known.stored(memarg.memory, base.text, offset, size)
        if bits == 8 * size and value.is_name and not base.effects:
            place = (memarg.memory, base.text, offset, f"u{bits}")
            body.known.places[place] = (value, base.locals | value.locals)

    return store


def _low(e: Expr, bits: int) -> Expr:
    """The low bits of a value that is stored in part."""
    mask = (1 << bits) - 1
    if e.lo >= 0 and e.hi <= mask:
        return e
    if e.value is not None:
        text = str(e.value & mask)
        return Expr(text, ATOM, e.value & mask, e.value & mask)
    return Expr(f"{e.at(7)}&{mask}", 7, 0, mask, *merged(e))


def _vector_load(access: Access) -> Any:
    def load(body: Body, memarg: MemArg) -> None:
        base, offset = address(body, body.pop(), memarg, access.size)
        text = f"load_{access.kind}({body.use(f'm{memarg.memory}')},{_place(base, offset)})"
        locals_, effects, depth = merged(base)
        body.push(Expr(body.mark(text), ATOM, 0, 0, locals_, effects | READS_MEMORY | TRAPS, depth + 1))

    return load


def _vector_store(access: Access) -> Any:
    def store(body: Body, memarg: MemArg) -> None:
        value, target = body.pop(), body.pop()
        body.spill(TRAPS | READS_MEMORY)
        base, offset = address(body, target, memarg, access.size)
        text = f"store_{access.kind}({body.use(f'm{memarg.memory}')},{_place(base, offset)},{value.text})"
        body.statement(body.mark(text))
        body.known.forget()

    return store


def _store_f32(body: Body, memarg: MemArg) -> None:
    value, target = body.pop(), body.pop()
    if target.effects & TRAPS and value.effects & TRAPS:
        target = body.temp(target)
    (value,) = body.names(value)
    body.spill(TRAPS | READS_MEMORY)
    base, offset = address(body, target, memarg, 4)
    arguments = f"({body.use(f'm{memarg.memory}')},{_place(base, offset)},{value.text})"
    x = value.text
    body.statement(
        f"{body.mark('store_f32' + arguments)} if {x}=={x} else {body.mark('store_f32_nan' + arguments)}"
    )
    body.known.stored(memarg.memory, base.text, offset, 4)


def _lane(opcode: Opcode, access: Access) -> Any:
    load = ".load" in opcode.name

    def run(body: Body, immediate: tuple[MemArg, int]) -> None:
        memarg, lane = immediate
        vector, target = body.pop(), body.pop()
        if not load:
            body.spill(TRAPS | READS_MEMORY)
        base, offset = address(body, target, memarg, access.size)
        view = body.use(f"m{memarg.memory}")
        verb = "load" if load else "store"
        text = f"{verb}_{access.kind}({view},{_place(base, offset)},{vector.text},{lane})"
        if load:
            locals_, effects, depth = merged(base, vector)
            body.push(Expr(body.mark(text), ATOM, 0, 0, locals_, effects | READS_MEMORY | TRAPS, depth))
        else:
            body.statement(body.mark(text))
            body.known.forget()

    return run


def _register() -> None:
    for opcode in ROWS:
        access = opcode.access
        if access is None:
            continue
        store = ".store" in opcode.name
        if len(opcode.immediates) == 2:
            rule(opcode.name)(_lane(opcode, access))
        elif access.kind not in _LETTERS:
            rule(opcode.name)(_vector_store(access) if store else _vector_load(access))
        elif store:
            bits = {I32: 32, I64: 64, F32: 0, F64: 0}[access.type]  # type: ignore[index] # vectors are above
            rule(opcode.name)(_store_f32 if access.kind == "f32" else _store(access, bits))
        else:
            rule(opcode.name)(_load(access, BITS.get(access.type, 0)))


_register()


# -- size, growth, bulk --------------------------------------------------------------------------------------


def _bits(body: Body, memory: int) -> int:
    return body.context.memories[memory].address.bits


@rule("memory.size")
def _size(body: Body, memory: int) -> None:
    bits = _bits(body, memory)
    made = Expr(f"len({body.use(f'm{memory}')})>>16", 8, 0, 1 << (bits - 16), depth=1, effects=READS_MEMORY)
    body.push(made, bits)


@rule("memory.grow")
def _grow(body: Body, memory: int) -> None:
    bits = _bits(body, memory)
    (operand,) = body.sized([body.pop()])
    pages = body.escaping(operand)
    body.spill(READS | TRAPS)
    text = f"{body.use(f'M{memory}')}.try_grow({pages})&{MASKS[bits]}"
    made = Expr(body.variable(body.mark(text)), ATOM, 0, MASKS[bits])
    body.pay_for(f"{pages} if {made.text}!={MASKS[bits]} else 0")
    body.push(made, bits)


def _bulk(body: Body, memory: int, method: str, count: int, *more: str) -> None:
    operands = [body.escaping(e) for e in body.sized(body.pop_many(count))]
    body.spill(READS | TRAPS)
    body.statement(body.mark(f"{body.use(f'M{memory}')}.{method}({','.join([*operands, *more])})"))
    body.known.forget()
    body.pay_for(operands[-1])


@rule("memory.fill")
def _fill(body: Body, memory: int) -> None:
    _bulk(body, memory, "fill", 3)


@rule("memory.copy")
def _copy(body: Body, immediate: tuple[int, int]) -> None:
    target, source = immediate
    _bulk(body, target, "copy", 3, body.use(f"M{source}"))


@rule("memory.init")
def _init(body: Body, immediate: tuple[int, int]) -> None:
    data, memory = immediate
    target, source, size = (body.escaping(e) for e in body.sized(body.pop_many(3)))
    body.spill(READS | TRAPS)
    text = f"{body.use(f'M{memory}')}.init({target},{body.use('I')}.data({data}),{source},{size})"
    body.statement(body.mark(text))
    body.known.forget()
    body.pay_for(size)


@rule("data.drop")
def _drop(body: Body, index: int) -> None:
    body.spill(TRAPS)
    body.statement(f"{body.use('I')}.dropped_data.add({index})")
