"""Code that the configuration names by URI and SHA-256: fetched through a cluster, checked, and kept.

Source: envoy.config.core.v3.RemoteDataSource; Envoy 1.40 for what happens without it: the proxy serves, and a
plugin whose code never came fails closed or open, as configured. Unlike Envoy, it is then asked for again
until it comes. What has been fetched is also kept on disk, in the folder of the VM's cache.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from pywasmproxy.config.model import RemoteCode, WasmCode
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.codec import HeaderLines, ResponseHead
from pywasmproxy.server.log import Logger
from pywasmproxy.server.upstream import UpstreamRequest
from pywasmproxy.server.wire import UnsafeHeader, request_bytes
from pywasmproxy.stats.counts import RemoteLoadCounts
from pywasmvm.cache import folder

MOST_BYTES = 1 << 28
"""Of code."""


class FetchError(Exception):
    """An attempt that brought no code, and why."""


class CodeStore:
    """Code by its SHA-256; what another store has is there, too."""

    def __init__(
        self, clusters: Mapping[str, Cluster], logger: Logger, other: CodeStore | None = None
    ) -> None:
        self._clusters, self._logger = clusters, logger
        self._codes: dict[str, bytes] = {} if other is None else dict(other._codes)
        self.counts: RemoteLoadCounts = RemoteLoadCounts() if other is None else other.counts

    def take(self, other: CodeStore) -> None:
        """Have what another store has."""
        self._codes |= other._codes

    def get(self, code: WasmCode) -> bytes | None:
        """The bytes; None for what has not been fetched."""
        return code.data if code.remote is None else self._codes.get(code.remote.sha256)

    def __len__(self) -> int:
        return len(self._codes)

    def keep_only(self, codes: Iterable[WasmCode]) -> None:
        """Forget all others."""
        wanted = {code.sha256 for code in codes}
        self._codes = {sha256: data for sha256, data in self._codes.items() if sha256 in wanted}

    async def fetch(self, codes: Iterable[WasmCode]) -> bool:
        """Get what is not there yet, with the retries of each; whether all of it is there now."""
        missing = {
            code.remote.sha256: code.remote for code in codes if code.remote and self.get(code) is None
        }
        found = await asyncio.gather(*(self._fetch(remote) for remote in missing.values()))
        return all(found)

    async def _fetch(self, remote: RemoteCode) -> bool:
        if (kept := _kept(remote.sha256)) is not None:
            self._codes[remote.sha256] = kept
            self.counts.remote_load_cache_hits += 1
            return True
        self.counts.remote_load_cache_misses += 1
        pause = remote.base_interval
        for attempt in range(remote.retries + 1):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, remote.max_interval)
            try:
                data = await self._asked(remote)
            except FetchError as error:
                self.counts.remote_load_fetch_failures += 1
                self._logger.warning(f"{remote.uri}: attempt {attempt + 1} failed: {error}")
                continue
            self._codes[remote.sha256] = data
            folder.write(_name(remote.sha256), data)
            self.counts.remote_load_fetch_successes += 1
            self._logger.info(f"{remote.uri}: fetched {len(data)} bytes")
            return True
        self._logger.error(f"Failed to fetch remote code from {remote.uri}")
        return False

    async def _asked(self, remote: RemoteCode) -> bytes:
        """One attempt. FetchError."""
        cluster = self._clusters.get(remote.cluster)
        if cluster is None:
            raise FetchError(f"there is no cluster {remote.cluster!r}")
        download = _Download()
        try:
            async with asyncio.timeout(remote.timeout):
                data = await download.run(cluster, remote.uri)
        except TimeoutError:
            raise FetchError(f"no answer within {remote.timeout:g} s") from None
        finally:
            download.cancel()
        digest = hashlib.sha256(data).hexdigest()
        if digest != remote.sha256:
            raise FetchError(f"it has the SHA-256 {digest}, not {remote.sha256}")
        return data


def _name(sha256: str) -> str:
    return f"{sha256}-code{folder.SUFFIX}"


def _kept(sha256: str) -> bytes | None:
    """What an earlier process has fetched."""
    try:
        data = folder.read(_name(sha256))
    except folder.Unusable as error:
        folder.warn(error)
        return None
    return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None


class _Download:
    """A GET through a cluster: an `UpstreamHandler` whose end is a future."""

    def __init__(self) -> None:
        self._done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._request: UpstreamRequest | None = None
        self._body = bytearray()

    async def run(self, cluster: Cluster, uri: str) -> bytes:
        """The body of a 200. FetchError."""
        parts = urlsplit(uri)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [(b"host", parts.netloc.rpartition("@")[2].encode("idna")), (b"accept", b"*/*")]
        try:
            if cluster.http2 is None:
                head, writer = request_bytes(lines, b"GET", path.encode(), True, False)
                request = UpstreamRequest(cluster, self, b"GET", head, writer)
            else:
                scheme = parts.scheme.encode() or b"http"
                request = cluster.http2.request(self, b"GET", path.encode(), lines, scheme)
        except UnsafeHeader as error:
            raise FetchError(str(error)) from None
        self._request = request
        request.end([])
        request.start()
        request.flush()
        return await self._done

    def cancel(self) -> None:
        """Not wanted any more."""
        request, self._request = self._request, None
        if request is not None:
            request.reset()

    def _fail(self, why: str) -> None:
        self.cancel()
        if not self._done.done():
            self._done.set_exception(FetchError(why))

    # --- the upstream request's side ------------------------------------------------------------------------

    def upstream_batch(self, begins: bool) -> None:
        """Nothing is written in reaction to what comes."""

    def upstream_connected(self, remote: str, local: str) -> None:
        """Which host it is does not matter: the digest does."""

    def upstream_writable(self, writable: bool) -> None:
        """The request is one small piece."""

    def upstream_head(self, head: ResponseHead) -> None:
        if head.status != 200 and head.status >= 200:
            self._fail(f"the answer is {head.status}")

    def upstream_data(self, data: bytes, ends: bool) -> None:
        self._body += data
        if len(self._body) > MOST_BYTES:
            self._fail(f"it has more than {MOST_BYTES} bytes")
        elif ends:
            self.upstream_end([])

    def upstream_end(self, trailers: HeaderLines) -> None:
        self._request = None
        if not self._done.done():
            self._done.set_result(bytes(self._body))

    def upstream_failed(self, failure: UpstreamFailure, detail: str) -> None:
        self._request = None
        self._fail(f"{failure.value}: {detail}")
