"""The page of `real_tables.py`: what was measured as tables, a figure for each, and the goals, met or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np
from kept_outcomes import OWN, Measured, mean_of, of_seeds
from numpy.typing import NDArray
from peers import DIALS, PEERS

from harness.evaluation.frontier import (
    Bounds,
    Curve,
    Points,
    areas,
    best_model,
    concave_hull,
    cost_at_parity,
    cost_range,
    hulls,
    mixed,
    reflected,
    span,
    strong_calls,
    with_sample,
)
from harness.evaluation.frontier_metrics import LEAST_SPAN
from harness.evaluation.metrics import COLLAPSED, NOISE, Bootstrap, Estimate
from harness.evaluation.standings import group_letters
from harness.report.figures.labels import place_labels
from harness.report.figures.style import LIGHT, axes_at, drawing_style, new_figure, points
from pools.errors import UserError
from pools.files import whole_file
from pools.mdp.tree import Tree

FloatArray = NDArray[np.float64]
KEPT = (0.98, 0.99, 1.0)
LEVELS = (0.5, 0.8)
RESAMPLES = 500
QUERY_ALONE = ("query-only", "extra-trees", "knn", "ridge", "logistic", "mlp", "matrix-factorisation")
DRAWN_AS = {"hierrouter": ("blue", "o", "-"), "fitted-q": ("orange", "s", "-"), "cascade": ("green", "^", "-")}
"""Routers that every figure shows, with colour, marker and style."""
LINE = 120
MANY = 1000
"""Costs are shown for so many items."""


# --- figures of one table on one set of items -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Row:
    """A router on all items, each seed and their mean, and the hulls of its points with the single models' by draw."""

    seeds: Sequence[Measured]
    kept: Measured
    points: Points
    of: list[Curve]
    area: FloatArray

    def at(self, cost_weight: float) -> int:
        """The place of the cost weight that is nearest to this one; thresholds of peers, which have none, are NaN."""
        return int(np.nanargmin(np.abs(self.kept.weights - cost_weight)))

    def value(self, cost_weight: float) -> FloatArray:
        """`[I]`."""
        row = self.at(cost_weight)
        return np.asarray(self.points.quality[row] - cost_weight * self.points.cost[row])


@dataclass(frozen=True, eq=False)
class Sheet:
    """All routers on the same items of a table.

    zero: AIQ of the zero router on each draw. of_seed: AIQ of each router's seeds, each by itself.
    """

    models: tuple[str, ...]
    singles: Points
    bootstrap: Bootstrap
    draws: FloatArray
    bounds: Bounds
    zero: FloatArray
    rows: Mapping[str, Row]
    of_seed: Mapping[str, Sequence[float]]

    @property
    def best(self) -> int:
        """The best single model."""
        return best_model(self.singles)

    def ahead(self, name: str, of: str | None = None) -> Estimate:
        """AIQ of a router minus another's, or the zero router's."""
        return reflected(self.rows[name].area - (self.zero if of is None else self.rows[of].area))

    def parity(self, name: str, keep: float) -> Estimate | None:
        """Cost at parity."""
        row = self.rows[name]
        return cost_at_parity(row.points, self.singles, row.of, self.draws, keep)

    def calls(self, name: str) -> tuple[Estimate, list[Estimate]] | None:
        """APGR and CPT between two models; None if there are more of them."""
        if len(self.models) != 2:
            return None
        strong, row = self.best, self.rows[name]
        called, quality = row.kept.called[:, :, strong], self.singles.quality
        return strong_calls(called, row.points.quality, quality[1 - strong], quality[strong], self.draws, LEVELS)

    def query_alone(self) -> list[str]:
        """The routers that read the query alone, the best first."""
        return sorted(set(QUERY_ALONE) & set(self.rows), key=lambda name: -self.rows[name].area[0])


