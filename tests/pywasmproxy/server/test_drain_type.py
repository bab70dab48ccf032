"""Connections end when health checks are told to fail, unless their listener says otherwise: as in Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmproxy.config import load
from tests.pywasmproxy.server.beside import PROXIES, beside
from tests.pywasmproxy.server.support import Client, bootstrap, listener, port_of, proxy

DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200}}'


@pytest.mark.envoy
@pytest.mark.parametrize(("kind", "ends"), [("DEFAULT", "close"), ("modify_only", None)])
async def test_like_the_real_envoy(kind: str, ends: str | None, tmp_path: Path) -> None:
    for which in PROXIES:
        async with beside(which, tmp_path, DIRECT, "", fields=f"drain_type: {kind}") as one:
            client = await Client.open(one.port)
            assert (await client.get()).one("connection") is None
            assert await one.post("/healthcheck/fail") == 200
            assert (await client.get()).one("connection") == ends, which
            client.close()
            assert await one.post("/healthcheck/ok") == 200
            again = await Client.open(one.port)
            assert (await again.get()).one("connection") is None
            again.close()


async def test_listeners_that_come_later_and_change() -> None:
    """What is known of health goes for them, too; a connection asks with each response."""
    text = bootstrap(listener(DIRECT))
    quiet = text.replace("    filter_chains:", "    drain_type: MODIFY_ONLY\n    filter_chains:")
    more = bootstrap(listener(DIRECT), listener(DIRECT, name="more"))
    async with proxy(text) as server:

        async def ends(name: str = "main") -> bool:
            client = await Client.open(port_of(server, name))
            found = (await client.get()).one("connection")
            client.close()
            return found == "close"

        assert not await ends()
        server.failing = True
        assert await ends()
        await server.reload(load(quiet))
        assert not await ends()
        await server.reload(load(more))
        assert await ends()
        assert await ends("more")
        server.failing = False
        assert not await ends()
        assert not await ends("more")
