"""Every scene against the real Envoy and against our proxy: nothing may differ that is not in the table.

The rest keeps the tool honest: what it must notice, and that table and list of gaps have no idle entries.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.differential import compare, differences, differential, observe, scenes

PATHS = differential.paths()
AT_LEAST = 60  # exchanges


def marked(path: Path) -> object:
    return pytest.param(path, id=path.stem, marks=[getattr(pytest.mark, name) for name in scenes.needs(path)])


@pytest.mark.npm
@pytest.mark.envoy
@pytest.mark.parametrize("path", [marked(path) for path in PATHS])
def test_scene(path: Path) -> None:
    result = differential.run(path)
    assert result.scene.exchanges
    assert not result.report, result.report
    # An entry about this scene has to be of use in it.
    about = [one for one in differences.ON_PURPOSE if one.where_scene(path.stem)]
    assert [one.reason for one in about if one not in result.used] == []


def test_scenes_are_many_and_named_once() -> None:
    count = 0
    for path in PATHS:
        count += len(scenes.load(path, build=False).exchanges)
    assert count >= AT_LEAST


def test_entries_and_gaps_are_about_exchanges_that_exist() -> None:
    places = [f"{path.stem}:{one.name}" for path in PATHS for one in scenes.load(path, build=False).exchanges]
    for entry in differences.ON_PURPOSE:
        assert entry.reason
        assert any(entry.where_scene(path.stem) for path in PATHS)
    gaps = differential.load_gaps()
    assert set(gaps) <= set(places)
    assert all(gaps.values())


def observed() -> dict[str, observe.Observed]:
    return {
        "one": observe.Observed(
            response={"status": 200, "headers": ["a: 1", "a: 1", "b: 2"], "body": "x"},
            upstream=[{"method": "GET", "path": "/", "headers": ["host: h"], "body": ""}],
            guest=["[info] p: first", "[info] p: second"],
            host=["Function: f failed: unreachable"],
        )
    }


def test_equal_observations_do_not_differ() -> None:
    assert compare.compare("s", observed(), observed()) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda seen: seen.response.update(status=503), "response status"),
        (lambda seen: seen.response.update(headers=["a: 1", "b: 2"]), "response headers"),
        (lambda seen: seen.response.update(truncated=True), "response truncated"),
        (lambda seen: seen.upstream[0].update(path="/x"), "upstream request 0 path"),
        (lambda seen: seen.upstream.clear(), "number of upstream requests"),
        (lambda seen: seen.guest.reverse(), "guest line 0"),
        (lambda seen: seen.guest.pop(), "guest line 1 of 2, 1"),
        (lambda seen: seen.guest.append("more"), "guest line 2 of 2, 3"),
        (lambda seen: seen.host.clear(), "host error 0 of 1, 0"),
    ],
)
def test_every_difference_is_noticed(change, what: str) -> None:
    ours = copy.deepcopy(observed())
    change(ours["one"])
    found = compare.compare("s", observed(), ours)
    assert found[0].what == what
    assert all(difference.meant is None for difference in found)


def test_gaps_and_what_became_of_them() -> None:
    scene = scenes.Scene("s", differential.scenes.cases.Case("s", {}), [])
    ours = copy.deepcopy(observed())
    ours["one"].response["status"] = 503
    assert differential.judge(scene, observed(), ours, {}).report.startswith("s:one response status")
    assert not differential.judge(scene, observed(), ours, {"s:one": "known"}).report
    mended = differential.judge(scene, observed(), observed(), {"s:one": "known"})
    assert mended.report == "s:one does not differ any more: take it off gaps.toml"


def test_what_differs_from_run_to_run_is_replaced() -> None:
    steady = observe.Steady({"listener": 20001, "upstream": 40001})
    seen = steady.message(
        {
            "status": 200,
            "headers": [
                ["Date", "Thu, 26 Nov 2026 07:04:35 GMT"],
                ["x-envoy-upstream-service-time", "12"],
                ["x-request-id", "b3a1f0aa-7c35-4f4f-8a0c-0123456789ab"],
            ],
            "body": "from 127.0.0.1:55555 to 127.0.0.1:20001",
        }
    )
    assert seen["headers"] == [
        "date: <date>",
        "x-envoy-upstream-service-time: <ms>",
        "x-request-id: <request-id>",
    ]
    assert seen["body"] == "from 127.0.0.1:<port> to 127.0.0.1:<listener>"


def test_a_scene_with_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("filters: []\nexchanges: [{nam: x}]\n")
    with pytest.raises(ValueError, match="nam"):
        scenes.load(path)
