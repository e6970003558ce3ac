"""The text that Prometheus scrapes, and that node_exporter's textfile collector picks up."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from codex_self_iter.views.metrics import Family
from codex_self_iter.world.guarded import read_guarded
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


def path_for(template: str, loop: str) -> str:
    """The textfile of a loop: `{name}` is its name, with `-` for what a file name should not have."""
    name = re.sub(r"[^\w.-]+", "-", loop).strip("-.") or "loop"
    return os.path.expanduser(template.replace("{name}", name))


FRESH_SEC = 60.0
_OWNER = "# of the loop in "


def owner(path: str, now: float) -> str:
    """The state directory of the loop that writes a textfile; "" where none does any more. Raises
    OSError."""
    try:
        head = read_guarded(path, 65536).partition(b"\n")[0].decode("ascii", "replace")
        fresh = now - os.stat(path).st_mtime < FRESH_SEC
    except FileNotFoundError:
        return ""
    if not (fresh and head.startswith(_OWNER)):
        return ""
    try:
        return str(json.loads(head.removeprefix(_OWNER)))
    except ValueError:
        return ""


def write(path: str, families: Iterable[Family], *, owner: str) -> None:
    """Replace a textfile at once, readable by all: node_exporter is another user. Its first line says
    whose it is: `owner`, a state directory. Raises OSError."""
    head = f"{_OWNER}{json.dumps(owner)}\n".encode()
    replace_private(path, head + text(families), mode=0o644)
