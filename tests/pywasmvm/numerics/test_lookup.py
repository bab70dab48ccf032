"""`numerics.function`: every numeric instruction is found under its own name, and nothing else is."""

from __future__ import annotations

import pytest

from pywasmvm.numerics import convert, floats, function, integers
from tests.support.numeric import INSTRUCTIONS


def test_every_numeric_instruction_has_a_function() -> None:
    assert len(INSTRUCTIONS) == 136
    for name in INSTRUCTIONS:
        assert callable(function(name))


def test_the_function_is_named_after_the_instruction() -> None:
    assert function("i32.clz") is integers.i32_clz
    assert function("f64.nearest") is floats.f64_nearest
    assert function("i64.trunc_sat_f32_u") is convert.i64_trunc_sat_f32_u


@pytest.mark.parametrize("name", ["i32.load", "i32.nonsense", "i32_clz", "nan", "Trap", "", "."])
def test_anything_else_is_refused_by_name(name: str) -> None:
    with pytest.raises(LookupError, match="no numerics function"):
        function(name)
