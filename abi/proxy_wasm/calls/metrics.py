"""Metrics: counters, gauges and histograms that all VMs of the process share by name.

Source: proxy-wasm specification 0.2.1, "Metrics"; ids and arithmetic as measured on Envoy 1.40.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import I64, U32, U64, Bytes, OutU32, OutU64, proxy_call
from abi.proxy_wasm.types import MetricType, Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm

COUNTED = (MetricType.COUNTER, MetricType.GAUGE)
"""Kinds (the two low bits of an id) that have a value."""


@proxy_call
def proxy_define_metric(vm: Vm, kind: U32, name: Bytes) -> Status | OutU32:
    """A new id for a metric; the same name twice is the same metric under two ids."""
    if kind > MetricType.HISTOGRAM:
        return Status.BAD_ARGUMENT
    metric = vm.services.metrics.define(MetricType(kind), name)
    number = None if metric is None else vm.metric_ids.add(metric)
    return Status.INTERNAL_FAILURE if number is None else number


@proxy_call
def proxy_increment_metric(vm: Vm, number: U32, delta: I64) -> Status:
    """Counters take what is above 0, gauges anything; a histogram's id is refused even when unknown."""
    if number & 3 not in COUNTED:
        return Status.BAD_ARGUMENT
    metric = vm.metric_ids.get(number)
    return Status.NOT_FOUND if metric is None else metric.increment(delta)


@proxy_call
def proxy_record_metric(vm: Vm, number: U32, value: U64) -> Status:
    """Add to a counter, set a gauge, give a histogram a sample."""
    metric = vm.metric_ids.get(number)
    return Status.NOT_FOUND if metric is None else metric.record(value)


@proxy_call
def proxy_get_metric(vm: Vm, number: U32) -> Status | OutU64:
    """The value of a counter or gauge; a histogram has none, and its id is refused even when unknown."""
    if number & 3 not in COUNTED:
        return Status.BAD_ARGUMENT
    metric = vm.metric_ids.get(number)
    return Status.NOT_FOUND if metric is None else metric.read()
