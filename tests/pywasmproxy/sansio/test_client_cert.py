"""`x-forwarded-client-cert`: taken out, left, added to or replaced, as configuration and connection say."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.stream_info import CertificateFacts, StreamInfo, TlsFacts
from pywasmproxy.config.model_manager import ClientCertMode, ClientCertRules
from pywasmproxy.sansio.client_cert import FIELD, forwarded

PEER = CertificateFacts('CN=\\"a\\;b\\",O=x', ("c.test", "d.test"), ("spiffe://one",), "ab12")
LOCAL = CertificateFacts("CN=me", (), ("spiffe://me",), "ff")
SESSIONS = {
    "plain": None,
    "TLS": TlsFacts("TLSv1.3", LOCAL),
    "mutual": TlsFacts("TLSv1.3", LOCAL, PEER),
}
OURS = b"By=spiffe://me;Hash=ab12"


@pytest.mark.parametrize(
    ("mode", "left", "mutual"),
    [
        ("SANITIZE", [], []),
        ("FORWARD_ONLY", [], [b"forged"]),
        ("APPEND_FORWARD", [], [b"forged," + OURS]),
        ("SANITIZE_SET", [], [OURS]),
        ("ALWAYS_FORWARD_ONLY", [b"forged"], [b"forged"]),
    ],
)
def test_what_becomes_of_it(mode: str, left: list[bytes], mutual: list[bytes]) -> None:
    rules = ClientCertRules(ClientCertMode[mode])
    for kind, session in SESSIONS.items():
        info = StreamInfo(downstream_tls=session)
        fields = [(b"a", b"1"), (FIELD, b"forged"), (b"b", b"2")]
        after = forwarded(rules, fields, info)
        assert [line for line in after if line[0] != FIELD] == [(b"a", b"1"), (b"b", b"2")]
        assert [value for name, value in after if name == FIELD] == (mutual if kind == "mutual" else left)


def test_what_it_says() -> None:
    info = StreamInfo(downstream_tls=SESSIONS["mutual"])

    def said(*details: str) -> bytes:
        [(_, value)] = forwarded(ClientCertRules(ClientCertMode.SANITIZE_SET, frozenset(details)), [], info)
        return value

    assert said() == OURS
    assert said("subject") == OURS + b';Subject="CN=\\"a\\;b\\",O=x"'
    assert said("uri", "dns") == OURS + b";URI=spiffe://one;DNS=c.test;DNS=d.test"
