"""Statistics of several workers: on their way, and added up."""

from __future__ import annotations

import json

from pywasmproxy.server.peers import _packed, _unpacked, merged
from pywasmproxy.stats.histogram import Histogram
from pywasmproxy.stats.stat import ROOT, Buckets, Kind, Stat


def histogram(*samples: int) -> Histogram:
    made = Histogram()
    for sample in samples:
        made.record(sample)
    return made


def counter(name: str, value: int) -> Stat:
    return Stat(name, Kind.COUNTER, value, name)


def test_the_way_to_another_process_changes_nothing() -> None:
    place = ROOT.inside("http", "http.").inside("x", labels=(("envoy_http_conn_manager_prefix", "x"),))
    [plain] = place.counters([("downstream_rq_200", 1 << 63)])
    buckets = Stat("wasmcustom.h", Kind.HISTOGRAM, Buckets((0.5, 1), (1, 2), 3, 7), "h", custom=True)
    [timed] = place.histograms([("time", histogram(1, 1, 99_999))])
    for stat in (plain, buckets):
        assert _unpacked(json.loads(json.dumps(_packed(stat)))) == stat
    found = _unpacked(json.loads(json.dumps(_packed(timed)))).value
    assert isinstance(found, Histogram)
    assert isinstance(timed.value, Histogram)
    assert (found.buckets, found.sum) == (timed.value.buckets, timed.value.sum)


def test_what_is_added_up_and_what_is_not() -> None:
    names = ["http.a.rq", "server.uptime", "cluster.c.membership_total", "wasmcustom.m"]
    names += ["server.total_connections", "listener_manager.workers_started"]
    own = [counter(name, 2) for name in names]
    others = [[counter(name, 3) for name in reversed(names)] + [counter("listener.x.worker_1.cx", 1)]] * 2
    assert {stat.name: stat.value for stat in merged(own, others)} == {
        "http.a.rq": 8,
        "server.uptime": 2,
        "cluster.c.membership_total": 2,
        "wasmcustom.m": 2,
        "server.total_connections": 8,
        "listener_manager.workers_started": 8,
        "listener.x.worker_1.cx": 2,
    }
    assert merged(own, []) == own


def test_histograms_are_added_up() -> None:
    one, other = ([Stat("h", Kind.HISTOGRAM, histogram(*samples), "h")] for samples in ((1, 5), (5, 1000)))
    [stat] = merged(one, [other])
    assert isinstance(stat.value, Histogram)
    assert (stat.value.count, stat.value.sum) == (4, 1011)
    assert stat.value.buckets == histogram(1, 5, 5, 1000).buckets
    assert isinstance(one[0].value, Histogram)
    assert one[0].value.count == 2  # a worker's own is not touched
