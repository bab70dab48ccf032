"""Writes docs/abi.md from the tables of the ABI and from a recorded run of its tests.

python scripts/abi_reference.py            write it
python scripts/abi_reference.py --check    say whether it is current; status 1 if it is not

Signatures and versions are those of `abi/proxy_wasm/versions.py`, which the host links by; what is answered
when is `tests/abi/availability.py`, which the tests ask the host for; the tests that are named are those that
made the call and got the answer as the page was written. A function, version or phase that no test has called
is an error.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402 - found through the line above

from abi.proxy_wasm.calls import properties  # noqa: E402
from abi.proxy_wasm.foreign import BUILT_IN  # noqa: E402
from abi.proxy_wasm.types import Errno, Status  # noqa: E402
from abi.proxy_wasm.versions import (  # noqa: E402
    WASI_MODULES,
    AbiVersion,
    Callback,
    HostFunction,
    Phase,
    callbacks,
    host_functions,
)
from tests.abi.availability import EMPTY_MAP, RESPONSE_BEGUN, ROWS, Row  # noqa: E402
from tests.abi.phases import EVERY_VERSION, HTTP, KINDS, PHASES, PLUGIN, TCP  # noqa: E402
from tests.abi.recording import START_SECTION, TRAP, Recorder, Test  # noqa: E402

PAGE = ROOT / "docs" / "abi.md"
TESTS = Path("tests/abi/proxy_wasm")
MATRIX = f"{TESTS}/test_phases.py"
CONTRACT = f"{TESTS}/calls/test_contract.py"
RECORDED = (
    *(
        f"{TESTS}/test_{name}.py"
        for name in ("phases", "contexts", "plugin", "tcp", "callouts", "linking", "vm")
    ),
    f"{TESTS}/test_services.py",
    f"{TESTS}/calls",
    "tests/abi/test_higress.py",
)
"""Tests of the ABI that need nothing but Python and take no more than seconds."""

CHAPTERS = {
    "abi.proxy_wasm.calls.log": "Logging and clocks",
    "abi.proxy_wasm.calls.lifecycle": "Contexts, timers and ends",
    "abi.proxy_wasm.calls.buffers": "Buffers and configuration",
    "abi.proxy_wasm.calls.properties": "Properties",
    "abi.proxy_wasm.calls.http_fields": "Header maps",
    "abi.proxy_wasm.calls.streams": "Streams",
    "abi.proxy_wasm.calls.http_call": "HTTP calls",
    "abi.proxy_wasm.calls.grpc": "gRPC calls",
    "abi.proxy_wasm.calls.shared_data": "Shared data",
    "abi.proxy_wasm.calls.shared_queue": "Shared queues",
    "abi.proxy_wasm.calls.metrics": "Metrics",
    "abi.proxy_wasm.calls.foreign": "Foreign functions",
    "abi.higress": "Higress' own",
    "abi.proxy_wasm.calls.wasi": "WASI",
}
"""Modules with host functions, in the order of the ABI."""

RESTRICTED = {
    Phase.START_SECTION: "start section",
    Phase.INITIALIZE: "initialisation",
    Phase.ALLOCATOR: "allocator",
}

FOR_ALL = (
    (MATRIX, "test_every_function_answers_as_it_should"),
    (MATRIX, "test_every_callback_gets_its_arguments"),
    (MATRIX, "test_what_a_version_does_not_have_is_refused"),
    (MATRIX, "test_another_type_is_refused"),
    (MATRIX, "test_callbacks_of_another_type_are_refused"),
    (MATRIX, "test_the_start_section_gets_a_status_for_what_is_too_early"),
    (MATRIX, "test_entry_points_may_call_wasi_and_log"),
    (MATRIX, "test_entry_points_may_call_nothing_else"),
    (MATRIX, "test_what_the_allocator_may_call"),
    (MATRIX, "test_a_restriction_replaces_every_function"),
    (MATRIX, "test_a_restriction_keeps_every_callback_from_being_called"),
    (CONTRACT, "test_a_good_call"),
    (CONTRACT, "test_what_is_pointed_at_must_be_in_memory"),
    (CONTRACT, "test_where_answers_go_must_be_in_memory"),
    (CONTRACT, "test_nothing_may_be_given_from_anywhere_in_memory"),
    (CONTRACT, "test_an_allocator_that_fails"),
    (CONTRACT, "test_an_allocator_that_traps"),
    (CONTRACT, "test_a_size_that_cannot_be_told_leaks_the_block"),
    (CONTRACT, "test_the_allocator_may_grow_memory_and_log"),
    (CONTRACT, "test_a_guest_without_memory"),
)
"""Tests that go through all functions, or all callbacks, alike."""

NOTES: dict[str, Callable[[], Iterator[str]]] = {}
"""What a chapter has besides its tables."""


def note(module: str) -> Callable[[Callable[[], Iterator[str]]], Callable[[], Iterator[str]]]:
    def put(text: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        NOTES[module] = text
        return text

    return put


@note("abi.proxy_wasm.calls.properties")
def properties_note() -> Iterator[str]:
    groups = {
        **{f"{group.decode()}.": names for group, names in properties.STREAM.items()},
        "": properties.TOP,
    }
    yield "Attributes of an exchange or a connection, their groups' parts joined by NUL bytes in a path:"
    yield ""
    for prefix, names in groups.items():
        yield "* " + ", ".join(f"`{prefix}{name.decode()}`" for name in names)
    yield "* always: `plugin_name`, `plugin_root_id`, `plugin_vm_id`; `node` and `xds.node` with all parts"
    yield ""
    asked = link(Test(f"{TESTS}/calls/test_properties.py", ""))
    yield (
        f"{asked} asks for each in its phases. Strings and bytes are as they are; integers, timestamps and "
        "durations (ns) are 8 bytes and doubles 8 bytes, little-endian; booleans 1 byte; maps and lists as "
        "header maps are; messages as protobuf has them. What has no such form is SERIALIZATION_FAILURE."
    )
    yield ""
    yield "Attributes of Envoy's that are NOT_FOUND here at all times:"
    yield ""
    for why in dict.fromkeys(properties.ABSENT.values()):
        names_of = [name for name, reason in properties.ABSENT.items() if reason == why]
        yield f"* {', '.join(f'`{name}`' for name in names_of)}: {why}"
    yield ""


@note("abi.proxy_wasm.calls.foreign")
def foreign_note() -> Iterator[str]:
    yield "The host's functions; those of the embedder and of other packages come before and after them."
    yield ""
    yield "| Name | What it does |"
    yield "| --- | --- |"
    for name, function in BUILT_IN.items():
        yield f"| `{name}` | {meaning(function)} |"
    yield "| `sign`, `verify_signature` | Envoy's; NOT_FOUND here: they need a library for public keys. |"
    yield ""


# --- parts of the page ----------------------------------------------------------------------------------


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(heads)
    yield f"| {' | '.join(names)} |"
    yield "| --- " * len(names) + "|"
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"
    yield ""


def anchor(title: str) -> str:
    """The name under which a heading is found on its page."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def meaning(function: Any) -> str:
    """The first paragraph of its docstring, on one line."""
    text = (inspect.getdoc(function) or "").split("\n\n")[0]
    return " ".join(text.split())