def sheet_of(folder: Path, tree: Tree, parts: Sequence[str]) -> Sheet | None:
    """What is kept of a table below its folder; None if nothing is."""
    found = {path.name: of_seeds(path, parts) for path in sorted(folder.iterdir()) if path.name != "recording"}
    found = {name: seeds for name, seeds in found.items() if seeds}
    if not found:
        return None
    tables = {str(seed.settings).split()[0]: name for name, seeds in found.items() for seed in seeds}
    if len(tables) > 1:
        different = " and ".join(tables.values())
        raise UserError(f"{folder}: {different} are of different tables; measure them anew with --again")
    items, first = next(iter(found.values()))[0].items, tree.level(1)
    singles = Points(tree.cost[np.ix_(items, first)].T, tree.score[np.ix_(items, first)].T.astype(np.float64))
    bootstrap = Bootstrap.draw(len(items), 1, RESAMPLES)
    draws, bounds = with_sample(bootstrap), cost_range(singles)
    if bounds is None:
        raise UserError(f"{folder}: every model costs the same, so that nothing is to be routed; leave the table out")
    rows, of_seed = {}, {}
    for name, seeds in found.items():
        kept = mean_of(seeds)
        own = Points(kept.cost, kept.quality)
        of = hulls(mixed(own, singles), draws)
        rows[name] = Row(seeds, kept, own, of, areas(of, bounds))
        each = [hulls(mixed(Points(seed.cost, seed.quality), singles), draws[:1]) for seed in seeds]
        of_seed[name] = [float(areas(hull, bounds)[0]) for hull in each]
    zero = areas(hulls(singles, draws), bounds)
    return Sheet(tree.models, singles, bootstrap, draws, bounds, zero, rows, of_seed)


def groups(sheet: Sheet, names: Sequence[str]) -> list[str]:
    """For each router the letters of its groups: routers share one if no two of them are told apart in AIQ."""
    alike = np.eye(len(names), dtype=bool)
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            difference = sheet.ahead(one, other)
            alike[i, j] = alike[j, i] = difference.low <= NOISE and difference.high >= -NOISE
    return group_letters(alike)


# --- text -------------------------------------------------------------------------------------------------------------


def table_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str) -> str:
    """A paragraph in lines."""
    return fill(text, LINE, break_on_hyphens=False, break_long_words=False)


def short(model: str) -> str:
    """A model's name without its publisher."""
    return model.rpartition("/")[2]


def share_text(share: Estimate | None, digits: int = 0) -> str:
    """A share in per cent with its interval."""
    if share is None:
        return "not reached"
    return f"{share.mean:.{digits}%} [{100 * share.low:.{digits}f}, {100 * share.high:.{digits}f}]"


def difference_text(estimate: Estimate, digits: int = 4) -> str:
    """A difference with its interval, in bold if that excludes 0."""
    mean = f"{estimate.mean:+.{digits}f}"
    mean = f"**{mean}**" if estimate.low > NOISE or estimate.high < -NOISE else mean
    return f"{mean} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def singles_text(sheet: Sheet, unit: str) -> str:
    """Each model called once."""
    order = np.argsort(-sheet.singles.quality.mean(axis=1), kind="stable").tolist()
    rows = []
    for model in order:
        quality = sheet.bootstrap.mean(sheet.singles.quality[model])
        cost = MANY * float(sheet.singles.cost[model].mean())
        rows.append(
            [short(sheet.models[model]), f"{quality.mean:.3f} [{quality.low:.3f}, {quality.high:.3f}]", f"{cost:.3g}"]
        )
    return table_text(["model", "quality", f"{unit} per {MANY:,} items"], rows)


