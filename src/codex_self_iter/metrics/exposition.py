"""The text that Prometheus scrapes, and that node_exporter's textfile collector picks up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from codex_self_iter.views.metrics import Family
from codex_self_iter.world.state.durable import replace_private

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for one in self._families:
            kind = CounterMetricFamily if one.counter else GaugeMetricFamily
            metric = kind(one.name, one.help, labels=one.labels)
            for sample in one.samples:
                metric.add_metric(sample.labels, sample.value)
            yield metric


def text(families: Iterable[Family]) -> bytes:
    """The families in the text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


def path_for(template: str, loop: str, workspace: str) -> str:
    """The textfile of a loop: `{name}` is its name, with `-` for what a file name should not have;
    what is relative is below the workspace."""
    name = re.sub(r"[^\w.-]+", "-", loop).strip("-.") or "loop"
    return os.path.join(workspace, os.path.expanduser(template.replace("{name}", name)))


def write(path: str, families: Iterable[Family]) -> None:
    """Replace a textfile at once, readable by all: node_exporter is another user. Raises OSError."""
    replace_private(path, text(families), mode=0o644)
