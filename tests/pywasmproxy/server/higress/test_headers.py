"""Filters that rewrite requests and responses, or mark them for the router: transformer, headers before the
route, generic router."""

from __future__ import annotations

import json

import pytest

from tests.pywasmproxy.server.higress.support import gateway, named, seen, several, telling_json, wasm_filter
from tests.pywasmproxy.server.support import cluster, hello, telling, upstream

pytestmark = [pytest.mark.higress, pytest.mark.slow]

BY_HEADER = '- {name: any, match: {prefix: "/"}, route: {cluster_header: x-to}}'

REQUESTS = {
    "reqRules": [
        {"operate": "remove", "headers": [{"key": "x-remove"}], "querys": [{"key": "q1"}]},
        {
            "operate": "rename",
            "headers": [{"oldKey": "x-old", "newKey": "x-new"}],
            "querys": [{"oldKey": "q2", "newKey": "q2-new"}],
        },
        {"operate": "replace", "headers": [{"key": "x-replace", "newValue": "replaced"}]},
        {
            "operate": "add",
            "headers": [{"key": "x-add", "value": "host-$1", "host_pattern": r"^(.*)\.test$"}],
            "querys": [{"key": "q3", "value": "v-$1", "path_pattern": r"^.*?/(\w+)[\?]{0,1}.*$"}],
        },
        {"operate": "append", "headers": [{"key": "x-add", "appendValue": "more"}]},
        {"operate": "map", "headers": [{"fromKey": "x-replace", "toKey": "x-mapped"}]},
        {"operate": "dedupe", "headers": [{"key": "x-twice", "strategy": "RETAIN_UNIQUE"}]},
    ]
}

BODIES = {
    "reqRules": [
        {"operate": "remove", "body": [{"key": "a1"}]},
        {"operate": "rename", "body": [{"oldKey": "a2", "newKey": "a2-new"}]},
        {"operate": "replace", "body": [{"key": "a3", "newValue": "7", "value_type": "number"}]},
        {"operate": "map", "headers": [{"fromKey": "who.name", "toKey": "x-who"}], "mapSource": "body"},
    ]
}

RESPONSES = {
    "respRules": [
        {
            "operate": "add",
            "headers": [{"key": "x-answer", "value": "yes"}],
            "body": [{"key": "note.by", "value": "filter", "value_type": "string"}],
        },
        {"operate": "remove", "headers": [{"key": "x-secret"}], "body": [{"key": "secret"}]},
    ]
}


async def test_transformer() -> None:
    answer = {"secret": 1, "open": 2}
    route = {"reqRules": [{"operate": "replace", "headers": [{"key": "x-to", "newValue": "other"}]}]}
    listeners = {
        name: [wasm_filter("transformer", config, name=name)]
        for name, config in (
            ("requests", REQUESTS),
            ("bodies", BODIES),
            ("responses", RESPONSES),
            ("route", route),
        )
    }
    async with upstream(telling_json(answer, b"x-secret: 1\r\n")) as up, upstream(telling(b"other")) as other:
        clusters = cluster(up.port) + cluster(other.port, name="other")
        async with several(listeners, BY_HEADER, clusters) as it:
            fields = {
                "x_remove": "1",
                "x_old": "o",
                "x_replace": "r",
                "x_twice": "1\r\nx-twice: 1\r\nx-twice: 2",
            }
            got = await it.get("/get?q1=1&q2=2&q4=4", at="requests", x_to="up", **fields)
            assert json.loads(got.body) == answer
            sent = seen(up)
            assert sent.path == "/get?q2-new=2&q3=v-get&q4=4"
            for name, value in (
                ("x-remove", None),
                ("x-old", None),
                ("x-new", "o"),
                ("x-replace", "replaced"),
                ("x-mapped", "replaced"),
                ("x-add", "host-a,more"),
                ("x-twice", "1,2"),
            ):
                assert sent[name] == value, name

            await it.post("/", {"a1": 1, "a2": 2, "a3": 3, "who": {"name": "ann"}}, at="bodies", x_to="up")
            assert seen(up).json == {"a2-new": 2, "a3": 7, "who": {"name": "ann"}}
            assert seen(up)["x-who"] == "ann"
            await it.post("/", b"a1=1", at="bodies", x_to="up", content_type="text/plain")
            assert (seen(up).body, seen(up)["x-who"]) == ("a1=1", None)

            got = await it.get(at="responses", x_to="up")
            assert json.loads(got.body) == {"open": 2, "note": {"by": "filter"}}
            assert (got.one("x-answer"), got.one("x-secret")) == ("yes", None)

            assert (await it.get(at="route", x_to="up")).body == b"other"  # the route is chosen afterwards
    assert it.lines.errors() == []


