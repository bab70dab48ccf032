"""The instruction table is complete: every row has every stage, and a test fails with the names of those that
have not.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pywasmvm import features
from pywasmvm.binary import code as binary_code
from pywasmvm.interp import prepare
from pywasmvm.isa import BY_CODE, BY_NAME, ROWS, Imm, Opcode
from pywasmvm.numerics import function
from pywasmvm.script.suite import find_suite
from pywasmvm.text import instructions as text_instructions
from pywasmvm.translate import build, rules
from pywasmvm.valid import code as valid_code
from pywasmvm.valid import module as valid_module

ROOT = Path(__file__).resolve().parents[2]


def names(rows: object) -> list[str]:
    return [f"{row.name} ({row.encoding.hex()})" for row in rows]  # type: ignore[attr-defined]


def test_every_row_can_be_typed() -> None:
    assert valid_module.RULE_FILES  # importing the family files is what registers their rules
    assert names(row for row in ROWS if not valid_code.has_rule(row)) == []


def test_every_row_can_be_interpreted() -> None:
    assert names(row for row in ROWS if not prepare.has_rule(row)) == []


def test_every_row_can_be_translated() -> None:
    assert build.RULE_FILES
    assert names(row for row in ROWS if not rules.has_rule(row)) == []


def test_every_computation_has_a_function() -> None:
    computed = [row for row in ROWS if row.plain and row.name not in prepare.EXECUTED]
    missing = []
    for row in computed:
        try:
            function(row.name)
        except LookupError:
            missing.append(row)
    assert names(missing) == []
    assert len(computed) > 350


def test_every_immediate_can_be_read_and_printed() -> None:
    """Parsing and writing are tested instruction by instruction (tests/pywasmvm/text, test_encode.py)."""
    used = {kind for row in ROWS for kind in row.immediates}
    assert used == set(Imm), "a kind that no row has"
    assert used - set(binary_code._READERS) == set()
    assert used - text_instructions.PRINTED == set()


def test_no_rule_is_left_over() -> None:
    """A stage that knows an instruction the table does not has been forgotten, or misspelt."""
    assert set(prepare.EXECUTED) <= set(BY_NAME)
    assert set(prepare._STRUCTURE) <= set(BY_NAME)


def test_rows_are_consistent() -> None:
    assert len(BY_CODE) == len(ROWS)
    assert {row.feature for row in ROWS} <= set(features.DESCRIPTIONS)
    for row in ROWS:
        if row.access is not None:
            assert row.access.size in (1, 2, 4, 8, 16)
            assert row.immediates in ((Imm.MEMARG,), (Imm.MEMARG, Imm.LANE))
    shared = [row.name for row in ROWS if BY_NAME[row.name] is not row]
    assert shared == ["select", "ref.test", "ref.cast"], "only these have two codes"


def test_encodings_read_back_as_themselves() -> None:
    for row in ROWS:
        head, *rest = row.encoding
        if row.prefix is None:
            assert (head, rest) == (row.code, [])
        else:
            assert head == row.prefix
            assert sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(rest)) == row.code


# -- scripts ---------------------------------------------------------------------------------------------

#: What is no code: comments, and strings (also quoted modules, most of which are malformed on purpose).
_NO_CODE = re.compile(r'"(?:\\.|[^"\\])*"|;;[^\n]*')
_INNERMOST_COMMENT = re.compile(r"\(;(?:(?!\(;|;\)).)*;\)", re.DOTALL)
_WORD = re.compile(r"[a-z][a-z0-9_.]*")

#: Where one word has two rows: how each is written.
_WRITTEN = {
    (Imm.VALTYPES,): re.compile(r"\bselect\s*\(\s*result\b"),
    (Imm.REF,): re.compile(r"\bref\.(test|cast)\s*\(ref\s+(?!null)"),
    (Imm.REFNULL,): re.compile(r"\bref\.(test|cast)\s*(\(ref\s+null|[a-z0-9]+ref\b)"),
}


def reached(scripts: list[Path]) -> set[Opcode]:
    """The rows whose words occur in the code of scripts."""
    words: set[str] = set()
    forms: set[tuple[str, tuple[Imm, ...]]] = set()
    for path in scripts:
        code = _NO_CODE.sub(" ", path.read_text(encoding="utf-8"))
        comments = 1
        while comments:
            code, comments = _INNERMOST_COMMENT.subn(" ", code)
        words |= set(_WORD.findall(code))
        forms |= {
            (found.split()[0].partition("(")[0], immediates)
            for immediates, pattern in _WRITTEN.items()
            for found in (match.group() for match in pattern.finditer(code))
        }
    return {
        row
        for row in ROWS
        if row.name in words and (row.immediates not in _WRITTEN or (row.name, row.immediates) in forms)
    }


@pytest.mark.suite
def test_every_row_is_reached_by_a_script() -> None:
    """Of the official suite or of our own; a row that none names has never been run against the outside."""
    scripts = [*(find_suite() / "core").rglob("*.wast"), *(ROOT / "spec-tests" / "own").rglob("*.wast")]
    assert names(set(ROWS) - reached(scripts)) == []


def test_words_in_comments_and_strings_reach_nothing(tmp_path: Path) -> None:
    script = tmp_path / "some.wast"
    script.write_text('(module quote "i32.add") ;; i32.sub\n(; i32.mul (; nested ;) ;) (ref.test (ref $t))')
    assert {(row.name, row.immediates) for row in reached([script])} == {("ref.test", (Imm.REF,))}


# -- reference -------------------------------------------------------------------------------------------


def test_every_row_has_an_entry_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "instructions.md").read_text(encoding="utf-8")
    entries = set(re.findall(r"^\| `([^`]+)` \| `([0-9a-f ]+)` \|", page, re.MULTILINE))
    rows = {(row.name, row.encoding.hex(" ")) for row in ROWS}
    assert sorted(rows - entries) == [], "run scripts/instruction_reference.py"
    assert sorted(entries - rows) == [], "run scripts/instruction_reference.py"
