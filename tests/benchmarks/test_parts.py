"""Every part of the benchmarks at a tiny size: it runs, and what the engines answer is right. No times."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from benchmarks import boundary, engines, go, kernels, life, longrun, pythons, seed, startup, timing, workers

HAVE_PWASM = importlib.util.find_spec("pwasm") is not None


@pytest.fixture(autouse=True)
def _few_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and pwasm, which is quick to load; without a cache."""
    monkeypatch.setattr(engines, "PEERS", tuple(peer for peer in engines.PEERS if peer.name == "pwasm"))
    for name in ("PYWASMVM_CACHE_DIR", "PWASM_CACHE_DIR"):
        monkeypatch.setenv(name, "")


def names(rows: list[dict[str, object]], key: str = "engine") -> set[object]:
    return {row[key] for row in rows}


PEERS = {"pwasm"} if HAVE_PWASM else set()


def test_workers_and_wrong_answers_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl", reason="this system cannot fork")
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 2)
    rows = workers.measure(rounds=1, seconds=0.2)
    assert [row["workers"] for row in rows] == [1, 2]
    assert all(row["per_second"] > 0 for row in rows)
    with workers.serving(1) as port:
        monkeypatch.setattr(workers, "REQUEST", b"GET /\r\n\r\n")
        clients = workers.Clients(port, 1)
        with pytest.raises(timing.WrongAnswerError):
            clients.answered(5)
        clients.close()
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 1)
    assert workers.measure(rounds=1) == []


def test_kernels_of_the_interpreter() -> None:
    [row] = kernels.measure("interpreted", ["fib"], rounds=1)
    assert row["fuel_used"] == row["instructions"] == 19_729
    assert {"ours", *PEERS} < set(row)


def test_kernels_translated_with_fuel_and_without_limits() -> None:
    [row] = kernels.measure("translated", ["matmul"], rounds=1)
    assert row["fuel_used"] == row["instructions"] == 944_036
    assert {"ours", "fuel", "unlimited", *PEERS} < set(row)
    [row] = kernels.measure("translated", ["matmul"], rounds=1, full=False)
    assert "fuel" not in row


def test_every_kernel_has_a_binary_and_two_sizes() -> None:
    small, large = kernels.cases([], 0), kernels.cases([], -1)
    assert len(small) == len(large) == 15
    assert all(a["instructions"] < b["instructions"] for a, b in zip(small, large, strict=True))
    assert all(kernels.binary(case["kernel"]).startswith(b"\0asm") for case in small)


def test_the_seed_filter() -> None:
    rows = seed.measure(rounds=1, warm=3)
    assert names(rows) == {"ours", "ours, abi", *PEERS}
    assert all(row["early_us"] is None for row in rows)
    assert names(seed.cold(rounds=1)) == {"ours", *PEERS}


def test_the_boundary() -> None:
    rows = boundary.measure(rounds=1, calls=50)
    assert names(rows) == {"ours", *PEERS}
    assert set(boundary.COLUMNS) < set(rows[0])


def test_long_first_calls() -> None:
    rows = longrun.measure(rounds=1, peers=False, small=True)
    assert names(rows, "case") == {case.name for case in longrun.CASES}


@pytest.mark.wasmtime
def test_wasmtime_agrees_about_what_a_long_call_answers() -> None:
    for case in longrun.CASES:
        run = engines.Wasmtime(case.binary(), {}).function("run")
        for size, (answer, _) in case.sizes.items():
            assert run(size) & 0xFFFF_FFFF == answer


@pytest.mark.wasmtime
def test_wasmtime_runs_the_seed_filter() -> None:
    assert life.Seed(engines.Wasmtime).request() > 0


def test_starts_in_processes_of_their_own() -> None:
    starts = [go.Start("ours"), go.Start("ours, snapshot", warm=True)]
    starts += [go.Start("pwasm", warm=True)] if HAVE_PWASM else []

    def child(filter_: str, variant: str, environment: dict[str, str]) -> dict[str, float]:
        return go.child(filter_, variant, environment, requests=4)

    rows = go.measure(["seed"], rounds=1, starts=starts, run=child)
    assert [row["start"] for row in rows] == [start.name for start in starts]
    assert all({"load", "setup", "first", "second", "third", "total", "steady"} < set(row) for row in rows)


def test_a_snapshot_is_left_and_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "snapshot"
    monkeypatch.setenv(startup.SNAPSHOT, str(path))
    load = engines.ours(snapshot=path)
    startup.leave_snapshot("seed", load)
    assert path.exists()
    alive = life.Seed(load)
    assert isinstance(alive.guest, engines.Ours)
    assert alive.guest.restored
    assert alive.request() > 0
    startup.leave_snapshot("seed", load)  # there is one: it stays


@pytest.mark.higress
@pytest.mark.slow
def test_a_go_plugin_on_the_stub_host() -> None:
    times = startup.start("set-header", engines.ours(validate="lazy"), requests=4)
    assert {"load", "initialise", "configure", "first", "total", "steady"} < set(times)


def test_starts_need_the_plugins(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(life.importlib.util, "find_spec", lambda name: None)
    assert go.measure(["set-header"], rounds=1) == []
    assert "left out" in capsys.readouterr().out


def test_other_pythons(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        pythons, "version", lambda python: {sys.executable: "3.11.9", "other": "3.12.1"}.get(python)
    )
    asked = []

    def child(python: str, names: list[str]) -> list[dict[str, object]]:
        asked.append(python)
        return [{"kernel": "fib", "ours": 10.0 + len(asked)}]

    monkeypatch.setattr(pythons, "_child", child)
    rows = pythons.measure(["other", "broken"], rounds=2, kernels=["fib"])
    assert rows == [{"kernel": "fib", "3.11.9": 11.0, "3.12.1": 12.0}]
    assert "broken: left out" in capsys.readouterr().out


def test_a_child_of_this_python_gives_rows() -> None:
    assert pythons.version(sys.executable) == ".".join(map(str, sys.version_info[:3]))
    assert pythons.version("no such program") is None
    [row] = pythons._child(sys.executable, ["mandel"])
    assert row["fuel_used"] == row["instructions"]


def test_a_wrong_answer_is_an_error() -> None:
    def wrong(data: bytes, imports: engines.Imports) -> engines.Guest:
        guest = engines.Ours(data, imports)
        guest.function = lambda name: lambda *args: 1  # type: ignore[method-assign, assignment]
        return guest

    with pytest.raises(timing.WrongAnswerError, match="expected"):
        life.Seed(wrong).request()


def test_the_least_of_all_rounds_counts() -> None:
    seconds = iter([3.0, 5.0, 2.0, 7.0])
    assert timing.best({"a": lambda: next(seconds), "b": lambda: next(seconds)}, 2) == {"a": 2.0, "b": 5.0}
    assert timing.geomean([1.0, 4.0]) == 2.0
