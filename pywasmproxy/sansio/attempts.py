"""`Attempts`: a request on its way upstream, kept for as long as it may have to be sent once more. No I/O."""

from __future__ import annotations

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio.departure import ATTEMPT_COUNT, IS_TIMEOUT_RETRY, Departure, expected_timeout
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.headers import EXPECTED_TIMEOUT
from pywasmproxy.sansio.local_reply import Flags
from pywasmproxy.sansio.router import Choice


class Attempts:
    """The attempts of one request. `limit`: bytes of its body that are kept; beyond it there is only one."""

    __slots__ = (
        "_body",
        "_complete",
        "_hash_key",
        "_headers",
        "_host",
        "_limit",
        "_retries",
        "_trailers",
        "_upgrade",
        "choice",
        "connected",
        "count",
        "departure",
    )

    def __init__(
        self,
        choice: Choice,
        departure: Departure,
        headers: HeaderMap,
        host: str,
        limit: int,
        *,
        hash_key: int | None = None,
        upgrade: bool = False,
    ) -> None:
        self.choice = choice
        self.departure = departure
        self.count = 1
        self.connected = False  # this attempt has a connection
        self._headers = headers
        self._host = host
        self._hash_key, self._upgrade = hash_key, upgrade
        self._limit = limit
        self._body: bytes | bytearray = b""
        self._trailers: HeaderMap | None = None
        self._complete = False
        self._retries = departure.retries

    @property
    def flags(self) -> Flags:
        """Why another attempt was wanted but not allowed; NONE when it was not so."""
        retries = self._retries
        if retries is None or not (retries.exhausted or retries.overflowed):
            return Flags.NONE
        return Flags.UPSTREAM_RETRY_LIMIT_EXCEEDED if retries.exhausted else Flags.UPSTREAM_OVERFLOW

    def head(self, end_of_stream: bool) -> do.Command:
        """The command that begins the current attempt."""
        return do.SendUpstreamHeaders(
            self.choice.cluster,
            self.choice.route,
            self._headers if self.departure.retries is None else self._headers.copy(),
            end_of_stream,
            self._host,
            retries=self.departure.retries,
            hash_key=self._hash_key,
            upgrade=self._upgrade,
        )

    def keep(self, data: bytes) -> None:
        """A piece of the body went upstream."""
        if self._retries is None:
            return
        if len(self._body) + len(data) > self._limit:
            self._retries = None
            self._body = b""
        else:
            if not self._body:
                self._body = bytearray()
            self._body += data

    def completed(self, trailers: HeaderMap | None = None) -> None:
        """The whole request went upstream."""
        self._complete = True
        self._trailers = trailers

    def after_response(self, status: int, headers: HeaderMap) -> bool:
        """Whether the request is sent once more because of such a response. Takes one of those allowed."""
        return self._possible and self._retries is not None and self._retries.after_response(status, headers)

    def after_failure(self, failure: UpstreamFailure) -> bool:
        """The same after a failure before the response."""
        retries = self._retries
        return self._possible and retries is not None and retries.after_failure(failure, sent=self.connected)

    def after_timeout(self) -> bool:
        """The same after an attempt that took too long."""
        return self._possible and self._retries is not None and self._retries.after_timeout()

    @property
    def _possible(self) -> bool:
        return self._complete

    def wait(self, random: int) -> do.Command:
        """The command that waits for the next attempt."""
        seconds = self._retries.wait(lambda: random) if self._retries is not None else 0.0
        return do.WaitForRetry(seconds)

    def again(self, elapsed: float, *, timed_out: bool) -> list[do.Command]:
        """The commands of the next attempt, `elapsed` seconds after the request was complete.

        `timed_out`: the last one took too long.
        """
        self.count += 1
        self.connected = False
        if self._headers.first(EXPECTED_TIMEOUT) is not None:
            limits = self.departure
            expected = expected_timeout(limits.timeout, limits.per_try_timeout, elapsed)
            self._headers.set_in_place(EXPECTED_TIMEOUT, b"%d" % (expected or 1))
        host = self.choice.virtual_host
        if host.request_attempt_count:
            self._headers.set_in_place(ATTEMPT_COUNT, b"%d" % self.count)
        if host.is_timeout_retry_header and timed_out:
            self._headers.set_in_place(IS_TIMEOUT_RETRY, b"true")
        bare = not self._body and self._trailers is None
        commands = [self.head(bare)]
        if self._body:
            commands.append(do.SendUpstreamBody(bytes(self._body), self._trailers is None))
        if self._trailers is not None:
            commands.append(do.SendUpstreamTrailers(self._trailers.copy()))
        return commands + self.in_time()

    def in_time(self) -> list[do.Command]:
        """The command that limits the time of the current attempt, if it is limited."""
        seconds = self.departure.per_try_timeout
        return [] if seconds is None else [do.StartTryTimeout(seconds)]