def routers_text(sheet: Sheet, named: Sequence[float]) -> str:
    """Every router, the best AIQ first; that of a router whose points span too few costs is withheld."""
    names = sorted((name for name in sheet.rows if ", " not in name), key=lambda name: -sheet.rows[name].area[0])
    ranked = [name for name in names if name != "oracle"]
    spans = [name for name in names if span(sheet.rows[name].points, sheet.singles, sheet.bounds) >= LEAST_SPAN]
    told = [name for name in ranked if name in spans]
    letters = dict(zip(told, groups(sheet, told), strict=True))
    two = len(sheet.models) == 2
    means = {name: [float(sheet.rows[name].value(weight).mean()) for weight in named] for name in ranked}
    tops = [ranked[int(np.argmax([means[name][n] for name in ranked]))] for n in range(len(named))]
    rows = []
    for name in names:
        row = sheet.rows[name]
        cells = [
            f"{name}, a bound" if name == "oracle" else name,
            f"{row.area[0]:.4f}" if name in spans else "-",
            difference_text(sheet.ahead(name)) if name in spans else "-",
            letters.get(name, ""),
        ]
        cells += [share_text(sheet.parity(name, keep)) for keep in KEPT]
        if two and (found := sheet.calls(name)) is not None:
            cells += [share_text(each) for each in found[1]]
        for weight, top in zip(named, tops, strict=True):
            behind = sheet.bootstrap.mean(row.value(weight) - sheet.rows[top].value(weight))
            mean = f"{row.value(weight).mean():.3f}"
            cells.append(f"**{mean}**" if name in ranked and behind.high >= -NOISE else mean)
        calls = row.kept.calls[row.at(named[1])]
        most, whole = int(calls.argmax()), float(calls.sum())
        said = f"{short(sheet.models[most])} {calls[most] / whole:.0%}"
        cells.append(f"{said}, collapsed" if calls[most] >= COLLAPSED * whole and name in ranked else said)
        cells.append(f"{whole:.2f}")
        cells.append(f"{float(row.kept.seconds):.1f}")
        rows.append(cells)
    header = ["router", "AIQ", "above the zero router", "group", *(f"cost at {keep:.0%}" for keep in KEPT)]
    header += [f"CPT({level:.0%})" for level in LEVELS] if two else []
    header += [f"value at {weight:.3g}" for weight in named]
    return table_text([*header, "most called", "calls", "s"], rows)


def summary_text(sheet: Sheet) -> str:
    """The best router of each kind, in sentences."""
    said = []
    for kind, names in (
        ("reads answers", [name for name in ("hierrouter", "fitted-q", "cascade") if name in sheet.rows]),
        ("reads the query alone", sheet.query_alone()),
    ):
        if names:
            best = max(names, key=lambda name: float(sheet.rows[name].area[0]))
            ahead = difference_text(sheet.ahead(best))
            said.append(f"Of what {kind}, `{best}` has the highest AIQ, {ahead} above the zero router.")
    return " ".join(said)


def seeds_text(sheet: Sheet) -> str:
    """How often routers that draw were trained, and how far their seeds are apart."""
    several = [
        f"`{name}` {len(areas_of)} ({min(areas_of):.4f} to {max(areas_of):.4f})"
        for name, areas_of in sheet.of_seed.items()
        if len(areas_of) > 1
    ]
    return f"Seeds, and their lowest and highest AIQ: {', '.join(several)}; all others one." if several else "One seed."


def controls_text(sheet: Sheet) -> str:
    """Routers that read answers, with what controls leave of them, and the best that reads the query alone."""
    names = [name for name in sheet.rows if name in ("hierrouter", "fitted-q") or ", " in name]
    names += sheet.query_alone()[:1]
    rows = []
    for name in names:
        parities = [share_text(sheet.parity(name, keep)) for keep in KEPT[:2]]
        router, _, control = name.partition(", ")
        said = control or ("reads the query alone" if router in QUERY_ALONE else "as it is")
        rows.append([router, said, difference_text(sheet.ahead(name)), *parities])
    header = ["router", "what it is given", "AIQ above the zero router", *(f"cost at {keep:.0%}" for keep in KEPT[:2])]
    return table_text(header, rows)


