"""Splits go by the text alone."""

from collections import Counter

from tasks import split_of


def test_shares() -> None:
    shares = Counter(split_of(f"question {number}") for number in range(20_000))
    assert abs(shares["train"] / 20_000 - 0.5) < 0.015
    assert abs(shares["validation"] / 20_000 - 0.2) < 0.015
    assert abs(shares["test"] / 20_000 - 0.3) < 0.015


def test_whitespace_does_not_count_and_other_text_does() -> None:
    texts = [f"How many legs have {number} dogs?" for number in range(200)]
    assert all(split_of(text) == split_of("  " + text.replace(" ", "\n\t ") + "\n") for text in texts)
    assert {split_of(text) for text in texts} == {"train", "validation", "test"}


def test_splits_are_what_they_were() -> None:
    """Recordings and trained policies depend on it."""
    golden = ["test", "train", "train", "train", "test", "test"]
    assert [split_of(text) for text in ("a", "b", "c", "d", "", "How many?")] == golden
