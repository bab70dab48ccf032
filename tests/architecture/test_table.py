"""The instruction table is complete: every row has every stage, and a test fails with the names of those that
have not.
"""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.interp import prepare
from pywasmvm.isa import BY_CODE, BY_NAME, ROWS
from pywasmvm.numerics import function
from pywasmvm.valid import code as valid_code
from pywasmvm.valid import module as valid_module


def names(rows: object) -> list[str]:
    return [f"{row.name} ({row.encoding.hex()})" for row in rows]  # type: ignore[attr-defined]


def test_every_row_can_be_typed() -> None:
    assert valid_module.RULE_FILES  # importing the family files is what registers their rules
    assert names(row for row in ROWS if not valid_code.has_rule(row)) == []


def test_every_row_can_be_interpreted() -> None:
    assert names(row for row in ROWS if not prepare.has_rule(row)) == []


def test_every_computation_has_a_function() -> None:
    computed = [row for row in ROWS if row.plain and row.name not in prepare.EXECUTED]
    missing = []
    for row in computed:
        try:
            function(row.name)
        except LookupError:
            missing.append(row)
    assert names(missing) == []
    assert len(computed) > 130


def test_no_rule_is_left_over() -> None:
    """A stage that knows an instruction the table does not has been forgotten, or misspelt."""
    assert set(prepare.EXECUTED) <= set(BY_NAME)
    assert set(prepare._STRUCTURE) <= set(BY_NAME)
    assert set(prepare._BY_IMMEDIATE) <= set(BY_NAME)


def test_rows_are_consistent() -> None:
    assert len(BY_CODE) == len(ROWS)
    assert {row.feature for row in ROWS} <= set(features.DESCRIPTIONS)
    for row in ROWS:
        if row.access is not None:
            assert row.access.size in (1, 2, 4, 8, 16)
            lane = ["lane"] if row.name.endswith("_lane") else []
            assert [kind.value for kind in row.immediates] == ["memarg", *lane]
    shared = [row.name for row in ROWS if BY_NAME[row.name] is not row]
    assert shared == ["select", "ref.test", "ref.cast"], "only these words have two codes"


def test_encodings_read_back_as_themselves() -> None:
    for row in ROWS:
        head, *rest = row.encoding
        if row.prefix is None:
            assert (head, rest) == (row.code, [])
        else:
            assert head == row.prefix
            assert sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(rest)) == row.code
