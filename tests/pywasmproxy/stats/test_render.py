"""Statistics written down: names, labels, and formats that others parse."""

from __future__ import annotations

import json

import pytest

from pywasmproxy.config.model_stats import StatsConfig, StatsTag
from pywasmproxy.stats import render
from pywasmproxy.stats.histogram import Histogram
from pywasmproxy.stats.stat import ROOT, Buckets, Kind, Stat
from pywasmproxy.stats.tags import Tagging
from tests.pywasmproxy.stats import prometheus

HTTP = ROOT.inside("http", "http.").inside("in", labels=(("envoy_http_conn_manager_prefix", "in"),))


def some() -> list[Stat]:
    times = Histogram()
    for value in (1, 1, 4):
        times.record(value)
    status = [0] * 1000
    status[200], status[404] = 3, 1
    return [
        *HTTP.counters([("downstream_cx_total", 2)]),
        *HTTP.responses("downstream_rq", status, codes=True),
        *HTTP.gauges([("downstream_cx_active", 0)]),
        *HTTP.histograms([("downstream_rq_time", times), ("downstream_cx_length_ms", Histogram())]),
        Stat("wasmcustom.my.counter", Kind.COUNTER, 10, "my.counter", custom=True),
    ]


def test_text_is_sorted_and_histograms_come_last() -> None:
    assert render.text(some()).splitlines() == [
        "http.in.downstream_cx_active: 0",
        "http.in.downstream_cx_total: 2",
        "http.in.downstream_rq_200: 3",
        "http.in.downstream_rq_2xx: 3",
        "http.in.downstream_rq_404: 1",
        "http.in.downstream_rq_4xx: 1",
        "http.in.downstream_rq_completed: 4",
        "wasmcustom.my.counter: 10",
        "http.in.downstream_cx_length_ms: No recorded values",
        "http.in.downstream_rq_time: P0(nan,1) P25(nan,1.0375) P50(nan,1.075) P75(nan,4.025) P90(nan,4.07) "
        "P95(nan,4.085) P99(nan,4.097) P99.5(nan,4.0985) P99.9(nan,4.0997) P100(nan,4.1)",
    ]
    cumulative = render.text(some(), cumulative=True)
    assert "http.in.downstream_rq_time: B0.5(0,0) B1(2,2) B5(3,3) B10(3,3)" in cumulative
    assert "B1.8e+06(3,3) B3.6e+06(3,3)" in cumulative


def test_json_is_envoys() -> None:
    found = json.loads(render.as_json(some()))["stats"]
    assert {"name": "http.in.downstream_cx_total", "value": 2} in found
    histograms = found[-1]["histograms"]
    assert histograms["supported_quantiles"][:3] == [0, 25, 50]
    named = {one["name"]: one["values"] for one in histograms["computed_quantiles"]}
    assert named["http.in.downstream_rq_time"][0] == {"cumulative": 1, "interval": None}
    assert named["http.in.downstream_cx_length_ms"][0] == {"cumulative": None, "interval": None}


def test_prometheus() -> None:
    families = prometheus.parse(render.prometheus(some()))
    assert families["envoy_http_downstream_cx_total"].samples == [
        ("envoy_http_downstream_cx_total", {"envoy_http_conn_manager_prefix": "in"}, 2)
    ]
    by_class = {
        labels["envoy_response_code_class"]: value
        for _, labels, value in families["envoy_http_downstream_rq_xx"].samples
    }
    assert by_class == {"2": 3, "4": 1}
    by_code = {
        labels["envoy_response_code"]: value
        for _, labels, value in families["envoy_http_downstream_rq"].samples
    }
    assert by_code == {"200": 3, "404": 1}
    assert families["my_counter"].samples == [("my_counter", {}, 10)]
    times = families["envoy_http_downstream_rq_time"]
    assert times.kind == "histogram"
    assert [value for name, _, value in times.samples if name.endswith("_sum")] == [6]


def test_names_that_would_be_no_names_or_collide() -> None:
    stats = [
        Stat("wasmcustom.1 bad-näme", Kind.COUNTER, 1, "1 bad-näme", custom=True),
        Stat("wasmcustom.a.b", Kind.COUNTER, 2, "a.b", custom=True),
        Stat("wasmcustom.a_b", Kind.COUNTER, 3, "a_b", custom=True),
        Stat("wasmcustom.a-b", Kind.GAUGE, 4, "a-b", custom=True),
        Stat("wasmcustom", Kind.COUNTER, 5, "", custom=True),
        Stat("x", Kind.COUNTER, 6, "x", (("label", 'a"b\\c\nd'),)),
    ]
    families = prometheus.parse(render.prometheus(stats))
    assert families["a_b"].kind == "counter"
    assert len(families["a_b"].samples) == 1
    assert families["_1_bad_n_me"].samples[0][2] == 1
    assert families["envoy_x"].samples[0][1] == {"label": r"a\"b\\c\nd"}


def test_a_histogram_of_the_store() -> None:
    stat = Stat("wasmcustom.h", Kind.HISTOGRAM, Buckets((1, 5), (2, 3), 4, 20), "h", custom=True)
    families = prometheus.parse(render.prometheus([stat]))
    assert [value for _, _, value in families["h"].samples] == [2, 3, 4, 20, 4]
    assert render.text([stat]).startswith("wasmcustom.h: P0(nan,1)")


def test_selection() -> None:
    def names(**wanted: object) -> list[str]:
        return [stat.name for stat in render.select(some(), **wanted)]  # type: ignore[arg-type]

    assert names(pattern="cx_.*l$") == ["http.in.downstream_cx_total"]
    assert "http.in.downstream_cx_active" not in names(used_only=True)
    assert "http.in.downstream_cx_length_ms" not in names(used_only=True)
    assert names(kinds=frozenset((Kind.GAUGE,))) == ["http.in.downstream_cx_active"]
    assert names(pattern="http", inverted=True) == ["wasmcustom.my.counter"]
    with pytest.raises(render.BadFilter, match="unterminated"):
        render.select([], pattern="[")


def test_tags_of_the_configuration() -> None:
    config = StatsConfig(
        tags=(StatsTag("place", fixed_value="here"), StatsTag("who", regex=r"^wasmcustom\.((my)\.)"))
    )
    families = prometheus.parse(render.prometheus(Tagging(config).apply(some())))
    assert families["counter"].samples == [("counter", {"who": "my", "place": "here"}, 10)]
    assert families["envoy_http_downstream_cx_total"].samples[0][1] == {
        "envoy_http_conn_manager_prefix": "in",
        "place": "here",
    }
    plain = prometheus.parse(render.prometheus(Tagging(StatsConfig(default_tags=False)).apply(some())))
    assert plain["envoy_http_in_downstream_rq_2xx"].samples[0][1] == {}
