"""Runs that can be compared, and their routers, each with a look of its own in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.figures.style import COLOURS, Series, printable
from harness.runs.folder import RunFolder

ROUTER, SINGLE, BASELINE, OPTIMUM = "router of the run", "single model", "baseline", "exact optimum"
_LOOK = {SINGLE: ("slate", "s"), BASELINE: ("orange", "^"), OPTIMUM: ("green", "*")}
_ROUTER_LOOKS = (("blue", "o"), ("red", "D"), ("purple", "P"), ("teal", "X"), ("ochre", "v"))


@dataclass(frozen=True)
class Group:
    """Runs that can be compared: of the same items, at the same unit of cost; and their routers, each drawn once."""

    number: int
    runs: list[RunFolder]
    routers: list[tuple[Series, RunFolder, str]]

    @property
    def unit(self) -> str:
        """The unit of cost; empty if none was recorded."""
        return self.runs[0].summary.cost_unit

    @property
    def latency(self) -> bool:
        """Whether it is known how long the users of each router wait."""
        return all(run.routers[name].latency is not None for _, run, name in self.routers)


def group(runs: Sequence[RunFolder]) -> list[Group]:
    """The runs by what they were evaluated on; a baseline with the same figures in several runs is drawn once."""
    by_items: dict[tuple[str, ...], list[RunFolder]] = {}
    for run in runs:
        recording = run.manifest.source.get("sha256")  # of the same title it may be another, of other prices
        summary = run.summary
        key = (str(recording), summary.title, summary.cost_model, summary.cost_unit, *summary.tasks)
        by_items.setdefault(key, []).append(run)
    return [Group(number, members, _series(members)) for number, members in enumerate(by_items.values(), 1)]


def _series(runs: Sequence[RunFolder]) -> list[tuple[Series, RunFolder, str]]:
    found: dict[tuple[object, ...], tuple[str, RunFolder, str]] = {}
    for run in runs:
        for name, entry in run.routers.items():
            role = role_of(run, name)
            figures = entry.overall.quality, entry.overall.cost
            found.setdefault((name, run.name if role == ROUTER else figures), (role, run, name))
    shown = [name for _, _, name in found.values()]
    series, count = [], 0
    for role, run, name in found.values():
        colour, marker = _LOOK.get(role) or _ROUTER_LOOKS[count % len(_ROUTER_LOOKS)]
        count += role == ROUTER
        label = name.removeprefix("single:") + (f" ({run.name})" if shown.count(name) > 1 else "")
        series.append((Series(printable(label), COLOURS[colour][0], marker, role), run, name))
    return series


def role_of(run: RunFolder, name: str) -> str:
    """What a router of a run is to a reader: one that was asked for, a single model, a baseline, the optimum."""
    if run.routers[name].overall.bound:
        return OPTIMUM
    if name.startswith("single:"):
        return SINGLE
    return ROUTER if name in run.asked else BASELINE
