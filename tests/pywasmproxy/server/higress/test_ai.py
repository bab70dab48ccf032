"""Filters that understand what models are asked and what they answer: protocols, statistics, usage, words."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.pywasmproxy.server.higress.support import (
    Gateway,
    events_in,
    gateway,
    named,
    seen,
    speaking,
    telling_json,
    wasm_filter,
)
from tests.pywasmproxy.server.support import cluster, upstream

pytestmark = [pytest.mark.higress, pytest.mark.slow]

CHAT = "/v1/chat/completions"
SERVICE = "model-1-2.static"
CLUSTER = f"outbound|80||{SERVICE}"
ROUTES = f'''- {{name: ai-route-route-5.internal, match: {{prefix: "/"}}, route: {{cluster: "{CLUSTER}"}}}}'''

USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def completion(text: str) -> dict[str, Any]:
    """What a model answers."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return {"id": "1", "model": "m", "choices": [choice], "usage": USAGE}


def chunk(text: str) -> dict[str, Any]:
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}


def events(*texts: str) -> list[str]:
    """What a model streams: pieces of text, and the usage in the end."""
    chunks = [*map(chunk, texts), {"id": "1", "model": "m", "choices": [], "usage": USAGE}]
    return [f"data: {json.dumps(one)}\n\n" for one in chunks] + ["data: [DONE]\n\n"]


def asking(text: str = "hello", **more: object) -> dict[str, object]:
    """What a client asks."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def metrics(it: Gateway, *, of: str) -> dict[str, int]:
    """The values of metrics by the last part of their names, of those that have `of` in it."""
    found = it.server.filters.registry.services.metrics
    names = {metric.name.decode(): metric.value for metric in found}
    return {name.rpartition(".")[2]: int(value) for name, value in names.items() if of in name}


async def test_ai_statistics() -> None:
    """Tokens are counted, in metrics and in a property: a limiter that reads it refuses who used up his."""
    statistics = {
        "attributes": [
            {
                "key": "question",
                "value_source": "request_body",
                "value": "messages.0.content",
                "apply_to_log": True,
            }
        ]
    }
    user = {"source": "header", "name": "x-user", "value": "*"}
    limits = {
        "rule_name": "rule",
        "limit_combinations": [{"name": "tokens", "match": [user], "token_limits": {"per_hour": 30}}],
    }
    filters = [wasm_filter("gpustack-rate-limit", limits), wasm_filter("ai-statistics", statistics)]
    counted = f"upstream.{CLUSTER}.model.m.consumer.none"
    routes = "- {match: {prefix: /plain}, route: {cluster: plain}}\n" + ROUTES
    async with upstream(speaking(completion("hi"), events("h", "i"))) as up, upstream() as plain:
        clusters = named(SERVICE, up.port) + cluster(plain.port, name="plain")
        async with gateway(filters, routes, clusters) as it:
            got = await it.post(CHAT, asking("how are you?"), x_user="a")
            assert json.loads(got.body) == completion("hi")
            first = metrics(it, of=counted)
            tokens = {"input_token": 10, "output_token": 20, "total_token": 30, "llm_duration_count": 1}
            assert first.items() >= tokens.items()
            assert "llm_stream_duration_count" not in first
            assert (await it.post(CHAT, asking(), x_user="a")).status == 429

            got = await it.post(CHAT, asking(stream=True), x_user="b")
            assert events_in(got.body) == events_in("".join(events("h", "i")).encode())
            second = metrics(it, of=counted)
            assert {name: second[name] for name in tokens} == {name: 2 * n for name, n in tokens.items()}
            assert second["llm_stream_duration_count"] == 1
            assert (await it.post(CHAT, asking(), x_user="b")).status == 429

            # What tells no usage is not counted, and where it is not counted nobody is refused.
            assert (await it.post("/plain", asking(), x_user="a")).body == b"Hello World!"
            assert metrics(it, of=counted) == second
    assert it.lines.errors() == []


async def test_token_usage() -> None:
    """Usage is reported to a service; a stream's tells how fast it was, to clients that asked for usage."""
    config = {
        "realIPHeader": "x-real-ip",
        "header_add": {"x-token": "secret"},
        "endpoint": {"service_name": "usage.static", "service_port": 80, "path": "/usage"},
    }
    routes = "- {name: other, match: {prefix: /other}, route: {cluster: other}}\n" + ROUTES
    async with (
        upstream(speaking(completion("hi"), events("h", "i"))) as up,
        upstream(telling_json({})) as usage,
    ):
        clusters = (
            named(SERVICE, up.port) + named("usage.static", usage.port) + cluster(up.port, name="other")
        )
        async with gateway([wasm_filter("gpustack-token-usage", config)], routes, clusters) as it:

            async def reported(number: int) -> dict[str, Any]:
                async with asyncio.timeout(60):
                    while len(usage.bodies) < number:
                        await asyncio.sleep(0.01)
                assert (seen(usage).path, seen(usage)["x-token"]) == ("/usage", "secret")
                report: dict[str, Any] = seen(usage).json
                return report

            got = await it.post(CHAT, asking(), x_mse_consumer="key.gpustack-42", x_real_ip="1.2.3.4")
            assert json.loads(got.body) == completion("hi")
            assert (seen(up)["x-real-ip"], seen(up)["x-token"]) == ("127.0.0.1", "secret")
            report = {
                "model": "m",
                "model_id": 1,
                "model_route_id": 5,
                "input_token": 10,
                "output_token": 20,
                "total_token": 30,
                "completed": True,
                "request_content_bytes": 5,
            }
            caller = {"user_id": 42, "access_key": "key", "output_chunk_count": 0}
            assert (await reported(1)).items() >= (report | caller).items()

            streamed = events_in("".join(events("h", "i")).encode())
            got = await it.post(CHAT, asking(stream=True, stream_options={"include_usage": False}))
            assert seen(up).json["stream_options"] == {"include_usage": True}
            assert events_in(got.body) == [*streamed[:2], "[DONE]"]
            second = await reported(2)
            assert second.items() >= (report | {"output_chunk_count": 2}).items()
            assert "user_id" not in second

            got = await it.post(CHAT, asking(stream=True))
            assert seen(up).json["stream_options"] == {"include_usage": True}
            [told] = [one["usage"] for one in events_in(got.body) if "usage" in one]
            assert told.items() > USAGE.items()
            assert told["tokens_per_second"] > 0
            await reported(3)

            # Others are not trusted with the token, and nothing is reported of them.
            assert (await it.post("/other" + CHAT, asking(), x_real_ip="1.2.3.4")).status == 200
            assert (seen(up)["x-real-ip"], seen(up)["x-token"]) == ("1.2.3.4", None)
            assert (await it.post(CHAT, asking())).status == 200
            await reported(4)
            assert len(usage.bodies) == 4
    assert it.lines.errors() == []


