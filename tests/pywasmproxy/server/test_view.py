"""What several workers show of themselves, as one."""

from __future__ import annotations

import json

from pywasmproxy.server import admin_dump, admin_front
from pywasmproxy.server.view import (
    ClusterView,
    GuestView,
    HostView,
    PluginView,
    PortView,
    View,
    WorkerView,
    together,
    unpacked,
)


def host(worker: int, name: str = "a:1", **against: list[int]) -> HostView:
    address, _, port = name.rpartition(":")
    counters = dict.fromkeys(("cx_total", "rq_error", "cx_connect_fail", "rq_timeout"), 1)
    counters["rq_total"] = 1 + worker
    gauges = {"cx_active": 2, "rq_active": 0}
    return HostView(address, int(port), name, "", 1, 0, counters, gauges, dict(against), [worker])


def view(worker: int, *hosts: HostView, version: str = "v1", failing: bool = False) -> View:
    one = WorkerView(worker, 100 + worker, "LIVE", failing, 0, version, "then", 5, 3, 1, 1000, 10, 1)
    listener = PortView("main", "::1", 80, "[::1]:80", [], 3, {"2xx": 4, "5xx": worker}, [worker])
    plugin = PluginView("p", "r", "v", "x.wasm", "0" * 64, "FAIL_CLOSED", "0_2_1", ["main"], [], [worker])
    use, last = {"proxy_on_log": [1, 2000, 0]}, [(float(worker), f"trap {worker}")]
    guest = GuestView("p", "0_2_1", "v", ["FAIL_CLOSED"], 1, 0, 0, 65536, worker, 0, use, last)
    cluster = ClusterView("up", {"max_retries": 3}, list(hosts) or [host(worker)])
    return View([one], [cluster], [listener], [plugin], [guest], ["ignored: x"])


def test_the_way_to_another_process_changes_nothing() -> None:
    one = view(1, host(1, failed_active_hc=[1]))
    assert unpacked(json.loads(json.dumps(one.packed()))) == one


def test_counts_are_added_up_and_what_exists_is_the_union() -> None:
    both = together(view(0), [view(1, host(1), host(1, "b:2"))])
    [cluster] = both.clusters
    assert [one.name for one in cluster.hosts] == ["a:1", "b:2"]
    assert cluster.hosts[0].counters["rq_total"] == 3
    assert cluster.hosts[0].gauges["cx_active"] == 4
    [port] = both.ports
    assert (port.connections, port.statuses) == (6, {"2xx": 8, "5xx": 1})
    [guest] = both.guests
    assert (guest.runs, guest.memory, guest.failures) == (2, 2 * 65536, 1)
    assert guest.callbacks == {"proxy_on_log": [2, 4000, 0]}
    assert guest.last == [(0.0, "trap 0"), (1.0, "trap 1")]
    assert both.ignored == ["ignored: x"]
    assert both.total("connections") == 6
    lines = admin_dump.clusters_text(both).splitlines()
    assert "up::a:1::rq_total::3" in lines
    assert "up::b:2::workers::1" in lines  # the other one does not know of it
    assert not any(line.startswith("up::a:1::workers") for line in lines)


def test_two_things_of_one_name_stay_two() -> None:
    one, other = view(0), view(1)
    one.guests += view(0).guests
    assert [guest.runs for guest in together(one, [other]).guests] == [2, 1]


def test_unhealthy_if_anybody_says_so_and_who_does() -> None:
    both = together(view(0, host(0)), [view(1, host(1, failed_outlier_check=[1]))])
    lines = admin_dump.clusters_text(both).splitlines()
    assert "up::a:1::health_flags::/failed_outlier_check" in lines
    assert "up::a:1::failed_outlier_check_in_workers::1" in lines
    [status] = admin_dump.clusters(both)["cluster_statuses"][0]["host_statuses"]
    assert status["health_status"] == {"failed_outlier_check": True, "eds_health_status": "HEALTHY"}
    assert status["said_by_workers"] == {"failed_outlier_check": [1]}
    assert "▲ /failed_outlier_check (worker 1)<" in admin_front._clusters(both.clusters, both)
    # All of them: then there is nothing to add.
    hosts = [host(worker, failed_active_hc=[worker]) for worker in (0, 1)]
    both = together(view(0, hosts[0]), [view(1, hosts[1])])
    text = admin_dump.clusters_text(both)
    assert "health_flags::/failed_active_hc\n" in text
    assert "in_workers" not in text


def test_state_and_versions() -> None:
    assert together(view(0), [view(1)]).state == "LIVE"
    assert together(view(0), [view(1, failing=True)]).state == "DRAINING"
    assert together(view(0), [view(1)]).agree
    assert not together(view(0), [view(1, version="v2")]).agree
    assert [one.index for one in together(view(1), [view(0)]).workers] == [0, 1]
