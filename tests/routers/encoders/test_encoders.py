from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pools.errors import UserError
from pools.types import Context
from routers.encoders.base import ContextEncoder, build_encoder, load_encoder, save_encoder
from routers.encoders.cache import _Kept, embedding_progress
from routers.encoders.hashing import HashingEncoder
from routers.encoders.surface import SurfaceEncoder, surface

TEXTS = [f"What is {n} + {n * 3}?" for n in range(40)] + [f"Which colour is cube {n}, red or blue?" for n in range(40)]


def test_hashing_tells_kinds_of_question_apart() -> None:
    encoder = HashingEncoder.fit(TEXTS)
    sums, colours = encoder.encode(["What is 77 + 4?", "What is 5 + 91?"]), encoder.encode(["Which colour is cube 99?"])
    assert sums[0] @ sums[1] > 0.95
    assert abs(sums[0] @ colours[0]) < 0.5


def test_hashing_survives_a_checkpoint() -> None:
    encoder = HashingEncoder.fit(TEXTS, seed=3)
    np.testing.assert_array_equal(encoder.encode(TEXTS[:5]), load_encoder(save_encoder(encoder)).encode(TEXTS[:5]))


def test_hashing_is_the_same_whatever_the_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{chr(97 + letter)}" for letter in rng.integers(0, 100, 40)) for _ in range(900)]
    fitted = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            fitted.append(HashingEncoder.fit(texts).components)
    np.testing.assert_array_equal(*fitted)


def test_hashing_of_few_texts_and_of_an_empty_one() -> None:
    encoder = HashingEncoder.fit(["only one text here"])
    assert encoder.encode(["", "another"]).shape == (2, encoder.dimension)
    assert np.isfinite(encoder.encode([""])).all()


