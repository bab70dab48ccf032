"""The admin server with several workers: one of them answers, or its successor; some orders are for all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from pywasmproxy.server.workers import possible
from tests.pywasmproxy.server.guests import wasm_filter
from tests.pywasmproxy.server.serving import ADMIN, DIRECT, AdminClient, Start, clients_of_both
from tests.pywasmproxy.server.support import Client, Visit, bootstrap, cluster, listener, upstream
from tests.pywasmproxy.server.test_drain import Process, served

pytestmark = pytest.mark.skipif(not possible(), reason="this system cannot fork")


async def ask(proxy: Process, path: str, method: str = "GET") -> str:
    client = await Client.open(proxy.ports["admin"])
    client.send(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    response = await client.response()
    client.close()
    assert response.status == 200
    return response.body.decode()


async def test_one_answers_and_its_successor_does_too(tmp_path: Path) -> None:
    async with upstream() as up, served(tmp_path, up.port, "--concurrency", "2") as proxy:
        await proxy.read_until("all 2 workers serve")
        await proxy.read_until("admin address")
        # Its port is the system's choice here, and another one for the successor.
        info = json.loads(await ask(proxy, "/server_info"))
        assert info["command_line_options"]["concurrency"] == 2
        os.kill(info["process"]["pid"], signal.SIGKILL)
        proxy.lines.clear()
        await proxy.read_until("admin address")
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    if await ask(proxy, "/ready") == "LIVE\n":
                        break
                await asyncio.sleep(0.02)
        assert await ask(proxy, "/reload", "POST") == "OK\n"
        await proxy.read_until("reload (SIGHUP): the configuration has been loaded anew")
        assert await ask(proxy, "/quitquitquit", "POST") == "OK\n"
        async with asyncio.timeout(20):
            assert await proxy.process.wait() == 0


async def fails(visit: Visit) -> None:
    """Answers 500 to a path that asks for it, else 200."""
    while True:
        head, _ = await visit.request()
        wanted = b"500 Oops" if b" /bad" in head else b"200 OK"
        visit.send(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % wanted)


EJECTS = "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100, base_ejection_time: 600s}"


async def test_what_is_shown_is_the_whole_proxy(start: Start) -> None:
    async with upstream(fails) as up:
        one = listener(filters=wasm_filter("mark", vm_id="v"))
        config = bootstrap(one, clusters=cluster(up.port, options=EJECTS))
        serving = await asyncio.to_thread(start, ADMIN + config)
        admin = AdminClient(serving)
        clients = await clients_of_both(serving)
        for client in clients:
            assert (await client.get()).status == 200
        host = f"up::127.0.0.1:{up.port}"
        counted = [
            int(text.partition(f"{host}::rq_total::")[2].partition("\n")[0])
            for path in ("/clusters", "/clusters?worker=0", "/clusters?worker=1")
            if (text := await admin.ask(path))
        ]
        assert counted[0] == counted[1] + counted[2] == len(clients)
        assert min(counted) > 0
        # One worker finds the host bad; the other one still uses it.
        assert (await clients[0].get("/bad")).status == 500
        text = await admin.ask("/clusters")
        assert f"{host}::health_flags::/failed_outlier_check\n" in text
        who = int(text.partition("failed_outlier_check_in_workers::")[2][0])
        for worker in (0, 1):
            flags = "/failed_outlier_check" if worker == who else "healthy"
            assert f"::health_flags::{flags}\n" in await admin.ask(f"/clusters?worker={worker}")
        page = await admin.ask("/")
        assert f"▲ /failed_outlier_check (worker {who})<" in page
        assert re.search(rf"<dt>answers</dt><dd>{len(clients) + 1}</dd>", page)
        assert "2 VMs" in page
        info = json.loads(await admin.ask("/server_info"))
        assert [one["index"] for one in info["workers"]] == [0, 1]
        assert sum(one["connections"] for one in info["workers"]) == len(clients)
        memory = json.loads(await admin.ask("/memory"))
        assert int(memory["guest_memory"]) == 2 * 65536
        [status] = json.loads(await admin.ask("/listeners?format=json"))["listener_statuses"]
        assert "workers" not in status
        for client in clients:
            client.close()
        assert serving.end() == 0


async def test_versions_while_not_all_have_the_new_configuration(start: Start, tmp_path: Path) -> None:
    serving = await asyncio.to_thread(start, ADMIN + bootstrap(listener(DIRECT)), "--no-watch")
    admin = AdminClient(serving)
    pids = serving.worker(0), serving.worker(1)

    async def report() -> Any:
        configs = json.loads(await admin.ask("/config_dump"))["configs"]
        return next(config for config in configs if config["@type"] == "pywasmvm/Report")

    found = await report()
    assert found["workers_agree"] is True
    assert [one["pid"] for one in found["workers"]] == list(pids)
    (tmp_path / "envoy.yaml").write_text(ADMIN + bootstrap(listener(DIRECT.replace("hello", "bye"))))
    os.kill(pids[1], signal.SIGHUP)
    await asyncio.to_thread(serving.wait_for, "loaded anew")
    found = await report()
    assert found["workers_agree"] is False
    assert [one["generation"] for one in found["workers"]] == [0, 1]
    assert len({one["version"] for one in found["workers"]}) == 2
    assert "Workers serve different configurations" in await admin.ask("/")
    assert "bye" in await admin.ask("/config_dump?worker=1")
    assert "bye" not in await admin.ask("/config_dump?worker=0")
    os.kill(pids[0], signal.SIGHUP)
    await asyncio.to_thread(serving.wait_for, "loaded anew", 2)
    found = await report()
    assert found["workers_agree"] is True
    assert "Workers serve different configurations" not in await admin.ask("/")
    assert serving.end() == 0


async def test_who_replaces_another_has_its_orders(start: Start) -> None:
    serving = await asyncio.to_thread(start, ADMIN + bootstrap(listener(DIRECT)))
    admin = AdminClient(serving)
    await admin.ask("/healthcheck/fail", "POST")
    await admin.ask("/logging?wasm=critical", "POST")
    await asyncio.to_thread(serving.kill, 1)
    stats = await admin.ask("/stats?worker=1&filter=server.live")
    assert stats == "server.live: 0\n"
    assert serving.end() == 0