async def test_set_header_pre_route() -> None:
    """The names of the route and of its cluster's service, on the paths of AI."""
    config = {
        "routeNameHeader": "x-route",
        "clusterNameHeader": "x-cluster",
        "enableOnPathPrefix": ["/model/"],
    }
    routes = """
- {name: first, match: {prefix: /v1}, route: {cluster: "outbound|80||model-1-2.static"}}
- {name: second, match: {prefix: /}, route: {cluster: "outbound|80||other.static"}}
"""
    filters = [wasm_filter("gpustack-set-header-pre-route", config)]
    async with upstream(hello) as up:
        clusters = named("model-1-2.static", up.port) + named("other.static", up.port)
        async with gateway(filters, routes, clusters) as it:
            for path, route, service in (
                ("/v1/chat/completions", "first", "model-1-2.static"),
                ("/v1/embeddings?x=1", "first", "model-1-2.static"),
                ("/model/x", "second", "other.static"),
                ("/v1/other", None, None),
            ):
                assert (await it.get(path)).status == 200
                assert (seen(up)["x-route"], seen(up)["x-cluster"]) == (route, service), path
    assert it.lines.errors() == []


async def test_generic_proxy_router() -> None:
    """A model's name, from the path or from the body, decides where a request goes."""
    config = {
        "prefix": "/model/proxy",
        "targetHeader": "x-to",
        "addProviderHeader": "x-provider",
        "modelToHeader": "x-model",
        "aliasNameMapping": {"plain": "one", "split": "two/gpt-4"},
        "autoRouting": {
            "enable": True,
            "defaultModel": "one",
            "rules": [{"pattern": "(?i)\\bcode\\b", "model": "two/gpt-4"}],
        },
    }
    chat, user = "/v1/chat/completions", [{"role": "user", "content": "write some code"}]
    auto = {"model": "higress/auto", "messages": user}
    idle = {"model": "higress/auto", "messages": [{"role": "user", "content": "hello"}]}
    async with upstream(telling(b"one")) as one, upstream(telling(b"two")) as two:
        clusters = cluster(one.port, name="one") + cluster(two.port, name="two/gpt-4")
        filters = [wasm_filter("gpustack-generic-proxy-router", config)]
        async with gateway(filters, BY_HEADER, clusters) as it:
            for path, body, to, provider, model, sent in (
                ("/model/proxy/plain/v1/x", {"model": "m"}, one, None, "one", {"model": "m"}),
                ("/model/proxy/split/v1/x", {"model": "m"}, two, "two", "gpt-4", {"model": "m"}),
                (chat, {"model": "two/gpt-4"}, two, "two", "gpt-4", {"model": "gpt-4"}),
                (chat, {"model": "one"}, one, None, "one", {"model": "one"}),
                (chat, auto, two, "two", "gpt-4", auto | {"model": "gpt-4"}),
                (chat, idle, one, None, "one", idle | {"model": "one"}),
            ):
                got = await it.post(path, body)
                assert (got.status, got.body) == (200, b"one" if to is one else b"two"), body
                assert (seen(to)["x-provider"], seen(to)["x-model"]) == (provider, model), body
                assert seen(to).json == sent
            assert (await it.post("/healthz", {"model": "one"})).status == 503  # it names no cluster
    assert it.lines.errors() == []
