"""p-values of what became worse, and their correction, against all signs, all subsets, and equal chances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.evaluation.metrics import sign_flip_p
from harness.evaluation.paired import Figures, holm, tail_exchange_p, worse_p


def test_holm_is_the_closure_of_bonferroni() -> None:
    """A hypothesis is rejected if Bonferroni rejects every family that it is in (Marcus, Peritz and Gabriel, 1976)."""
    p = np.random.default_rng(1).random(7) ** 3
    p[4] = p[2]
    families = [set(f) for size in range(1, 8) for f in itertools.combinations(range(7), size)]
    closed = [max(min(1.0, len(f) * min(p[list(f)])) for f in families if one in f) for one in range(7)]
    assert holm(p.tolist()) == pytest.approx(closed)
    assert holm([]) == [] and holm([0.5]) == [0.5]


def test_one_side_of_the_sign_flip_counts_sums_above_alone() -> None:
    d = np.array([3.0, 1.0, 0.0, -0.5])
    sums = [sum(s * x for s, x in zip(signs, d[d != 0], strict=True)) for signs in itertools.product((1, -1), repeat=3)]
    assert sign_flip_p(d, 1, one_sided=True) == np.mean([s >= 3.5 for s in sums])
    assert sign_flip_p(-d, 1, one_sided=True) == np.mean([s >= -3.5 for s in sums])
    many = np.random.default_rng(2).normal(0.2, 1, 60)
    assert sign_flip_p(many, 3, one_sided=True) == pytest.approx(sign_flip_p(many, 3) / 2, abs=0.02)


def test_what_is_tolerated_is_no_evidence() -> None:
    old = Figures(np.full(40, 0.5), np.full(40, 1.0), np.linspace(10, 11, 40))
    new = Figures(old.quality - 0.1, np.full(40, 1.2), old.seconds + 2.0)
    for measure, by in (("quality", 0.1), ("cost", 0.2), ("latency", 2.0)):
        found = [worse_p(measure, old, new, tolerated, 1) for tolerated in (0.0, 0.9 * by, by + 1e-12, 1.1 * by)]
        assert found[0] < 0.06 and found[0] <= found[1] < 0.2 and found[2] > 0.4 and found[3] > 0.4, measure
        assert worse_p(measure, new, old, 0.0, 1) > 0.9, measure


def test_draws_of_the_exchange_are_counted_once() -> None:
    old, new = np.arange(60.0), np.arange(60.0) * np.where(np.arange(60) > 50, 3, 1)
    assert tail_exchange_p(old, new, 1, 6000, one_sided=True) == pytest.approx(
        tail_exchange_p(old, new, 2, 9000, one_sided=True), rel=0.5
    )
    assert tail_exchange_p(old, old, 1, 2500) == 1.0
