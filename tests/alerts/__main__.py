"""``make alerts``: every alert rule of the product, unchanged, fired by its real cause and gone once that is mended.

The product runs on a clock that jumps (``world.py``); what /metrics said at each scrape becomes the input of ``promtool test rules``,
which evaluates the rules with their own durations.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import structlog
import yaml

from deploy.checking.tools import ROOT, Missing, Refused, run
from tests.alerts.causes import CAUSES, Cause
from tests.alerts.world import SCRAPE_SECONDS, World
from tests.simulation.loop import EPOCH_MS, VirtualLoop
from tests.simulation.loop import run as run_virtual

RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"


def replay(cause: Cause) -> World:
    loop = VirtualLoop()
    world = World(loop, cause.task, cause.queue_count)

    async def lived() -> None:
        await world.start()
        await cause.make(world)
        await world.close()

    def time_ns() -> int:
        return EPOCH_MS * 1_000_000 + int(loop.time() * 1e9)

    with patch("time.monotonic", loop.time), patch("time.time_ns", time_ns):
        run_virtual(lived(), loop)
    return world


def values_of(points: dict[int, float], scrapes: int) -> str:
    """A sample that is not there ends its series, as a scrape without it does."""
    words, is_there = [], False
    for number in range(scrapes):
        if number in points:
            words.append(f"{points[number]:.6f}")
        else:
            words.append("stale" if is_there else "_")
        is_there = number in points
    return " ".join(words)


def test_of(cause: Cause, world: World) -> dict[str, Any]:
    def selector(name: str, labels: tuple[tuple[str, str], ...]) -> str:
        return name + "{" + ", ".join(f'{label}="{value}"' for label, value in labels) + "}"

    return {
        "name": cause.name,
        "interval": f"{SCRAPE_SECONDS}s",
        "input_series": [
            {"series": selector(name, labels), "values": values_of(points, world.scrapes)}
            for (name, labels), points in world.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
                "eval_time": f"{number * SCRAPE_SECONDS}s",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)],
            }
            for number, alerts in world.expected
        ],
    }


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    chosen = [cause for cause in CAUSES if not sys.argv[1:] or any(word in cause.name for word in sys.argv[1:])]
    failed, fired = 0, set()
    with tempfile.TemporaryDirectory() as folder:
        for cause in chosen:
            began = time.perf_counter()
            world = replay(cause)
            file = Path(folder, "replay.yaml")
            file.write_text(
                yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": f"{SCRAPE_SECONDS}s", "tests": [test_of(cause, world)]})
            )
            took = f"{world.scrapes * SCRAPE_SECONDS / 60:.0f} minutes in {time.perf_counter() - began:.1f} s"
            try:
                run("promtool", "test", "rules", file)
            except (Missing, Refused) as error:
                failed += 1
                print(f"{cause.name}: {error}", file=sys.stderr)
                continue
            names = sorted(set().union(*(alerts for _, alerts in world.expected)))
            fired |= set(names)
            print(f"{cause.name}: {', '.join(names)} ({took})", flush=True)
    known = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    if not failed and len(chosen) == len(CAUSES) and known - fired:
        failed += 1
        print(f"never fired: {', '.join(sorted(known - fired))}", file=sys.stderr)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