# --- goals ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What must be shown, and what decides whether it is. met: None if it was not measured.

    whole: the whole interval is within the bound, too, of a goal that the figure decides.
    """

    goal: str
    figure: str
    met: bool | None
    rule: Literal["figure", "interval"] = "figure"
    whole: bool = False

    @property
    def row(self) -> list[str]:
        """Of the table of goals."""
        said = {True: "met, interval too" if self.whole else "met", False: "**not met**", None: "not measured"}
        return [self.goal, self.figure, self.rule, said[self.met]]


def goals_of(sheets: Mapping[str, Sheet], named: Mapping[str, Sequence[float]]) -> Iterator[Goal]:
    """The goals of the tables that were measured, by HierRouter and, for comparison, by `fitted-q`."""
    for router in ("hierrouter", "fitted-q"):
        if (arc := sheets.get("arc")) is not None:
            yield from _arc_goals(arc, router)
        if (gsm8k := sheets.get("gsm8k")) is not None:
            yield from _gsm8k_goals(gsm8k, router)
    yield from _control_goals(sheets)
    both = [(name, sheet) for name, sheet in sheets.items() if {"hierrouter", "fitted-q"} <= set(sheet.rows)]
    goal = (
        "HierRouter's value not more than 0.005 below `fitted-q`'s, on any table, at any cost weight up to that at "
        "which a call of the most expensive model costs 0.2 of a score"
    )
    if not both:
        yield Goal(goal, "not measured", None)
        return
    behind, lowest, said = [], [], []
    for name, sheet in both:
        one, other = (sheet.rows[router] for router in ("hierrouter", "fitted-q"))
        weights = [weight for weight in other.kept.weights.tolist() if weight <= named[name][-1]]
        least = min(weights, key=lambda weight: float((one.value(weight) - other.value(weight)).mean()))
        gap = sheet.bootstrap.mean(one.value(least) - other.value(least))
        behind.append(gap.mean)
        lowest.append(gap.low)
        said.append(f"{name} {difference_text(gap)} (at {least:.3g})")
    everywhere = True if len(both) == len(sheets) else None  # what holds on some tables is not shown
    met = min(behind) >= -0.005 and everywhere
    yield Goal(goal, f"least: {'; '.join(said)}", met, whole=min(lowest) >= -0.005)
    fallen = [f"{name} at {weight:.3g}" for name, sheet in both for weight in named[name] if _collapsed(sheet, weight)]
    goal = (
        "HierRouter does not collapse onto one model where `fitted-q` is better, with any seed, at the cost weights of "
        "the tables"
    )
    yield Goal(goal, ", ".join(fallen) or "nowhere", not fallen and everywhere, "interval")


def _collapsed(sheet: Sheet, cost_weight: float) -> bool:
    """Whether a seed of HierRouter calls one model alone and the paired 95% interval says that `fitted-q` is better."""
    row, other = (sheet.rows[router] for router in ("hierrouter", "fitted-q"))
    for seed in row.seeds:
        at = row.at(cost_weight)
        calls, value = seed.calls[at], seed.quality[at] - cost_weight * seed.cost[at]
        better = sheet.bootstrap.mean(other.value(cost_weight) - value)
        if calls.max() >= COLLAPSED * calls.sum() and better.low > NOISE:
            return True
    return False


def _control_goals(sheets: Mapping[str, Sheet]) -> Iterator[Goal]:
    """That shuffled answers leave nothing above routers of the query alone, and shuffled outcomes nothing at all."""
    for router in ("hierrouter", "fitted-q"):
        for control, goal in (
            ("shuffled answers", "is not above that of the best router of the query alone"),
            ("shuffled outcomes", "is not above the zero router's"),
        ):
            name = f"{router}, {control}"
            found = {
                title: sheet.ahead(name, sheet.query_alone()[0] if control == "shuffled answers" else None)
                for title, sheet in sheets.items()
                if name in sheet.rows and sheet.query_alone()
            }
            text = "; ".join(f"{title} {difference_text(each)}" for title, each in found.items())
            met = all(each.low <= NOISE for each in found.values()) and (len(found) == len(sheets) or None)
            yield Goal(f"`{router}`, {control}: AIQ {goal}, on any table", text or "not measured", met, "interval")


def _arc_goals(sheet: Sheet, router: str) -> Iterator[Goal]:
    best = short(sheet.models[sheet.best])
    for keep, most, hoped in ((0.98, 0.30, ""), (0.99, 0.50, "hoped for: ")):
        goal = f"ARC, `{router}`: {hoped}{keep:.0%} of {best}'s accuracy at no more than {most:.0%} of its cost"
        if router not in sheet.rows:
            yield Goal(goal, "not measured", None)
            continue
        share = sheet.parity(router, keep)
        yield _at_most(goal, share, most)
    yield _above_all(sheet, router, "ARC")


def _gsm8k_goals(sheet: Sheet, router: str) -> Iterator[Goal]:
    for place, (level, most) in enumerate(zip(LEVELS, (0.28, 0.62), strict=True)):
        goal = f"GSM8K, `{router}`: CPT({level:.0%}) at most {most:.0%} strong calls"
        if router not in sheet.rows:
            yield Goal(goal, "not measured", None)
            continue
        found = sheet.calls(router)
        assert found is not None
        yield _at_most(goal, found[1][place], most)
    yield _above_all(sheet, router, "GSM8K")


def _at_most(goal: str, share: Estimate | None, most: float) -> Goal:
    met = share is not None and share.mean <= most
    return Goal(goal, share_text(share, 1), met, whole=share is not None and share.high <= most)


def _above_all(sheet: Sheet, router: str, title: str) -> Goal:
    goal = (
        f"{title}, `{router}`: AIQ above the zero router's and every router's of the query alone, intervals exclude 0"
    )
    if router not in sheet.rows:
        return Goal(goal, "not measured", None, "interval")
    against = {"zero router": sheet.ahead(router)} | {name: sheet.ahead(router, name) for name in sheet.query_alone()}
    least = min(against, key=lambda name: against[name].low)
    return Goal(goal, f"least: {difference_text(against[least])} over {least}", against[least].low > NOISE, "interval")


# --- the figure -------------------------------------------------------------------------------------------------------


def draw(sheet: Sheet, unit: str, path: Path) -> None:
    """The quality-cost plane: frontiers of the main routers, single models as points, and the bound."""
    from matplotlib.patheffects import withStroke

    singles = MANY * sheet.singles.cost.mean(axis=1), sheet.singles.quality.mean(axis=1)
    shown = [name for name in (*DRAWN_AS, *sheet.query_alone()[:1], "oracle") if name in sheet.rows]
    curves = {name: _own_hull(sheet.rows[name].points) for name in shown}
    costs, heights = (
        np.concatenate([single, *(curve[n] for curve in curves.values())]) for n, single in enumerate(singles)
    )
    low, high, margin = 0.8 * costs.min(), 1.2 * costs.max(), 0.04 * np.ptp(heights)
    with drawing_style(False):
        figure = new_figure(860, 540)
        axes = axes_at(figure, 62, 64, 784, 424)
        axes.set(xscale="log", xlim=(low, high), ylim=(heights.min() - margin, heights.max() + margin))
        axes.set(xlabel=f"cost of {MANY:,} items ({unit}, logarithmic)", ylabel="quality")
        ticks = [tick for power in range(-6, 7) for tick in (10.0**power, 3 * 10.0**power) if low < tick < high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(linewidth=0.8)
        axes.tick_params(length=0)
        zero = concave_hull(*singles)
        along = np.geomspace(singles[0].min(), high, 400)
        dashed: dict[str, Any] = {"color": LIGHT["slate"], "linestyle": (0, (5, 3)), "linewidth": 1.3}
        axes.plot(along, np.interp(along, *zero), label="single models, mixed at random", **dashed)
        lines = [(along, np.interp(along, *zero))]
        for name, (cost, quality) in curves.items():
            colour, marker, style = DRAWN_AS.get(name, ("purple", "D", "-"))
            if name == "oracle":
                colour, marker, style = "muted", "", ":"
            # The bends and, as steps between them are curved on this axis, points between.
            at = np.union1d(np.geomspace(cost[0], cost[-1], 200), cost)
            lines.append((at, np.interp(at, cost, quality)))
            axes.plot(
                *lines[-1], color=LIGHT[colour], linestyle=style, linewidth=1.8, marker=marker, markersize=points(6),
                markevery=np.searchsorted(at, cost).tolist(), label="oracle, a bound" if name == "oracle" else name,
            )  # fmt: skip
        axes.plot(*singles, linestyle="", marker="X", markersize=points(9), color=LIGHT["ink"], label="single model")
        figure.legend(
            loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=4, frameon=False, columnspacing=1.0, handletextpad=0.4
        )
        bars = [(a, min(c, d), b, max(c, d)) for x, y in lines for a, b, c, d in zip(x, x[1:], y, y[1:], strict=False)]
        places = list(zip(*singles, strict=True))
        place_labels(axes, places, [short(m) for m in sheet.models], [LIGHT["ink"]] * len(places), bars)
        for text in axes.texts:
            text.set_path_effects([withStroke(linewidth=points(3), foreground=LIGHT["paper"])])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=192, metadata={"Software": None})


def _own_hull(of: Points) -> Curve:
    """The hull of a router's points, without the origin; cost of `MANY` items."""
    cost, quality = concave_hull(MANY * of.cost.mean(axis=1), of.quality.mean(axis=1))
    return cost[1:], quality[1:]


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chapter:
    """A table on the page.

    named: cost weights at which values are shown. own: whether it has a test file of its own.
    """

    name: str
    title: str
    about: str
    tree: Tree
    named: tuple[float, ...]
    own: bool