def sentence(test: Test) -> str:
    """The name of a test as words, the file's when it has none."""
    return test.name.removeprefix("test_").replace("_", " ") or Path(test.file).name


def link(test: Test) -> str:
    """A test, linked to its file."""
    return f"[{sentence(test)}](../{test.file})"


def named(tests: Iterable[Test]) -> str:
    """Tests by file: the file as a link, what they say in words."""
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.file, []).append(sentence(test))
    return "; ".join(f"{link(Test(file, ''))}: {', '.join(words)}" for file, words in files.items())


def versions_of(versions: Iterable[AbiVersion]) -> str:
    has = [version in versions for version in EVERY_VERSION]
    if all(has):
        return "all"
    first = has.index(True)
    if has[first:] == [True] * (len(has) - first) and len(has) - first > 1:
        return f"since {EVERY_VERSION[first]}"
    return ", ".join(str(version) for version, there in zip(EVERY_VERSION, has, strict=True) if there)


NOTHING = -2
"""Stands for the answer of a function without a result."""


def name_of(answer: int | None, row_module: str = "env") -> str:
    if answer is None or answer == NOTHING:
        return "nothing"
    names: type[Status] | type[Errno] = Errno if row_module in WASI_MODULES else Status
    try:
        return names(answer).name
    except ValueError:
        return str(answer)


EMPTY = (b"", EMPTY_MAP, 0)


