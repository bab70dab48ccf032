"""The filters that choose among instances of a model together: `gpustack-lb` publishes the candidates and
takes the one with the most votes, the others cast theirs: sessions, load, a decision service."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.pywasmproxy.server.higress.support import (
    Gateway,
    json_answer,
    named,
    seen,
    several,
    wasm_filter,
)
from tests.pywasmproxy.server.support import Upstream, Visit, answer, upstream

pytestmark = [pytest.mark.higress, pytest.mark.slow]

CHOSEN = '- {name: ai-route, match: {prefix: "/"}, route: {cluster_header: x-higress-target-cluster}}'
CANDIDATES = [
    {"cluster": "outbound|80||model-1-1.static", "targetId": "1", "kind": "instance"},
    {"cluster": "outbound|80||model-2-1.static", "targetId": "2", "kind": "instance"},
]
CONTEXT = {
    "mode": "context",
    "candidates": CANDIDATES,
    "modelMappers": {"1": {"gpt-*": "small"}, "2": {"gpt-*": "large"}},
}


def lb(name: str, config: dict[str, Any]) -> str:
    return wasm_filter("gpustack-lb", config, name=name, vm_id="lb")


def band(*votes: str, **context: Any) -> list[str]:
    """The filters of a route: candidates, votes, choice."""
    return [lb("candidates", CONTEXT | context), *votes, lb("finisher", {"mode": "finisher"})]


class Instance:
    """An instance of a model: answers with its name; a request with `x-hold` waits for `release`."""

    def __init__(self, name: bytes) -> None:
        self.name, self.release, self.holding = name, asyncio.Event(), asyncio.Event()

    async def serve(self, visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            if b"\r\nx-hold:" in head:
                self.holding.set()
                await self.release.wait()
            visit.send(answer(self.name))


@contextlib.asynccontextmanager
async def balanced(
    listeners: dict[str, list[str]], *more: tuple[str, Upstream]
) -> AsyncIterator[tuple[Gateway, Upstream, Upstream]]:
    """Two instances of a model behind these listeners."""
    async with upstream(Instance(b"one").serve) as one, upstream(Instance(b"two").serve) as two:
        clusters = named("model-1-1.static", one.port) + named("model-2-1.static", two.port)
        clusters += "".join(named(name, other.port) for name, other in more)
        async with several(listeners, CHOSEN, clusters) as it:
            yield it, one, two
        assert it.lines.errors() == []


async def ask(it: Gateway, at: str, model: str = "gpt-4", text: str = "", **fields: str) -> bytes:
    """Which instance answers."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    got = await it.post("/v1/chat/completions", body, at=at, x_higress_llm_model=model, **fields)
    return got.body if got.status == 200 else b"%d" % got.status


@contextlib.asynccontextmanager
async def one_waits(it: Gateway, at: str, *instances: Upstream) -> AsyncIterator[bytes]:
    """While one request is held by an instance; which one."""
    made = [one.handler.__self__ for one in instances]  # type: ignore[attr-defined]
    asked = asyncio.create_task(ask(it, at, x_hold="1"))
    held = [asyncio.create_task(one.holding.wait()) for one in made]
    async with asyncio.timeout(60):
        await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    [name] = [one.name for one in made if one.holding.is_set()]
    try:
        yield name
    finally:
        for one, task in zip(made, held, strict=True):
            one.release.set()
            task.cancel()
        assert await asked == name


def models(*upstreams: Upstream) -> list[str]:
    """The model that each was asked for last."""
    return [seen(one).json["model"] for one in upstreams]


async def test_lb() -> None:
    """In turn, or by weight; the model's name becomes the chosen one's; no more at a time than may be."""
    weighted = [CANDIDATES[0] | {"weight": 0}, CANDIDATES[1] | {"weight": 7}]
    capped = [CANDIDATES[0] | {"maxRunningRequests": 1}]
    listeners = {"plain": band(), "weighted": band(candidates=weighted), "capped": band(candidates=capped)}
    async with balanced(listeners) as (it, one, two):
        assert sorted([await ask(it, "plain") for _ in range(4)]) == [b"one", b"one", b"two", b"two"]
        assert models(one, two) == ["small", "large"]
        assert {await ask(it, "plain", "other") for _ in range(2)} == {b"one", b"two"}
        assert models(one, two) == ["other", "other"]
        assert [await ask(it, "weighted") for _ in range(4)] == [b"two"] * 4
        async with one_waits(it, "capped", one):
            assert await ask(it, "capped") == b"429"
        assert await ask(it, "capped") == b"one"


async def test_lb_session_affinity() -> None:
    keys = [{"header": "x-session"}, {"bodyKey": "model"}]
    config = {"sessionKeys": keys, "enableOnPathSuffix": ["/completions"]}
    listeners = {"sticky": band(wasm_filter("gpustack-lb-session-affinity", config)), "free": band()}
    async with balanced(listeners) as (it, *_):
        for kind in ("x_session", "model"):  # from a header, or from the body
            homes = set()
            for session in "abcdefgh":
                [home] = {await ask(it, "sticky", **{kind: session}) for _ in range(3)}
                homes.add(home)
            assert homes == {b"one", b"two"}
        assert {await ask(it, "free", x_session="a") for _ in range(2)} == {b"one", b"two"}


async def test_lb_least_load() -> None:
    listeners = {"least": band(wasm_filter("gpustack-lb-least-load", {})), "turns": band()}
    async with balanced(listeners) as (it, one, two), one_waits(it, "least", one, two) as busy:
        idle = b"two" if busy == b"one" else b"one"
        assert [await ask(it, "least") for _ in range(5)] == [idle] * 5
        assert {await ask(it, "turns") for _ in range(2)} == {busy, idle}


async def test_lb_decision_service() -> None:
    """A service says which model a task is for; when it says nothing, requests are served in turn."""

    async def decide(visit: Visit) -> None:
        while True:
            _, body = await visit.request()
            task = json.loads(body)["state"]
            if "broken" in task:
                visit.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
                continue
            choice, other = ("large", "small") if "hard" in task else ("small", "large")
            verdict = {"choice": choice, "confidence": 0.9, "probabilities": {choice: 0.9, other: 0.1}}
            visit.send(json_answer({"answers": {"model_selection": verdict}}))

    criteria = {"small": "quick", "large": "thorough"}
    config = {
        "provider": {
            "endpoint": "http://decisions.test",
            "cluster": "outbound|80||decisions.static",
            "apiTokens": ["key"],
        },
        "modelSelection": {"criteria": criteria},
    }
    listeners = {"decided": band(wasm_filter("gpustack-lb-decision-service", config))}
    async with upstream(decide) as service:
        async with balanced(listeners, ("decisions.static", service)) as (it, *_):
            for text, instance in (("a hard task", b"two"), ("an easy task", b"one")):
                assert [await ask(it, "decided", text=text) for _ in range(3)] == [instance] * 3
                asked = seen(service)
                assert (asked.path, asked["authorization"]) == ("/v1/systemone", "Bearer key")
                question = asked.json["questions"]["model_selection"]
                assert (question["type"], question["criteria"]) == ("choice", criteria)
            assert {await ask(it, "decided", text="broken") for _ in range(2)} == {b"one", b"two"}
        assert len(service.heads) >= 7
