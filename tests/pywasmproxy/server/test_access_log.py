"""Access logs on their way to files: lines of several exchanges; files that move, vanish or are full."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from pywasmproxy.server import access_log
from pywasmproxy.server.access_log import AccessLogs, LogFile
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
    upstream,
)

FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
ROUTES = """
- {match: {prefix: "/direct"}, direct_response: {status: 204}}
- {match: {prefix: "/dead"}, route: {cluster: dead}}
- {match: {prefix: "/up"}, route: {cluster: up}}
"""


def log_to(path: Path, more: str = "", condition: str = "") -> str:
    filtered = f"filter: {condition}, " if condition else ""
    return f'{{name: log, {filtered}typed_config: {{"@type": {FILE}, path: "{path}"{more}}}}}'


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def requests(options: str, *paths: str, lines: Lines | None = None) -> int:
    """Ask a proxy for paths; its upstream's port. When this returns, all lines are written."""
    async with upstream(hello) as up:
        clusters = cluster(up.port) + cluster(1, name="dead")
        text = bootstrap(listener(ROUTES, options=options), clusters=clusters)
        async with proxy(text, log=(lines or Lines()).log()) as server:
            client = await Client.open(port_of(server))
            for path in paths:
                await client.get(path, b"user-agent: test/1\r\nx-forwarded-for: 192.0.2.7\r\n")
            client.close()
        return up.port


async def test_default_format_of_several_exchanges(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    port = await requests(f"access_log: [{log_to(path)}]", "/up/1", "/direct", "/dead", "/none")
    lines = path.read_text().splitlines()
    start = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] "
    rest = r'"[0-9.]+" "test/1" "[0-9a-f-]{36}" "a\.test" '
    ends = [
        rf'"GET /up/1 HTTP/1\.1" 200 - 0 12 \d+ \d+ {rest}"127\.0\.0\.1:{port}"',
        rf'"GET /direct HTTP/1\.1" 204 - 0 0 \d+ - {rest}"-"',
        rf'"GET /dead HTTP/1\.1" 503 UF 0 \d+ \d+ - {rest}"127\.0\.0\.1:1"',
        rf'"GET /none HTTP/1\.1" 404 NR 0 0 \d+ - {rest}"-"',
    ]
    assert len(lines) == len(ends)
    for line, end in zip(lines, ends, strict=True):
        assert re.fullmatch(start + end, line), line


async def test_json_and_filters_and_two_logs_in_one_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    json_format = (
        ", log_format: {json_format: {path: '%REQ(:PATH)%', code: '%RESPONSE_CODE%', none: '%REQ(x-none)%'}}"
    )
    text_format = ', log_format: {text_format_source: {inline_string: "T %REQ(:PATH)%\\n"}}'
    bad = "{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: x}}}}"
    logs = [log_to(one, json_format), log_to(two, text_format), log_to(two, text_format, bad)]
    await requests(f"access_log: [{', '.join(logs).replace(chr(10), ' ')}]", "/up", "/dead")
    assert [json.loads(line) for line in one.read_text().splitlines()] == [
        {"path": "/up", "code": 200, "none": None},
        {"path": "/dead", "code": 503, "none": None},
    ]
    assert two.read_text().split() == ["T", "/up", "T", "/dead", "T", "/dead"]


BYTES = ', format: "%REQ(:PATH)% %DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT%\\n"'


async def test_bytes_of_requests_that_follow_each_other(tmp_path: Path) -> None:
    """Each has its own, also where several come in one piece."""
    path = tmp_path / "access.log"
    routes = ROUTES.splitlines()[1]
    text = bootstrap(listener(routes, options=f"access_log: [{log_to(path, BYTES)}]"))
    async with proxy(text) as server:
        client = await Client.open(port_of(server))
        asked = [f"GET /direct/{'x' * n} HTTP/1.1\r\nhost: a\r\n\r\n".encode() for n in (1, 20, 300)]
        client.send(b"".join(asked))
        answered = [await client.response() for _ in asked]
        client.send(asked[0])
        answered.append(await client.response())
        client.close()
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [int(received) for _, received, _ in lines] == [len(one) for one in (*asked, asked[0])]
    heads = [
        "HTTP/1.1 204 No Content\r\n" + "".join(f"{name}: {value}\r\n" for name, value in one.fields) + "\r\n"
        for one in answered
    ]
    assert [int(sent) for _, _, sent in lines] == list(map(len, heads))


