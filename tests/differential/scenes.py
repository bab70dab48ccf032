"""Scenes: one configuration of a proxy each, and the exchanges that both proxies are given, as YAML.

The keys are those of a golden case (tests/replay/README.md) and those README.md beside this file adds. A
scene expects nothing: what the real Envoy does is what is expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.examples import guests
from tests.replay import cases

SCENES = Path(__file__).resolve().parent / "scenes"
OF_SCENE = {"about", "filters", "upstream", "exchanges", "routes", "node", "log_level"}
OF_SCENE |= {"manager", "route_config", "virtual_host"}
OF_SCENE |= {"downstream_http1_trailers", "upstream_http1_trailers"}
OF_EXCHANGE = {"name", "about", "case", "answer", "until", "method", "path", "headers", "body", "body_repeat"}
OF_EXCHANGE |= {"chunks", "trailers", "timeout", "sleep", "raw"}
STRING = "type.googleapis.com/google.protobuf.StringValue"


@dataclass(frozen=True)
class Exchange:
    """One request and what the upstream answers it."""

    name: str
    request: dict[str, Any]
    answer: dict[str, Any]
    until: str | None = None  # a regular expression: the exchange is over when a guest line matches it


@dataclass(frozen=True)
class Scene:
    """One start of both proxies, and the exchanges in order."""

    name: str
    case: cases.Case
    exchanges: list[Exchange] = field(default_factory=list)


def load(path: Path, build: bool = True) -> Scene:
    """Read a scene, and build the examples it uses. ValueError for a key that means nothing."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    _known(path, data, OF_SCENE)
    exchanges = []
    for number, one in enumerate(data["exchanges"]):
        _known(path, one, OF_EXCHANGE)
        request = {key: one[key] for key in one if key not in ("name", "about", "case", "answer", "until")}
        if "case" in one:
            request["headers"] = [["x-probe", one["case"]], *request.get("headers", [])]
        answer = one.get("answer", data.get("upstream", {}))
        exchanges.append(Exchange(str(one.get("name", number)), request, answer, one.get("until")))
    names = [one.name for one in exchanges]
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: two exchanges of one name")
    filters = [_filter(one, build) for one in data["filters"]]
    case = cases.Case(path.name, {**data, "name": path.stem, "filters": filters, "requests": []})
    return Scene(path.stem, case, exchanges)


def _known(path: Path, data: dict[str, Any], known: set[str]) -> None:
    unknown = set(data) - known
    if unknown:
        raise ValueError(f"{path}: unknown keys {sorted(unknown)}")


def needs(path: Path) -> set[str]:
    """The markers of what the scene's examples are built with."""
    filters = yaml.safe_load(path.read_text(encoding="utf-8"))["filters"]
    return {guests.MARKERS[one["example"]] for one in filters if one.get("example") in guests.MARKERS}


def _filter(one: dict[str, Any], build: bool) -> dict[str, Any]:
    """`script` is a configuration of text, `example` a filter of examples/."""
    known = {key: value for key, value in one.items() if key not in ("script", "example")}
    if "script" in one:
        known["configuration"] = {"@type": STRING, "value": one["script"]}
    if "example" in one and build:
        known["wasm"] = str(guests.build(one["example"]).with_suffix(""))
    return {"name": "p", "root_id": "r", "vm_id": "v", **known}
