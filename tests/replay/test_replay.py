"""Every golden case against our proxy, and some of them against the real Envoy.

The second half keeps the tool honest: a replay that passes anything, or fails what Envoy does, shows up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from tests.replay import cases, modules, proxy, replay

FILES = sorted(cases.GOLDEN.glob("*.json"))
CASES = [case for file in FILES for case in cases.load(file)]
GAPS = cases.load_gaps()
JOBS = 2  # cases of a test that has several: they wait more than they compute


def run(selected: list[cases.Case], command: str | None, gaps: dict[str, str]) -> list[replay.Result]:
    return asyncio.run(replay.replay(selected, modules.build(), proxy.Command.parse(command), gaps, JOBS))


def bad(results: list[replay.Result]) -> str:
    return "\n".join(result.line() for result in results if not result.good)


@pytest.mark.npm
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{Path(case.file).stem}-{case.name}")
def test_our_proxy(case: cases.Case) -> None:
    results = run([case], None, GAPS)
    assert not bad(results), bad(results)


@pytest.mark.npm
@pytest.mark.envoy
@pytest.mark.parametrize("name", ["seed", "headers", "startup", "trailers", "http_call_forms", "tcp"])
def test_the_tool_against_the_real_envoy(name: str) -> None:
    results = run(cases.load(cases.GOLDEN / f"{name}.json"), "envoy", {})
    assert not bad(results), bad(results)


@pytest.mark.npm
@pytest.mark.envoy
def test_scripted_connections_against_the_real_envoy() -> None:
    names = {
        "tcp_client_ends_first",
        "tcp_upstream_resets",
        "tcp_down_stops",
        "tcp_up_closes",
        "tcp_two_order",
    }
    selected = [case for case in cases.load(cases.GOLDEN / "tcp_streams.json") if case.name in names]
    assert len(selected) == len(names)
    results = run(selected, "envoy", {})
    assert not bad(results), bad(results)


@pytest.mark.npm
@pytest.mark.envoy
def test_a_wrong_expectation_is_noticed() -> None:
    (case,) = [case for case in cases.load(cases.GOLDEN / "trailers.json") if case.name == "trailers_both"]
    data = json.loads(json.dumps(case.data))
    data["expect"]["responses"][0]["headers"][-1][1] = "identity"
    data["expect"]["responses"][0]["trailers"].pop()
    data["expect"]["request_logs"][0][2]["message"] += "!"
    data["expect"]["upstream_requests"][0]["body"] = "y"
    command = proxy.Command.parse("envoy")
    wrong = dataclasses.replace(case, data=data)
    (result,) = asyncio.run(replay.replay([wrong], modules.build(), command, {}, 1))
    assert result.outcome == "failed"
    assert len(result.differences) == 4
    (gap,) = asyncio.run(replay.replay([wrong], modules.build(), command, {case.name: "known"}, 1))
    assert gap.outcome == "gap"
    (mended,) = asyncio.run(replay.replay([case], modules.build(), command, {case.name: "known"}, 1))
    assert mended.outcome == "mended"


def test_the_list_of_gaps_names_existing_cases() -> None:
    assert set(GAPS) <= {case.name for case in CASES}
    assert all(GAPS.values())


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) == 253
