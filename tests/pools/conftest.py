import pytest

from pools.pool import CandidateModel, Pool


@pytest.fixture
def made_up_pool() -> Pool:
    """A pool of the names that a synthetic tree of two models has; nothing stands behind them."""
    models = tuple(CandidateModel(f"model-{n}", "hf", 0.01 * (n + 1)) for n in range(2))
    return Pool("made-up", models, "unit", "made up")