RULES = """\
Each row names the rule by which it is judged. *figure*: the figure itself has to be within the bound. There *met* alone
says that its 95% interval crosses the bound, *met, interval too* that the whole interval is within it. *interval*: if
the goal is to be above or better, the lower end of the 95% interval has to be above 0; if it is *not* to be above, not
above 0."""

READING = f"""\
What the columns say:

- **AIQ** (RouterBench, arXiv 2403.12031): mean height of the concave hull over the costs from the cheapest to the most
  expensive single model. Every router may be mixed at random with the single models. *Above the zero router*: minus the
  hull of the single models alone, with the paired 95% interval ({RESAMPLES} resamples of the items, reflected); bold if
  it excludes 0.
- **group**: two routers share a letter if the paired 95% interval of their difference in AIQ contains 0. Intervals are
  not adjusted for the number of pairs.
- **cost at 98%** (99%, 100%): the least share of the best single model's cost at which so much of its quality is kept;
  *not reached* if no point of the router itself has that quality.
- **CPT(50%)** (80%; RouteLLM, arXiv 2406.18665): the least share of items for which the strong model is called, once or
  more often, that recovers so much of the gap between the two models.
- **value at** a cost weight, in score per US$: quality - cost weight x cost. Bold: not told apart from the best in the
  column (paired 95% interval). At the three weights a call of the most expensive model costs as much as 0.01, 0.05 and
  0.2 of a score.
- **most called**: the model with the largest share of the calls, at the second of the three weights; *collapsed* from
  {COLLAPSED:.0%}. **calls**: how many an item, at the same weight. **s**: processor seconds of training.

Of a router that draws, outcomes are means over its seeds, item by item, and the figures are of these: they say what to
expect of one training, and their intervals hold no spread between trainings (below each table: the seeds' own AIQ).
*-*: withheld, since the router's points span less than half of the costs. Which points of a frontier lie on its hull is
read off the tested items, for every router alike; models, features and settings are chosen on train and validation
items. The encoder of the query has no price in US$ and is not billed. `oracle` has seen the outcomes and is a bound."""

