"""The page, the picture and the bars, from a small run that is made up; the command around the parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bars, kernels, report, run

KERNEL = {"kernel": "fib", "n": 22, "instructions": 100, "fuel_used": 100, "ours": 10.0, "pwasm": 20.0}

RUN: dict[str, Any] = {
    "date": "2026-01-02",
    "python": "3.11.9",
    "peers": {"pwasm": "0.2a0"},
    "missing": ["pywasm"],
    "tiers": {
        "interpreted": [KERNEL],
        "translated": [
            KERNEL | {"limited": 10.0, "fuel": 11.0, "unlimited": 8.0},
            KERNEL | {"limited": 10.0, "fuel": 11.0, "unlimited": 10.0},
        ],
    },
    "seed": [
        {"engine": "ours", "request_us": 500.0, "response_headers_us": 20.0, "early_us": None},
        {"engine": "pwasm", "request_us": 1000.0, "response_headers_us": 40.0, "early_us": 2000.0},
    ],
    "seed_cold": [{"engine": "ours", "load_ms": 1.0, "setup_ms": 2.0, "first_ms": 3.0, "total_ms": 6.0}],
    "boundary": [{"engine": "ours", "host call": 300.0, "export": 200.0, "export, empty": 100.0}],
    "starts": [
        {"filter": "seed", "start": "ours", "total": 0.1, "load": 0.05, "first": 0.02, "steady": 0.001},
        {"filter": "seed", "start": "pwasm", "total": 0.2, "load": 0.05, "first": 0.02, "steady": 0.001},
    ],
    "longrun": [{"case": "deep", "engine": "ours", "first": 30.0, "later": 20.0, "ratio": 1.5}],
    "workers": [
        {"workers": 1, "per_second": 1000.0, "clients": 0.1},
        {"workers": 2, "per_second": 1600.0, "clients": 0.2},
    ],
    "pythons": [{"kernel": "fib", "3.11.9": 10.0, "3.12.1": 11.0}],
}


def made_up() -> dict[str, Any]:
    return RUN | {"bars": bars.judge(RUN)}


def test_the_page_has_every_part() -> None:
    page = report.page(made_up())
    assert "| fib | 10.0 | 20.0 | 2.00 | 1.10 | 1.25 |" in page
    assert "| ours | 500 | 20.0 | - |" in page
    assert "| ours | 100 | 50.0 | 20.0 | 1.00 |" in page
    assert "| deep, ours | 30.0 | 20.0 | 1.50 |" in page
    assert "| 2 | 1,600 | 0.20 |" in page
    assert "| long first call : later one, worst | 1.500 | 1.30 | **no** |" in page
    assert "`pwasm` 0.2a0. Not installed: `pywasm`." in page
    assert all(len(line) <= 160 for line in page.splitlines() if not line.startswith("|"))


def test_parts_that_were_not_run_are_not_on_the_page() -> None:
    page = report.page({"date": "2026-01-02", "python": "3.11.9", "bars": []})
    assert page.count("#") == 1


def test_the_picture_has_a_bar_for_each_kernel() -> None:
    picture = report.picture(RUN["tiers"]["translated"])
    assert picture.count("<rect") == 2
    assert "2.00x" in picture


def test_bars_of_what_was_measured() -> None:
    found = {row["name"]: row for row in bars.judge(RUN)}
    assert found["limits of the proxy : none, worst kernel"]["figure"] == pytest.approx(1.25)
    assert not found["limits of the proxy : none, worst kernel"]["met"]
    assert found["seed filter, request : pwasm's"]["figure"] == 0.5
    assert found["throughput, one worker : two"]["figure"] == 0.625
    assert not found["throughput, one worker : two"]["met"]
    assert found["Python 3.12 : 3.11, geomean"]["figure"] == pytest.approx(1.1)
    assert "Python 3.13 : 3.11, geomean" not in found
    assert not [name for name in found if name.startswith("ai-proxy")]


def test_ci_checks_few_bars_and_none_is_tighter() -> None:
    assert [row["name"] for row in bars.judge(RUN, ci=True)] == [bar.name for bar in bars.BARS if bar.ci]
    assert all(bar.ci >= bar.bar for bar in bars.BARS if bar.ci is not None)


def test_the_committed_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["report.py", "--check"])
    assert report.main() == 0


def test_a_page_that_is_old_is_noticed_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "2026-01-01-old.json").write_text("{}")
    (tmp_path / "results" / "2026-01-02-new.json").write_text(json.dumps(made_up()))
    monkeypatch.setattr(report, "HERE", tmp_path)
    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["report.py", "--check"])
    assert report.main() == 1
    monkeypatch.setattr("sys.argv", ["report.py"])
    assert report.main() == 0
    monkeypatch.setattr("sys.argv", ["report.py", "--check"])
    assert report.main() == 0
    assert (tmp_path / "benchmarks.svg").exists()


def test_the_command_writes_results_and_says_whether_bars_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", "")
    monkeypatch.setenv("PWASM_CACHE_DIR", "")
    part = {key: RUN[key] for key in ("tiers", "longrun")}
    monkeypatch.setattr(run, "PARTS", {"kernels": lambda args: part})
    path = tmp_path / "run.json"
    assert run.main(["--json", str(path)]) == 1  # the long first call
    assert "NOT MET" in capsys.readouterr().out
    written = json.loads(path.read_text())
    assert written["tiers"] == RUN["tiers"]
    assert {row["name"] for row in written["bars"]} > {"fuel on : off, geomean"}
    assert run.main(["--ci"]) == 0
    with pytest.raises(SystemExit):
        run.main(["no-such-part"])


@pytest.mark.parametrize("fault", ["fuel", "answer"])
def test_the_command_fails_for_wrong_answers(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", "")
    monkeypatch.setenv("PWASM_CACHE_DIR", "")
    case = kernels.cases(["fib"], 0)[0]
    wrong = case | ({"instructions": 5} if fault == "fuel" else {"result": 5})
    monkeypatch.setattr(kernels, "cases", lambda names, size: [wrong])
    assert run.main(["kernels", "--quick", "--ci", "--rounds", "1"]) == 2