async def test_what_upstreams_got_and_gave(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    wanted = (
        ', format: "%UPSTREAM_CONNECTION_ID% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED%\\n"'
    )
    async with upstream(hello) as up:
        options = f"access_log: [{log_to(path, wanted)}]"
        text = bootstrap(
            listener(ROUTES, options=options), clusters=cluster(up.port) + cluster(1, name="dead")
        )
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            for _ in range(3):  # on one connection
                await client.get("/up")
            client.close()
    lines = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    answer = len(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nHello World!")
    assert len({number for number, _, _ in lines}) == 1
    assert [sent for _, sent, _ in lines] == [len(head) for head in up.heads]
    assert [received for _, _, received in lines] == [answer] * 3


@pytest.mark.parametrize(
    ("format", "observed"),
    [
        ("", "UpstreamConnection"),
        ("%UPSTREAM_HOST_NAME%", "Observed"),
        ("%UPSTREAM_WIRE_BYTES_SENT%", "ObservedBytes"),
    ],
)
async def test_nothing_is_gathered_that_no_format_wants(tmp_path: Path, format: str, observed: str) -> None:
    more = f", format: '{format}'" if format else ""
    text = bootstrap(
        listener(ROUTES, options=f"access_log: [{log_to(tmp_path / 'a', more)}]"),
        clusters=cluster(1) + cluster(1, name="dead"),
    )
    async with proxy(text) as server:
        assert server.clusters["up"].connection_class.__name__ == observed
        assert type(server.listeners[0].serving.counts_of_connection()).__name__ == "DownstreamCounts"


TCP_FORMAT = (
    ', format: "%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% '
    '%RESPONSE_FLAGS% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_HOSTS_ATTEMPTED%\\n"'
)


async def test_tcp_connections_are_written_down_when_they_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"

    def tcp(name: str) -> str:
        return f"""
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: {name}
          access_log: [{log_to(path, TCP_FORMAT)}]
"""

    async with upstream(hello) as up:
        text = bootstrap(tcp("up"), tcp("dead"), clusters=cluster(up.port) + cluster(1, name="dead"))
        async with proxy(text) as server:
            client = await Client.open(port_of(server, "up"))
            request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
            for _ in range(2):
                client.send(request)
                await client.response()
            client.close()
            async with asyncio.timeout(20):
                while server.streams:
                    await asyncio.sleep(0.005)
            refused = await Client.open(port_of(server, "dead"))
            assert await refused.closed()
            refused.close()
    answer = len(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nHello World!")
    first, second = path.read_text().splitlines()
    host, got = f"127.0.0.1:{up.port}", 2 * len(request)
    assert first == f"TcpConnectionEnd {got} {2 * answer} {host} up - {got} {host}"
    assert second == "TcpConnectionEnd 0 0 127.0.0.1:1 dead URX,UF 0 127.0.0.1:1"


async def test_a_folder_that_is_not_there_is_said_once_and_hurts_nobody(tmp_path: Path) -> None:
    lines, path = Lines(), tmp_path / "gone" / "access.log"
    await requests(f"access_log: [{log_to(path)}]", *["/direct"] * 5, lines=lines)
    said = [line for line in lines.text if "access log" in line]
    assert len(said) == 1
    assert f"access log {path}: cannot be opened: No such file or directory; its lines are lost" in said[0]


async def until(path: Path, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in text_of(path):
            await asyncio.sleep(0.005)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "FLUSH_AFTER", 0.01)


def file_at(path: Path) -> tuple[LogFile, AccessLogs, Lines]:
    lines = Lines()
    logs = AccessLogs(lines.log()["main"])
    file = LogFile(str(path), logs)
    return file, logs, lines


@pytest.mark.usefixtures("quickly")
async def test_a_file_that_was_moved_is_opened_anew_when_told(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    file, logs, lines = file_at(path)
    file.append(b"1\n")
    await until(path, "1\n")
    path.rename(tmp_path / "old")
    file.append(b"2\n")
    await until(tmp_path / "old", "2\n")
    file.reopen()
    file.append(b"3\n")
    await until(path, "3\n")
    await file.close()
    assert (tmp_path / "old").read_text() == "1\n2\n"
    assert path.read_text() == "3\n"
    assert lines.errors() == []
    assert logs.failed == 0


@pytest.mark.usefixtures("quickly")
async def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    file, _, _ = file_at(path)
    file.append(b"1\n")
    await until(path, "1\n")
    path.unlink()
    file.append(b"2\n")
    await until(path, "2\n")
    await file.close()


@pytest.mark.usefixtures("quickly")
async def test_trouble_is_said_once_and_its_end_too(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    file, logs, lines = file_at(folder / "access.log")
    for number in range(3):
        file.append(b"lost\n")
        async with asyncio.timeout(20):
            while logs.failed <= number:
                await asyncio.sleep(0.005)
    folder.mkdir()
    file.append(b"kept\n")
    await until(folder / "access.log", "kept\n")
    await file.close()
    assert [line.rpartition("] ")[2].partition(": ")[2].strip() for line in lines.text] == [
        "cannot be opened: No such file or directory; its lines are lost",
        "is written again",
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")
@pytest.mark.usefixtures("quickly")
async def test_a_full_disk_is_said_once() -> None:
    file, logs, lines = file_at(Path("/dev/full"))
    for number in range(3):
        file.append(b"line\n")
        async with asyncio.timeout(20):
            while logs.failed <= number:
                await asyncio.sleep(0.005)
    await file.close()
    (said,) = lines.errors()
    assert "access log /dev/full: cannot be written to: No space left on device" in said


async def test_a_reader_that_does_not_read_costs_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "MOST_BYTES", 1000)
    monkeypatch.setattr(access_log, "FLUSH_BYTES", 100)
    monkeypatch.setattr(access_log, "LAST_FLUSH", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file, logs, lines = file_at(pipe)
    line = b"x" * 499 + b"\n"
    async with asyncio.timeout(20):
        while logs.failed < 50:  # until the pipe is full, and then what may wait
            file.append(line)
            await asyncio.sleep(0.001)
    assert file._size <= 1000
    # Said once each time: while the pipe still takes something, a thread that is late is trouble, too.
    told = [sum(what in line for line in lines.text) for what in ("wait to be written", "is written again")]
    assert told[0] - told[1] == 1
    await file.close()  # in bounded time, though nobody reads
    assert any("could not be written in time" in line for line in lines.text)
    os.close(reader)  # lets the thread go


async def test_own_streams(capfd: pytest.CaptureFixture[str]) -> None:
    logs = AccessLogs(Lines().log()["main"])
    for path in ("/dev/stdout", "/dev/stderr"):
        file = LogFile(path, logs)
        file.append(f"to {path}\n".encode())
        await file.close()
    assert capfd.readouterr() == ("to /dev/stdout\n", "to /dev/stderr\n")