def shown(row: Row, expected: Any) -> str:
    """An expected answer as text: the status, and whether what is there is empty."""
    if row.function == "pthread_equal":
        return "1 when equal"
    status, *outs = expected if isinstance(expected, tuple) else (expected,)
    text = name_of(status, row.module)
    asks = row.function.startswith(("proxy_get_buffer", "proxy_get_header", "proxy_get_property"))
    return f"{text}, empty" if asks and status == 0 and outs and outs[0] in EMPTY else text


def names(phases: Iterable[Any]) -> list[str]:
    return [phase.name for phase in phases]


GROUPS = (
    (names(HTTP) + names(TCP), "streams and connections"),
    (names(HTTP), "HTTP streams"),
    (list(RESPONSE_BEGUN), "HTTP streams from response headers on"),
    ([n for n in names(HTTP) if n not in RESPONSE_BEGUN], "HTTP streams before response headers"),
    (names(TCP), "TCP connections"),
    (names(PLUGIN), "root contexts"),
)


def where(phases: list[str]) -> str:
    """Phases in words, groups of them by their name."""
    rest, words = list(phases), []
    for group, word in GROUPS:
        if all(name in rest for name in group):
            words.append(word)
            rest = [name for name in rest if name not in group]
    return ", ".join([*words, *rest])


def availability(row: Row) -> str:
    """What a row answers when."""
    by_answer: dict[str, list[str]] = {}
    for phase in PHASES:
        if any(version in phase.versions for version in row.versions):
            by_answer.setdefault(shown(row, row.expected(phase.name)), []).append(phase.name)
    elsewhere = shown(row, row.elsewhere)
    parts = [f"{answer}: {where(at)}" for answer, at in by_answer.items() if answer != elsewhere]
    if not parts:
        return elsewhere
    return "; ".join([*parts, f"{elsewhere} elsewhere"] if elsewhere in by_answer else parts)


# --- chapters -------------------------------------------------------------------------------------------


CASES = list(dict.fromkeys(row.case.partition(",")[0] for row in ROWS))


def first(case: str) -> int:
    """Where the rows about one thing begin."""
    return CASES.index(case.partition(",")[0])


def functions() -> dict[tuple[str, str], HostFunction]:
    """Every host function of every version, WASI once."""
    rows = [row for version in EVERY_VERSION for row in host_functions(version)]
    return {(row.module, row.name): row for row in rows if row.module != WASI_MODULES[1]}


def having(row: HostFunction) -> list[AbiVersion]:
    return [version for version in EVERY_VERSION if version.within(row.versions)]


def takes(row: HostFunction) -> str:
    """Parameters and results in words, from the annotations of the function."""
    notes = dict(row.call.body.__annotations__)
    result = notes.pop("return")
    words = [f"{name}: {kind.lower()}" for name, kind in list(notes.items())[1:]]
    given = result.removeprefix("Status | ").removeprefix("Errno | ").removeprefix("tuple[").removesuffix("]")
    outs = [one.strip().removeprefix("Out").removeprefix("Optional").lower() for one in given.split(",")]
    outs = [one for one in outs if one not in ("status", "errno", "none", "int")]
    return " ".join([*([", ".join(words)] if words else []), *(["->", ", ".join(outs)] if outs else [])])


def proofs(recorder: Recorder, module: str, row: HostFunction) -> Iterator[tuple[str, list[Test]]]:
    """Every answer that the tests of a chapter got from a function, and these tests."""
    file = f"/test_{module.rpartition('.')[2]}.py"
    by_answer: dict[int, dict[Test, None]] = {}
    for call in recorder.calls:
        same = (call.module, call.function) == (row.module, row.name)
        if same and call.answer != TRAP and call.test.file.endswith(file):
            by_answer.setdefault(NOTHING if call.answer is None else call.answer, {})[call.test] = None
    for answer in sorted(by_answer):
        plain = row.name == "pthread_equal"
        yield (
            str(answer) if plain else name_of(None if answer == -2 else answer, row.module),
            list(by_answer[answer]),
        )