async def test_ai_proxy() -> None:
    """A client speaks OpenAI's protocol, the upstream Anthropic's, at once and streamed."""
    config = {
        "provider": {
            "id": "p",
            "type": "claude",
            "apiTokens": ["key"],
            "modelMapping": {"gpt-*": "claude-x", "*": "claude-y"},
        }
    }
    head = {"id": "msg", "type": "message", "role": "assistant", "model": "claude-x"}
    reply = head | {
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 20},
    }
    stream: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": head | {"content": [], "usage": {"input_tokens": 10, "output_tokens": 0}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "h"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "i"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 10, "output_tokens": 20},
        },
        {"type": "message_stop"},
    ]
    sse = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in stream]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    async with (
        upstream(speaking(reply, sse)) as up,
        gateway([wasm_filter("gpustack-ai-proxy", config)], ROUTES, named(SERVICE, up.port)) as it,
    ):
        got = await it.post(CHAT, {"model": "gpt-4", "messages": messages}, authorization="Bearer client")
        sent = seen(up)
        assert (sent.path, sent["host"]) == ("/v1/messages", "api.anthropic.com")
        assert (sent["x-api-key"], sent["anthropic-version"]) == ("key", "2023-06-01")
        assert sent["authorization"] is None
        assert (sent.json["model"], sent.json["system"]) == ("claude-x", "be brief")
        assert sent.json["messages"] == messages[1:]
        answer = json.loads(got.body)
        assert (answer["object"], answer["usage"]) == ("chat.completion", USAGE)
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hi"}

        got = await it.post(CHAT, {"model": "other", "messages": messages, "stream": True})
        assert (seen(up).json["model"], seen(up).json["stream"]) == ("claude-y", True)
        told = events_in(got.body)
        assert {one["object"] for one in told} == {"chat.completion.chunk"}
        deltas = [one["choices"][0]["delta"] for one in told if one["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == "hi"
        assert told[-1]["usage"] == USAGE

        # Paths that it does not know go as they are.
        got = await it.post("/v1/nosuch", {"model": "gpt-4"})
        assert (json.loads(got.body), seen(up).path) == (reply, "/v1/nosuch")
        assert seen(up).json == {"model": "gpt-4"}
    assert it.lines.errors() == []


async def test_data_masking() -> None:
    """Words that are denied reach neither the model nor the client. The start reads a dictionary: slow."""
    config = {"deny_words": ["forbidden"], "deny_code": 451, "deny_message": "not to be said"}
    refusal = {"index": 0, "message": {"role": "assistant", "content": "not to be said"}}

    def said(body: bytes) -> Any:
        return json.loads(body)["choices"]

    async with (
        upstream(speaking(completion("fine"), events("fine"))) as up,
        upstream(telling_json(completion("a forbidden word"))) as other,
    ):
        routes = "- {match: {prefix: /bad}, route: {cluster: bad}}\n" + ROUTES
        clusters = named(SERVICE, up.port) + cluster(other.port, name="bad")
        async with gateway([wasm_filter("ai-data-masking", config)], routes, clusters) as it:
            got = await it.post(CHAT, asking("an allowed word"))
            assert (got.status, json.loads(got.body)) == (200, completion("fine"))
            assert seen(up).json == asking("an allowed word")

            got = await it.post(CHAT, asking("a forbidden word"))
            assert (got.status, said(got.body)) == (451, [refusal])
            got = await it.post(CHAT, asking("a forbidden word", stream=True))
            assert (got.status, got.one("content-type")) == (451, "text/event-stream;charset=UTF-8")
            assert events_in(got.body)[0]["choices"][0]["delta"]["content"] == "not to be said"
            assert len(up.heads) == 1

            got = await it.post("/bad" + CHAT, asking())
            assert (got.status, said(got.body)) == (200, [refusal])
            got = await it.post(CHAT, asking(stream=True))
            assert events_in(got.body)[0]["choices"][0]["delta"]["content"] == "fine"
    assert it.lines.errors() == []