CONTROLS = """\
Controls. *Shuffled answers*: each item has another item's texts, and its own scores and costs. *Shuffled outcomes*:
each item has another item's scores and costs, and its own texts. Both for train, validation and test items alike."""

BESIDE = """\
Routers of other projects run from their own repositories, trained on the same items and the same embeddings of the
query (`benchmarks/peers.py`). `routellm-mf` is the class that trains RouteLLM's matrix factorisation, with the settings
of its script; its points are those of {dials} thresholds, and its values those of the threshold that is best on
validation items. `llmrouter-knn`, `-mlp` and `-svm` are LLMRouter's, with the settings of its configuration files:
classifiers of the best model of a query. Of equally good models their label is the one that the table lists first,
whatever it costs, and they take no cost weight: each is one point."""

WITHOUT = """\
Routers of other projects were not measured. To have them beside ours, clone RouteLLM (lm-sys/RouteLLM) and LLMRouter
(ulab-uiuc/LLMRouter), and name the folders: `--peer routellm=FOLDER llmrouter=FOLDER`."""

END = """\
## More tables

A table of your own is measured with these if the folder holds a `tables.yaml` that lists it; its files are of any
format that `import` reads ([tables of outcomes](../guides/outcomes.md)).

    tables:
      - {name: sums, title: Sums, files: [sums_train.csv, sums_test.csv], hops: 2}

## Sources

- RouterBench: Hu et al. 2024, arXiv 2403.12031; its tables as shuhao02/RouterDC holds them (`datasets/routerbench_zs`).
- RouteLLM: Ong et al. 2024, arXiv 2406.18665; lm-sys/RouteLLM, `routellm/evals/gsm8k/gsm8k_responses.csv`. Its paper's
  figures are of routers trained on preferences about other questions, those here of routers trained on this table.
- LLMRouter: ulab-uiuc/LLMRouter."""