def chapter(recorder: Recorder, module: str, title: str) -> Iterator[str]:
    rows = {place: row for place, row in functions().items() if row.call.body.__module__ == module}
    yield f"## {title}"
    yield ""
    wasi = module.endswith(".wasi")
    if wasi:
        yield f"In `{WASI_MODULES[0]}` and, the same, in `{WASI_MODULES[1]}`; in all versions."
        yield ""
    yield from table(
        ["Function", "Takes -> gives", "Type", "Versions", "Before contexts", "What it does"],
        (
            [
                f"`{row.name}`",
                f"`{takes(row)}`" if takes(row) else "",
                f"`{row.signature.strip()}`",
                versions_of(having(row)),
                ", ".join(word for phase, word in RESTRICTED.items() if phase in row.allowed) or "no",
                meaning(row.call.body),
            ]
            for row in rows.values()
        ),
    )
    yield from NOTES.get(module, lambda: iter(()))()
    yield "What is answered when:"
    yield ""
    merged: dict[tuple[str, str], tuple[dict[str, None], dict[AbiVersion, None]]] = {}
    for one in (one for one in ROWS if (one.module, one.function) in rows):
        called, versions = merged.setdefault((one.case, availability(one)), ({}, {}))
        called[f"`{one.function}`"] = None
        versions.update(dict.fromkeys(one.versions))
    yield from table(
        ["Asked for", "Function", "Versions", "Answer"],
        (
            [case, ", ".join(called), versions_of(versions), answer]
            for (case, answer), (called, versions) in sorted(
                merged.items(), key=lambda item: first(item[0][0])
            )
        ),
    )
    yield "Tests of each answer:"
    yield ""
    yield from table(
        ["Function", "Answer", "Tests"],
        (
            [f"`{row.name}`", answer, named(tests)]
            for row in rows.values()
            for answer, tests in proofs(recorder, module, row)
        ),
    )


def callback_chapters(recorder: Recorder, words: dict[str, dict[str, str]]) -> Iterator[str]:
    rows: dict[str, list[Callback]] = {}
    for version in EVERY_VERSION:
        for name, row in callbacks(version).items():
            if row not in rows.setdefault(name, []):
                rows[name].append(row)
    for title in dict.fromkeys(said["chapter"] for said in words.values()):
        yield f"### {title}"
        yield ""
        lines = []
        for name, said in words.items():
            if said["chapter"] != title:
                continue
            tests = [c.test for c in recorder.callbacks if (c.callback, c.test.file) == (name, said["tests"])]
            there = [v for v in EVERY_VERSION if any(v.within(row.versions) for row in rows[name])]
            proof = named(dict.fromkeys(tests)) or link(Test(said["tests"], ""))
            types = " or ".join(f"`{row.signature.strip()}`" for row in rows[name])
            words_of = (said["when"], said.get("result", ""), proof)
            lines.append([f"`{name}`", said["parameters"], types, versions_of(there), *words_of])
        yield from table(
            ["Callback", "Parameters", "Type", "Versions", "Called", "What its result means", "Tests"], lines
        )


def not_here() -> Iterator[str]:
    yield "## Not here"
    yield ""
    unbuilt = [f"`{row.function}` of {row.case}" for row in ROWS if row.elsewhere == Status.UNIMPLEMENTED]
    yield f"* UNIMPLEMENTED, as in Envoy: {', '.join(unbuilt)}."
    yield f"* NOT_FOUND: {len(properties.ABSENT)} [attributes](#properties), and the foreign functions"
    yield "  `sign` and `verify_signature`."
    yield "* What only other hosts have is refused as an import: names that no version above has."
    yield ""


def phases() -> Iterator[str]:
    yield "## Phases"
    yield ""
    yield "The phases that every function is called in, in every version, and the callbacks they are."
    yield ""
    early = "`_initialize`, `main`, `__main_void` or `_start`"
    yield from table(
        ["Context", "Phase", "Callback", "Versions"],
        [
            ["none yet", START_SECTION, "the module's start function", "all"],
            ["none yet", "initialisation", early, "all"],
            ["none", "allocator", "`malloc` or `proxy_on_memory_allocate`", "all"],
            *(
                [KINDS[phase.kind], phase.name, f"`{phase.callback}`", versions_of(phase.versions)]
                for phase in PHASES
            ),
        ],
    )


# --- the whole ------------------------------------------------------------------------------------------


def record() -> Recorder:
    """Run the tests. Raises SystemExit with what pytest printed when one of them fails."""
    os.chdir(ROOT)
    recorder, output = Recorder(), io.StringIO()
    with contextlib.redirect_stdout(output):
        status = pytest.main(["-n", "0", "-p", "no:cacheprovider", *RECORDED], plugins=[recorder])
    if status != 0:
        raise SystemExit(f"{output.getvalue()}\nthe page is written from tests that pass only")
    return recorder


