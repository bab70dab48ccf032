"""Certificates in files of their own (SDS): put to use when they change, refused when they are bad."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from pathlib import Path

import pytest

from pywasmproxy.server import reloader
from pywasmproxy.server.proxy import Proxy, Server
from pywasmproxy.tls.certificate import parse
from tests.pywasmproxy.server.beside import PROXIES, beside
from tests.pywasmproxy.server.support import Client, Lines, bootstrap, cluster, listener, port_of, settled
from tests.pywasmproxy.server.test_tls import tls_upstream
from tests.support.certificates import Authority, Pair

pytestmark = pytest.mark.openssl

TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: fine}}}'
FINE = "certificate_chain: {{filename: {0.certificate}}}, private_key: {{filename: {0.key}}}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> list[Pair]:
    return [authority.issue(name) for name in ("first", "second", "third")]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloader, "LOOK_EVERY", 0.02)


def put(file: Path, secret: str) -> None:
    """Write a file with a secret, and move it to where it is looked for: the only way that Envoy sees."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f'resources:\n- {{"@type": {TYPE}Secret, {secret}}}\n')
    os.replace(fresh, file)


def identity(pair: Pair, name: str = "server") -> str:
    return f"name: {name}, tls_certificate: {{{FINE.format(pair)}}}"


def trusted(authority: Authority, name: str = "upstreams") -> str:
    return f"name: {name}, validation_context: {{trusted_ca: {{filename: {authority.certificate}}}}}"


def from_file(file: Path, name: str) -> str:
    return f"{{name: {name}, sds_config: {{path_config_source: {{path: {file}}}, resource_api_version: V3}}}}"


def socket(side: str, common: str) -> str:
    return (
        f'transport_socket: {{name: tls, typed_config: {{"@type": {TYPE}{side}TlsContext, '
        f"common_tls_context: {{{common}}}}}}}"
    )


async def shown(port: int) -> str:
    """The subject of the certificate that a port shows to a new client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.test")
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return parse(der).subject


async def shows(port: int, subject: str) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ConnectionError):  # Envoy listens before it has read its secrets
                if await shown(port) == subject:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.envoy
async def test_like_the_real_envoy(pairs: list[Pair], tmp_path: Path) -> None:
    first, second, third = pairs
    for which in PROXIES:
        file = tmp_path / f"{which}.yaml"
        put(file, identity(first))
        tls = socket("Downstream", f"tls_certificate_sds_secret_configs: [{from_file(file, 'server')}]")
        async with beside(which, tmp_path, DIRECT, "", socket=tls) as one:
            await shows(one.port, "CN=first")
            put(file, identity(second))
            await shows(one.port, "CN=second")
            put(file, identity(Pair(first.certificate, second.key)))
            await asyncio.sleep(2.5)  # longer than it takes to be seen
            assert await shown(one.port) == "CN=second", which
            put(file, identity(third))
            await shows(one.port, "CN=third")


def watching(text: str, folder: Path, lines: Lines) -> Proxy:
    path = folder / "envoy.yaml"
    path.write_text(text)
    return Proxy.from_file(path, log=lines.log(), watch=True)


async def refusals(server: Server, count: int) -> None:
    assert server.reloader is not None
    async with asyncio.timeout(20):
        while server.reloader.refused < count:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("quickly")
async def test_a_bad_secret_is_refused_with_its_reason(
    pairs: list[Pair], authority: Authority, tmp_path: Path
) -> None:
    first, second, _ = pairs
    file, lines = tmp_path / "sds.yaml", Lines()
    put(file, identity(first))
    tls = socket("Downstream", f"tls_certificate_sds_secret_configs: [{from_file(file, 'server')}]")
    text = bootstrap(listener(DIRECT).replace("    - filters:", f"    - {tls}\n      filters:", 1))
    bad = {
        identity(Pair(first.certificate, second.key)): "tls_certificate: KEY_VALUES_MISMATCH",
        identity(second, "other"): "the file has no Secret called 'server'",
        trusted(authority, "server"): "secret 'server' has no 'tls_certificate'",
        identity(second) + ", tls_certificat: {}": "unknown field 'tls_certificat' in Secret (did you mean",
        identity(Pair(tmp_path / "gone.pem", second.key)): "Invalid path: ",
    }
    async with watching(text, tmp_path, lines).running() as server:
        await shows(port_of(server), "CN=first")
        for count, (secret, reason) in enumerate(bad.items(), 1):
            put(file, secret)
            await refusals(server, count)
            assert reason in lines.errors()[-1], lines.errors()
            assert "refused, the running configuration stays: " in lines.errors()[-1]
            assert await shown(port_of(server)) == "CN=first"
        put(file, identity(second))
        await shows(port_of(server), "CN=second")
        await settled(server)


@pytest.mark.usefixtures("quickly")
async def test_a_key_that_changes_in_place(pairs: list[Pair], tmp_path: Path) -> None:
    """What a secret names is watched, too."""
    first, second, _ = pairs
    file = tmp_path / "sds.yaml"
    own = Pair(tmp_path / "own.pem", tmp_path / "own.key")
    for source, target in ((first.certificate, own.certificate), (first.key, own.key)):
        target.write_bytes(source.read_bytes())
    put(file, identity(own))
    tls = socket("Downstream", f"tls_certificate_sds_secret_configs: [{from_file(file, 'server')}]")
    text = bootstrap(listener(DIRECT).replace("    - filters:", f"    - {tls}\n      filters:", 1))
    async with watching(text, tmp_path, Lines()).running() as server:
        await shows(port_of(server), "CN=first")
        for source, target in ((second.certificate, own.certificate), (second.key, own.key)):
            target.write_bytes(source.read_bytes())
        await shows(port_of(server), "CN=second")
        await settled(server)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(
    "common",
    [
        "validation_context_sds_secret_config: {}",
        "combined_validation_context: {{default_validation_context: {{match_typed_subject_alt_names: "
        "[{{san_type: DNS, matcher: {{exact: a.test}}}}]}}, validation_context_sds_secret_config: {}}}",
    ],
)
async def test_whom_an_upstream_must_be(
    common: str, pairs: list[Pair], authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    stranger = Authority(tmp_path / "others", "stranger")
    file, mine = tmp_path / "sds.yaml", tmp_path / "mine.yaml"
    put(file, trusted(stranger))
    put(mine, identity(pairs[1], "me"))
    own = f"tls_certificate_sds_secret_configs: [{from_file(mine, 'me')}]"
    options = socket("Upstream", f"{own}, {common.format(from_file(file, 'upstreams'))}")
    async with tls_upstream(pairs[0], client_authority=authority) as up:
        text = bootstrap(listener(), clusters=cluster(up.port, options=options))
        async with watching(text, tmp_path, Lines()).running() as server:

            async def status() -> int:
                client = await Client.open(port_of(server))
                found = (await client.get()).status
                client.close()
                return found

            assert await status() == 503
            put(file, trusted(authority))
            async with asyncio.timeout(20):
                while await status() != 200:
                    await asyncio.sleep(0.05)
            await settled(server)
