"""The bits of property `response.flags` and their names in access logs (Envoy's response flags, 1.40)."""

from __future__ import annotations

from collections.abc import Sequence

_NAMES = [
    "LH",
    "FailedLocalHealthCheck",
    "UH",
    "NoHealthyUpstream",
    "UT",
    "UpstreamRequestTimeout",
    "LR",
    "LocalReset",
    "UR",
    "UpstreamRemoteReset",
    "UF",
    "UpstreamConnectionFailure",
    "UC",
    "UpstreamConnectionTermination",
    "UO",
    "UpstreamOverflow",
    "NR",
    "NoRouteFound",
    "DI",
    "DelayInjected",
    "FI",
    "FaultInjected",
    "RL",
    "RateLimited",
    "UAEX",
    "UnauthorizedExternalService",
    "RLSE",
    "RateLimitServiceError",
    "DC",
    "DownstreamConnectionTermination",
    "URX",
    "UpstreamRetryLimitExceeded",
    "SI",
    "StreamIdleTimeout",
    "IH",
    "InvalidEnvoyRequestHeaders",
    "DPE",
    "DownstreamProtocolError",
    "UMSDR",
    "UpstreamMaxStreamDurationReached",
    "RFCF",
    "ResponseFromCacheFilter",
    "NFCF",
    "NoFilterConfigFound",
    "DT",
    "DurationTimeout",
    "UPE",
    "UpstreamProtocolError",
    "NC",
    "NoClusterFound",
    "OM",
    "OverloadManagerTerminated",
    "DF",
    "DnsResolutionFailed",
    "DO",
    "DropOverload",
    "DR",
    "DownstreamRemoteReset",
    "UDO",
    "UnconditionalDropOverload",
]

SHORT_NAMES = tuple(_NAMES[::2])
"""Of bit 0, bit 1 and so on, as `%RESPONSE_FLAGS%` gives them."""

LONG_NAMES = tuple(_NAMES[1::2])
"""The same for `%RESPONSE_FLAGS_LONG%`."""


_ORDER = (15, 7, *range(7), *range(8, 15), *range(16, len(SHORT_NAMES)))
"""Bits in the order Envoy sets them: that there is no further attempt comes before what the last one met."""


def names_of(flags: int, names: Sequence[str]) -> str:
    """The names of the bits that are set, joined by commas; "" for none."""
    return ",".join(names[bit] for bit in _ORDER if flags >> bit & 1) if flags else ""