EARLY = (
    ("", START_SECTION),
    *(("", name) for name in ("_initialize", "main", "__main_void", "_start")),
    *(("", name) for name in ("malloc", "proxy_on_memory_allocate")),
)


def wanted() -> Iterator[tuple[AbiVersion, str, str, str, str]]:
    """Every version, function and phase that must have been called."""
    for version in EVERY_VERSION:
        here = [(phase.kind, phase.callback) for phase in PHASES if version in phase.versions]
        for row in host_functions(version):
            for kind, phase in dict.fromkeys([*EARLY, *here]):
                yield version, row.module, row.name, kind, phase


def untested(recorder: Recorder) -> list[str]:
    """Functions, versions and phases that no test has called, callbacks that no test has entered."""
    called = {(c.version, c.module, c.function, c.kind, c.phase) for c in recorder.calls}
    missing = [" ".join(map(str, one)) for one in wanted() if one not in called]
    entered = {(one.version, one.callback) for one in recorder.callbacks}
    for version in EVERY_VERSION:
        names_here = set(callbacks(version)) - {"proxy_validate_configuration"}
        missing += [f"{version} {name}" for name in sorted(names_here) if (version, name) not in entered]
    return missing


def unanswered(recorder: Recorder) -> list[str]:
    """Statuses that the body of a function names and no test of its own has got."""
    got: dict[str, set[int | None]] = {}
    for call in recorder.calls:
        if call.test.file != MATRIX:
            got.setdefault(call.function, set()).add(call.answer)
    missing = []
    for row in functions().values():
        kind: type[Status] | type[Errno] = Errno if row.module in WASI_MODULES else Status
        named_there = re.findall(rf"\b{kind.__name__}\.([A-Z_]+)", inspect.getsource(row.call.body))
        answers = got.get(row.name, set())
        missing += [f"{row.name}: {name}" for name in dict.fromkeys(named_there) if kind[name] not in answers]
    return missing


def page(recorder: Recorder) -> str:
    """The whole page."""
    words: dict[str, Any] = tomllib.loads((ROOT / "scripts" / "abi_words.toml").read_text(encoding="utf-8"))
    known = {call.test for call in recorder.calls} | {one.test for one in recorder.callbacks}
    all_names = list(dict.fromkeys(name for version in EVERY_VERSION for name in callbacks(version)))
    if sorted(words["callbacks"]) != sorted(all_names):
        raise SystemExit("scripts/abi_words.toml and the callbacks of versions.py do not agree")
    differences = []
    for one in words["differences"]:
        file, _, name = one["test"].partition("::")
        if Test(file, name) not in known:
            raise SystemExit(f"scripts/abi_words.toml names {one['test']}, which has not run")
        differences.append([one["envoy"], one["ours"], one["why"], link(Test(file, name))])
    titles = [*CHAPTERS.values(), "Callbacks", "Different from Envoy", "Not here", "Phases"]
    contents = ", ".join(f"[{title}](#{anchor(title)})" for title in titles)
    for_all = named(Test(file, name) for file, name in FOR_ALL)
    cells = len({one for one in wanted()})
    counts = (
        f"{len(functions())} host functions and {len(all_names)} callbacks in {len(EVERY_VERSION)} versions: "
        f"{cells:,} combinations of function, version and phase, each called by a test."
    )
    lines = [words["head"].format(counts=counts, contents=contents, for_all=for_all)]
    for module, title in CHAPTERS.items():
        lines += chapter(recorder, module, title)
    lines += ["## Callbacks", "", "What a filter may export. All may be missing, but for an allocator.", ""]
    lines += callback_chapters(recorder, words["callbacks"])
    lines += ["## Different from Envoy", "", "On purpose, and nowhere else in the ABI:", ""]
    lines += table(["Envoy 1.40", "Here", "Because", "Test"], differences)
    lines += not_here()
    lines += phases()
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    recorder = record()
    missing = [*untested(recorder), *unanswered(recorder)]
    if missing:
        print("no test calls, or no test gets as an answer:", *missing, sep="\n")
        return 1
    text = page(recorder)
    where_it_is = PAGE.relative_to(ROOT)
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{where_it_is} is not current: run `python scripts/abi_reference.py`")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    print(f"{where_it_is}: {len(list(wanted()))} combinations of function, version and phase")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
