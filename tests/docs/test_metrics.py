"""The page of metrics lists every one that there is, as /metrics tells it, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from inferd_server.monitoring.phases import PHASES

from tests.server.monitoring.test_exposition import collector

from .pages import PAGES, section, tables

MONITORING = Path(__file__).parents[2] / "server/inferd_server/monitoring"
SUFFIXES = {"counter": "_total", "info": "_info"}
HEAD = ["metric", "type", "labels", "meaning"]


def listed() -> dict[str, tuple[str, ...]]:
    """Return type, labels and meaning of every metric on the page, by its name."""
    found: dict[str, tuple[str, ...]] = {}
    for head, rows in tables(PAGES["metrics"]):
        if head == HEAD:
            for name, *about in rows:
                assert name.strip("`") not in found
                found[name.strip("`")] = tuple(about)
    return found


def told() -> dict[str, tuple[str, ...]]:
    """Return the same of a server of which everything is known."""
    found = {}
    for metric in collector(1.0, 2).collect():
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        name = f"{metric.name}{SUFFIXES.get(metric.type, '')}"
        text = ", ".join(f"`{label}`" for label in labels)
        found[name] = (metric.type, text, metric.documentation)
    return found


def test_the_page_has_every_metric_with_its_type_labels_and_meaning_and_no_other() -> None:
    assert listed() == told()


def test_no_metric_is_written_that_a_server_of_which_everything_is_known_lacks() -> None:
    named = {
        re.sub(r"_(total|created|info)$", "", name)
        for path in MONITORING.glob("*.py")
        for name in re.findall(r'"(inferd_[a-z_]+)"', path.read_text())
    }
    known = {re.sub(r"_(total|info)$", "", name) for name in told()}
    # The last one is a package, whose log lines are written, too.
    assert named == known | {"inferd_engines"}


def test_the_page_says_what_each_phase_is() -> None:
    (phases,) = [
        rows for head, rows in tables(section("metrics", "Time")) if head == ["phase", "what"]
    ]
    assert {name.strip("`"): text for name, text in phases} == dict(PHASES)
