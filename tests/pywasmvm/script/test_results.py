"""Counting: passed are assertions, failed is everything that failed, skipped is what never ran."""

from __future__ import annotations

import json

from pywasmvm.script.results import Outcome, Results, totals


def counted() -> Results:
    results = Results("a.wast", commands=7)
    results.add(Outcome(1, "module"))
    results.add(Outcome(2, "assert_return"))
    results.add(Outcome(3, "assert_return", "got i32:1, expected i32:2"))
    results.add(Outcome(4, "assert_invalid", None, "type mismatch", "type mismatch (function 0)"))
    results.add(Outcome(5, "assert_malformed", None, "unexpected end", "length out of bounds"))
    results.add(Outcome(6, "register", "the instance $m did not load"))
    return results


def test_what_is_counted() -> None:
    results = counted()
    assert (results.passed, results.failed, results.skipped, results.assertions) == (3, 2, 1, 4)
    assert [failure.line for failure in results.failures] == [3, 6]
    assert (results.messages, [d.line for d in results.disagreements]) == (2, [5])
    assert not results.ok


def test_complete_and_right_is_ok() -> None:
    results = Results("b.wast", commands=1)
    assert not results.ok
    results.add(Outcome(1, "assert_trap"))
    assert results.ok


def test_records_add_up() -> None:
    record = counted().to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["kinds"]["assert_return"] == {"passed": 1, "failed": 1}
    assert record["messages"] == {"total": 2, "agreed": 1}
    summed = totals([record, record])
    assert (summed["passed"], summed["failed"], summed["skipped"], summed["commands"]) == (6, 4, 2, 14)
    assert summed["kinds"]["assert_return"] == {"passed": 2, "failed": 2}
    assert summed["peak_memory"] is None
    assert totals([])["passed"] == 0
