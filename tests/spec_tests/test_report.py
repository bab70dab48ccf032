"""What a run of the suite is measured against, and what is written about it."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pywasmvm.script.results import Outcome, Results, totals

FOLDER = Path(__file__).resolve().parents[2] / "spec-tests"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    import report  # type: ignore[import-not-found, unused-ignore]  # beside the scripts it reports on

    return report  # type: ignore[no-any-return, unused-ignore]


def record(file: str, passed: int, failed: int = 0, commands: int | None = None) -> dict[str, Any]:
    results = Results(file, commands=passed + failed if commands is None else commands)
    for line in range(passed):
        results.add(Outcome(line, "assert_return"))
    for line in range(failed):
        results.add(Outcome(line, "assert_trap", "nothing failed"))
    return results.to_json()


def a_run(*records: dict[str, Any], round_trip: str | None = None) -> dict[str, Any]:
    sums = totals(records)
    sums |= {"engine": "interp", "round_trip": round_trip, "jobs": 2, "wall_seconds": 12.0}
    return {"totals": sums, "files": list(records)}


COUNTS = {"core/a.wast": {"assert_return": 3}, "core/b.wast": {"assert_return": 1, "assert_trap": 1}}


def test_all_as_expected(report: ModuleType) -> None:
    assert report.gaps.complaints(record("core/a.wast", 3), {}, COUNTS) == []
    assert report.gaps.complaints(record("own/x.wast", 3), {}, COUNTS) == []


@pytest.mark.parametrize(
    ("found", "known", "said"),
    [
        (record("core/b.wast", 1, 1), {}, "core/b.wast: 1 commands failed"),
        (record("core/b.wast", 1, 1), {"core/b.wast": {"failed": 2}}, "only 1 of 2 known failures are left"),
        (record("core/a.wast", 3), {"core/a.wast": {"failed": 1}}, "shorten expected.toml"),
        (record("core/a.wast", 2), {}, "ran {'assert_return': 2}, the suite counts {'assert_return': 3}"),
        (record("core/a.wast", 3, commands=5), {}, "2 commands never ran"),
    ],
)
def test_what_is_complained_about(report: ModuleType, found: dict[str, Any], known: Any, said: str) -> None:
    assert said in "\n".join(report.gaps.complaints(found, known, COUNTS))


def test_a_known_gap_is_no_complaint(report: ModuleType) -> None:
    known = {"core/b.wast": {"failed": 1, "reason": "why"}}
    assert report.gaps.complaints(record("core/b.wast", 1, 1), known, COUNTS) == []


def test_files_that_were_not_run_are_missed(report: ModuleType) -> None:
    counts = {**COUNTS, "legacy/old.wast": {"assert_return": 1}}
    assert report.judge(a_run(record("core/a.wast", 3)), counts) == ["interp: core/b.wast was not run"]


def test_suites_without_counts(report: ModuleType, tmp_path: Path) -> None:
    assert report.gaps.counts(tmp_path) == {}
    assert report.gaps.counts(None) == {}
    (tmp_path / "COUNTS.json").write_text('{"core/a.wast": {"bytes": 9, "module": 2, "forms": {"quote": 1}}}')
    assert report.gaps.counts(tmp_path) == {"core/a.wast": {"module": 2}}


def test_every_known_gap_has_a_reason(report: ModuleType) -> None:
    assert all(gap["failed"] > 0 and gap["reason"] for gap in report.gaps.expected().values())


@pytest.mark.parametrize(
    ("file", "area"),
    [
        ("core/i32.wast", "WebAssembly 1.0"),
        ("core/simd/simd_lane.wast", "SIMD"),
        ("core/table_grow.wast", "Table instructions"),
        ("core/return_call.wast", "Tail calls"),
        ("core/return_call_ref.wast", "References and recursive types"),
        ("core/memory64/table_grow64.wast", "64-bit memories and tables"),
        ("custom/name/name_annot.wast", "Custom annotations"),
        ("own/x.wast", "Other"),
    ],
)
def test_areas(report: ModuleType, file: str, area: str) -> None:
    assert report.area(file) == area
    assert area in report.ORDER


def test_the_page(report: ModuleType) -> None:
    records = [record("core/i32.wast", 1200), record("core/gc/x.wast", 3, 1), record("custom/y.wast", 2)]
    page = report.document([a_run(*records), a_run(*records, round_trip="text")])
    assert "**interp, text round trip**: 1,203 of 1,204 in `core`, 2 of 2 in `custom`" in page
    assert "| proposal | interp | interp, text round trip |" in page
    assert "| Garbage collection | 3 of 4 | 3 of 4 |" in page
    assert "| assert_return | 1,205 of 1,205 | 1,205 of 1,205 |" in page


def test_the_picture(report: ModuleType) -> None:
    sums = report.by_area(a_run(record("core/i32.wast", 3), record("core/gc/x.wast", 1, 3)))
    image = ElementTree.fromstring(report.picture("4 of <7>", report.ORDER, sums))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in image.iter(f"{space}text")]
    assert "4 of <7>" in texts
    assert texts[-4:] == ["WebAssembly 1.0", "3 / 3", "Garbage collection", "1 / 4"]
    bars = [float(bar.get("width", "")) for bar in image.iter(f"{space}rect")][1:]
    assert bars == [330.0, 82.5, 247.5]
