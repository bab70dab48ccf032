"""What came out of translated code, as what the caller of a guest sees.

Translated code does not look whether an index is inside of a memory: Python does, and raises. Which trap that
was follows from the instruction at the place where it happened, never from the exception alone, since a host
function may have raised the same one. The place is found in the traceback: Python knows the columns of the
expression that failed, and the function is translated once more with the number of each instruction in its
text. That is slow, and happens only when a guest has failed.
"""

from __future__ import annotations

import functools
import re
import struct
from types import CodeType, TracebackType

from pywasmvm.errors import Exhaustion, Frame, Trap, TrapKind, WasmException, format_backtrace
from pywasmvm.runtime import access
from pywasmvm.translate.build import source_of
from pywasmvm.translate.inline import Expansion, Origin, expansion_of
from pywasmvm.translate.link import PREFIX, Translation

#: What Python raises for a fault, by what kind of instruction it was at.
_OUTSIDE = (IndexError, struct.error, OverflowError)

_MARK = re.compile("\x01(\\d+)\x02")


def stopped(error: BaseException) -> BaseException:
    """A Trap with frames for what the guest did wrong; all else as it is, with a note of the frames."""
    if not isinstance(error, Exception):
        return error
    places, inside = _places(error.__traceback__)
    # The same exception may pass here again further out: frames are reported once.
    told: int = getattr(error, "_wasm_frames", 0)
    if told:
        places, inside = places[: len(places) - told], False
    if places:
        error._wasm_frames = told + len(places)  # type: ignore[attr-defined] # ours, and on any exception
    if isinstance(error, RecursionError):
        found: Exception = Exhaustion(TrapKind.CALL_STACK_EXHAUSTED)
    elif inside and places and not isinstance(error, Trap | WasmException):
        found = _fault(error, places[-1])
    else:
        found = error
    known: dict[Place, list[Frame]] = {}  # a deep recursion is at one place all the time
    for place in places:
        if place not in known:
            known[place] = _frames(place)
    frames = [frame for place in reversed(places) for frame in known[place]]
    if inside and isinstance(error, ZeroDivisionError):
        frames[: len(known[places[-1]])] = _frames(places[-1], division=True)
    if isinstance(found, Trap):
        found.frames += tuple(frames)
    elif frames:
        found.add_note(format_backtrace(tuple(frames)))
    return found


#: A frame of translated code: its translation, the indices of the function and of the loop where it was
#: entered (-1: at its beginning), line and column of what it was doing.
Place = tuple[Translation, int, int, int | None, int | None]


def _places(traceback: TracebackType | None) -> tuple[list[Place], bool]:
    """The frames of translated code, outermost first; whether the innermost of all frames is one.

    Those outside of the last frame of the interpreter or the host are those of an earlier call, which adds
    its own when the exception gets there.
    """
    places: list[Place] = []
    inside = False
    positions: dict[tuple[CodeType, int], tuple[int | None, int | None, int | None, int | None]] = {}
    while traceback is not None:
        code = traceback.tb_frame.f_code
        translated = code.co_filename.startswith(PREFIX)
        # Loads and stores of vectors are functions: what fails in them is the guest's doing.
        inside = translated or (inside and code.co_filename == access.__file__)
        if translated:
            translation = traceback.tb_frame.f_globals["__wasm__"]
            index, loop = map(int, code.co_filename[len(PREFIX) :].split(" ", 2)[:2])
            at = (code, traceback.tb_lasti)
            if at not in positions:
                positions[at] = _position(*at)
            line, _, column, _ = positions[at]
            if places and _hands_over(places[-1], index):
                places.pop()
            places.append((translation, index, loop, line, column))
        traceback = traceback.tb_next
    return places, inside


def _hands_over(place: Place, index: int) -> bool:
    """Whether the frame is that of quickly made code which has called better code of the same function: the
    call is no instruction's.
    """
    return place[0].options.quick and place[1] == index and not _instructions(place)


def _position(code: CodeType, instruction: int) -> tuple[int | None, int | None, int | None, int | None]:
    for place, (line, end_line, column, end_column) in enumerate(code.co_positions()):
        if place == instruction // 2:
            return line, end_line, column, end_column
    return None, None, None, None


def _fault(error: Exception, place: Place) -> Exception:
    """The trap of the instruction that failed in translated code itself."""
    names = [name for _, name, _ in _instructions(place)]
    if isinstance(error, ZeroDivisionError):
        return Trap(TrapKind.INTEGER_DIVIDE_BY_ZERO)
    if isinstance(error, _OUTSIDE):
        if any(name.startswith(("call_indirect", "return_call_indirect")) for name in names):
            return Trap(TrapKind.UNDEFINED_ELEMENT)
        if any(name.startswith("table.") for name in names):
            return Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
        return Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS)
    return error


def _frames(place: Place, *, division: bool = False) -> list[Frame]:
    """The frames of a place, innermost first: more than one in a function that was put in place of a call.

    Operands begin where a division begins, so of several instructions it is the innermost, or that one.
    """
    translation, index = place[0], place[1]
    module = translation.module
    found = _instructions(place)
    if not found:
        return [Frame(module.name, module.function_name(index), index, None, None)]
    fitting = [entry for entry in found if division == (".div_" in entry[1] or ".rem_" in entry[1])]
    origin: Origin | None = _expansion(translation, index).origin(index, (fitting or found)[-1][0])
    frames = []
    while origin is not None:
        function, number, origin = origin
        code = module.body(function)[0]
        frames.append(
            Frame(
                module.name,
                module.function_name(function),
                function,
                code.offsets[number],
                code.ops[number].name,
            )
        )
    return frames


@functools.lru_cache(maxsize=64)
def _expansion(translation: Translation, index: int) -> Expansion:
    return expansion_of(translation.module, index, inline=translation.options.inline)


@functools.lru_cache(maxsize=64)
def _marked(translation: Translation, index: int, loop: int) -> list[list[tuple[int, int]]]:
    """For each line of the source the columns where instructions begin, with their numbers."""
    text = source_of(translation.module, index, translation.options, loop=loop, marking=True)
    lines = []
    for line in (text or "").split("\n"):
        found = []
        cut = 0
        for match in _MARK.finditer(line):
            found.append((match.start() - cut, int(match[1])))
            cut += match.end() - match.start()
        lines.append(found)
    return lines


def _instructions(place: Place) -> list[tuple[int, str, int]]:
    """The instructions that the failing expression may be: (number, name, column), the likeliest first."""
    translation, index, loop, line, column = place
    lines = _marked(translation, index, loop)
    if line is None or line > len(lines):
        return []
    marks = lines[line - 1]
    exact = [number for at, number in marks if at == column] or [number for _, number in marks[:1]]
    code = _expansion(translation, index).code
    return [(number, code.ops[number].name, column or 0) for number in exact]