def test_context_is_query_and_last_response_and_each_text_is_encoded_once() -> None:
    encoder = HashingEncoder.fit(TEXTS)
    asked: list[str] = []

    class Counting(HashingEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            asked.extend(texts)
            return super().encode(texts)

    embed = ContextEncoder(Counting(encoder.idf, encoder.components))
    contexts = [Context("What is 1 + 1?"), Context("What is 1 + 1?", ("x", "Answer: 2")), Context("Answer: 2")]
    vectors = embed(contexts)
    half = encoder.dimension
    np.testing.assert_array_equal(vectors[0, :half], vectors[1, :half])
    assert not vectors[0, half:].any()
    np.testing.assert_array_equal(vectors[1, half:], vectors[2, :half])
    embed(contexts)
    assert sorted(asked) == ["Answer: 2", "What is 1 + 1?"]
    assert embed.cost(contexts).tolist() == [0, 0, 0]


def test_vectors_are_kept_without_the_texts_and_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = HashingEncoder.fit(TEXTS)
    kept = _Kept()
    monkeypatch.setattr("routers.encoders.cache._KEPT", kept)
    monkeypatch.setattr("routers.encoders.cache.MAX_BYTES", 10 * 4 * encoder.dimension)
    embed = ContextEncoder(encoder)
    many = [Context(text) for text in TEXTS]
    first = embed(many)  # more at once than are kept
    assert len(kept.vectors) == 10 and not any(b"cube" in key for key in kept.vectors)
    np.testing.assert_array_equal(first, embed(many))
    np.testing.assert_array_equal(first[:1], embed(many[:1]))


def test_routers_with_equal_encoders_share_vectors_and_those_with_others_do_not() -> None:
    asked: list[str] = []

    class Counting(SurfaceEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            asked.extend(texts)
            return super().encode(texts)

    contexts = [Context(f"{text} Indeed?") for text in TEXTS]
    mean, scale = np.zeros(len(surface(""))), np.ones(len(surface("")))
    first = ContextEncoder(Counting(mean, scale))(contexts)
    np.testing.assert_array_equal(ContextEncoder(Counting(mean, scale))(contexts), first)
    assert len(asked) == len(TEXTS)
    other = ContextEncoder(Counting(mean, 2 * scale))(contexts)
    np.testing.assert_allclose(other, first / 2)


def test_a_long_encoding_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routers.encoders.cache.AT_ONCE", 30)
    said: list[tuple[int, int]] = []
    encoder = build_encoder("hashing+surface", [Context(text) for text in TEXTS])
    with embedding_progress(lambda done, total: said.append((done, total))):
        ContextEncoder(encoder)([Context(text) for text in TEXTS])
        ContextEncoder(encoder)([Context(text) for text in TEXTS[:5]])
    assert said == [(0, 80), (30, 80), (60, 80), (80, 80)]


def test_with_surface_is_both_vectors_side_by_side() -> None:
    contexts = [Context(text) for text in TEXTS]
    both, alone, surface = (build_encoder(name, contexts) for name in ("hashing+surface", "hashing", "surface"))
    expected = np.concatenate([alone.encode(TEXTS), surface.encode(TEXTS)], axis=1)
    np.testing.assert_array_equal(both.encode(TEXTS), expected)
    np.testing.assert_array_equal(load_encoder(save_encoder(both)).encode(TEXTS), expected)
    assert (both.dimension, both.base_rate) == (alone.dimension + surface.dimension, 0)


@pytest.mark.parametrize("sees", [("query",), ("response",)])
def test_a_part_of_a_context_can_be_seen_alone(sees: tuple[str, ...]) -> None:
    encoder = HashingEncoder.fit(TEXTS)
    context = Context(TEXTS[0], (TEXTS[1], TEXTS[2]))
    alone, both = ContextEncoder(encoder, sees), ContextEncoder(encoder)
    start = encoder.dimension * (sees == ("response",))
    np.testing.assert_array_equal(alone([context]), both([context])[:, start : start + encoder.dimension])
    assert alone([]).shape == (0, alone.dimension) and both.dimension == 2 * alone.dimension


def test_surface_is_standardised_by_train_texts_and_tells_a_refusal_from_a_number() -> None:
    texts = [f"It is {n}." for n in range(20)] + ["Sorry, I cannot say.\nAsk somebody else"] * 20
    encoder = build_encoder("surface", [Context(text) for text in texts])
    vectors = encoder.encode(texts)
    distinct = encoder.encode(list(dict.fromkeys(texts)))  # what it was standardised by
    np.testing.assert_allclose(distinct.mean(axis=0), 0, atol=1e-6)
    assert np.isclose((distinct**2).mean(axis=0) * encoder.dimension, 1).sum() == 7  # the other features never vary
    assert (np.linalg.norm(vectors[:20, None] - vectors[None, 20:], axis=2) > 0.5).all()
    np.testing.assert_array_equal(load_encoder(save_encoder(encoder)).encode(texts), vectors)
    width = encoder.dimension
    for mean, scale in ((np.zeros(width), np.zeros(width)), (np.zeros(width + 1), np.ones(width + 1))):
        with pytest.raises(ValueError, match=f"of {width} features"):
            load_encoder({"encoder": "surface", "encoder.mean": mean, "encoder.scale": scale})


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("word2vec", "known are hashing, hashing.surface, sentence, sentence.surface, surface"),
        ("hashing:64", "takes no argument"),
        ("surface:64", "takes no argument"),
        ("sentence:nobody/nothing", "no weights for model encoder sentence"),
    ],
)
def test_what_is_no_encoder(encoder: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_WEIGHTS", raising=False)
    with pytest.raises(UserError, match=message) as caught:
        build_encoder(encoder, [])
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence transformer with random weights, made now."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789?+"]
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters])}
    vocabulary |= {f"##{word}": n + len(vocabulary) for n, word in enumerate(letters)}
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=vocabulary, do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_sentence_encodes_alike_in_any_batch_and_bills_its_tokens(tiny_bert: Path) -> None:
    encoder = build_encoder(f"sentence:{tiny_bert}", [])
    vectors = encoder.encode(["what is 1 + 1 ?", "b", "a much longer text than the others are"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[1], encoder.encode(["b"])[0], atol=1e-5)
    restored = load_encoder(save_encoder(encoder), tiny_bert.parent)  # found by name in a folder of weights
    np.testing.assert_array_equal(restored.encode(["b"]), encoder.encode(["b"]))
    cost = ContextEncoder(encoder).cost([Context("b")])
    assert cost[0] == pytest.approx(encoder.base_rate * 3)  # [CLS] b [SEP]
    assert encoder.base_rate > 0


def test_sentence_with_other_weights_than_the_checkpoints_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="sha256"):
        load_encoder({"encoder": "sentence", "encoder.model": str(tiny_bert), "encoder.sha256": "0" * 64})