def write_page(out: Path, work: Path, chapters: Sequence[Chapter], folds: int, commands: Sequence[str]) -> None:
    """Write the page and its figures; what was not measured is not on it. Raises UserError if nothing was."""
    parts = [str(fold) for fold in range(folds)]
    sheets = {c.name: sheet for c in chapters if (sheet := sheet_of(work / c.name, c.tree, parts)) is not None}
    if not sheets:
        raise UserError(f"{work} holds no router that was measured on all {folds} folds; run without --report-only")
    newest = max(path.stat().st_mtime for path in work.glob("*/*/*.npz"))
    text = [
        "# Real models' tables",
        wrapped(
            "Routers on tables of what real models answered, one call of each. No model reads earlier answers, so a "
            "table is a tree of several hops, and every router is evaluated exactly. "
            f"{folds} folds: each item is tested once, by a router that never saw it; of the others every fifth is for "
            "validation. Last measured on "
            f"{datetime.fromtimestamp(newest, UTC):%-d %B %Y}."
        ),
        "\n".join(f"    {line}" for line in commands),
        "## Goals",
        RULES,
        _goals_text(sheets, {c.name: c.named for c in chapters}),
        "## How to read the tables",
        READING,
        BESIDE.format(dials=DIALS) if any(set(PEERS) & set(sheet.rows) for sheet in sheets.values()) else WITHOUT,
    ]
    for chapter in chapters:
        if chapter.name in sheets:
            text += _chapter(chapter, sheets[chapter.name], out, work)
    text.append(END)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        partial.write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _goals_text(sheets: Mapping[str, Sheet], named: Mapping[str, Sequence[float]]) -> str:
    return table_text(["goal", "figure", "rule", "met"], [goal.row for goal in goals_of(sheets, named)])


def _chapter(chapter: Chapter, sheet: Sheet, out: Path, work: Path) -> list[str]:
    figure = out.with_suffix("") / f"{chapter.name}.png"
    draw(sheet, chapter.tree.cost_model.unit, figure)
    items, models, hops = len(chapter.tree.items), len(chapter.tree.models), chapter.tree.max_hops
    text = [
        f"## {chapter.title}",
        wrapped(f"{chapter.about} {items:,} items, {models} models, {hops} hops."),
        f"![Quality over cost: frontiers of the main routers, single models as points]({out.stem}/{chapter.name}.png)",
        singles_text(sheet, chapter.tree.cost_model.unit),
        wrapped(summary_text(sheet)),
        routers_text(sheet, chapter.named),
        wrapped(seeds_text(sheet)),
    ]
    if any(", " in name for name in sheet.rows):
        text += [CONTROLS, controls_text(sheet)]
    own = sheet_of(work / chapter.name, chapter.tree, [OWN]) if chapter.own else None
    if own is not None:
        tested = len(own.singles.cost[0])
        text += [
            f"The same on the table's own test file, {tested} items, trained on its train file:",
            routers_text(own, chapter.named),
        ]
    return text
