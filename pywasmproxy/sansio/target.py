"""The target of a request in its headers: tidied up, or the answer that it gets instead. Pure."""

from __future__ import annotations

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_manager import TargetRules
from pywasmproxy.sansio.local_reply import Details, LocalReply
from pywasmproxy.sansio.paths import BadPath, Redirected, tidy_host, tidy_path


def tidy(headers: HeaderMap, rules: TargetRules, destination: str | None) -> LocalReply | None:
    """Make host and path what they shall be; `destination` is the listener's `ip:port`.

    The answer to a request that is refused for its path (400, the connection ends), or sent to a better one.
    """
    host, path = headers.first(b":authority"), headers.first(b":path")
    if host:
        port = (destination or "").rpartition(":")[2]
        headers.set_in_place(b":authority", tidy_host(host, rules, int(port) if port else None))
    if not path:
        return None
    try:
        headers.set_in_place(b":path", tidy_path(path, rules))
    except BadPath:
        return LocalReply(400, details=Details.PATH_REFUSED)
    except Redirected as redirected:
        headers.set_in_place(b":path", redirected.path)
        target = HeaderMap([(b"location", redirected.path)])
        return LocalReply(307, details=Details.PATH_REFUSED, headers=target)
    return None
