"""What an exchange leaves behind when it is over: counts, and lines in access logs. Runs once for each."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.format import Moment
from pywasmproxy.sansio.local_reply import Details
from pywasmproxy.server.observed import facts_of

if TYPE_CHECKING:
    from pywasmproxy.server.exchange import Exchange

_NOTED = {
    Details.DIRECT_RESPONSE: ("rq_direct_response", "rq_total"),
    Details.ROUTE_NOT_FOUND: ("no_route", "rq_total"),
    Details.CLUSTER_NOT_FOUND: ("no_cluster", "rq_total"),
    Details.REQUEST_TOO_LARGE: ("downstream_rq_too_large",),
    Details.RESPONSE_TOO_LARGE: ("rs_too_large",),
}
"""Counters of answers that are made here, by `response.code_details`."""


def instead_of_response(details: str) -> int:
    """The status that a cluster is charged with for an answer made here in its place; 0: it is not its fault.

    What filters and `local_reply_config` make of that answer is the client's, not the cluster's.
    """
    if details.startswith(Details.EARLY_RESET):
        return 502 if details.startswith(_PROTOCOL_ERROR) else 503
    if details in (Details.UPSTREAM_TIMEOUT, Details.PER_TRY_TIMEOUT):
        return 504
    return 503 if details == Details.NO_HEALTHY_UPSTREAM else 0


_PROTOCOL_ERROR = Details.because(Details.EARLY_RESET, UpstreamFailure.PROTOCOL_ERROR.value)[:-1]


def account(exchange: Exchange) -> None:
    """Count an exchange that is over, and write it down."""
    serving, info = exchange.serving, exchange.info
    counts = serving.counts
    if exchange.response_started and (status := info.response_code) is not None and 0 <= status < 1000:
        counts.status[status] += 1
        exchange.listener.counts.status[status] += 1
    if not exchange.response_complete:
        if exchange.connection.exchange is exchange:
            counts.downstream_rq_tx_reset += 1
        else:  # the client's connection is gone
            counts.downstream_rq_rx_reset += 1
    if info.request_duration is not None:
        counts.rq_time.record(info.request_duration // 1_000_000)
    upstream, details = exchange.upstream_counts, info.response_code_details
    if details != Details.VIA_UPSTREAM:
        for name in _NOTED.get(details or "", ()):
            setattr(counts, name, getattr(counts, name) + 1)
        if upstream is not None and info.upstream_response_began_after is None:
            charged = instead_of_response(details or "")
            if charged:
                upstream.status[charged] += 1
    if upstream is not None:
        counts.rq_total += 1
        sent, received = info.upstream_request_sent_after, info.upstream_response_received_after
        if sent is not None and received is not None:
            upstream.rq_time.record(max(received - sent, 0) // 1_000_000)
    if serving.access_logs:
        moment = Moment(time.time_ns(), access_log_type="DownstreamEnd")
        if serving.needs or exchange.attempts:
            moment.facts = facts_of(exchange)
        for log in serving.access_logs:
            log.write(info, moment, random.getrandbits(53))
