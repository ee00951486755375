"""Parts that several folders of tests build on: tiny real models, and trees of made-up responses."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shipped import RECORDING, part_of_recording

from pools import Context, Generation, GenerationSettings, Item, UserError
from pools.cost import paper_cost
from pools.mdp.tree import Tree

SETTINGS = GenerationSettings(("\n\n",), 16)
FAULTS = int(os.environ.get("HARNESS_FAULTS", "1"))
"""How many times as many faults are injected as in CI."""
TABLE = os.environ.get("HARNESS_FAULT_TABLE")
"""The file that a line of JSON goes to for each test that injects faults; docs/results/faults.md shows the result."""
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def _number(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16)


class MadeUpGenerator:
    """A function of (model, context, settings) that needs no model; `calls` lists the batches that it was asked for.

    variety: how many different responses there are to a query; few of them make contexts meet.
    """

    def __init__(self, variety: int = 3) -> None:
        self.variety = variety
        self.calls: list[tuple[int, list[tuple[Context, GenerationSettings]]]] = []

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        self.calls.append((model, list(requests)))
        made = []
        for context, settings in requests:
            number = _number(model, context, settings)
            tokens_out = 1 + number // 100 % settings.max_new_tokens
            reason: Any = "length" if tokens_out == settings.max_new_tokens else "stop"
            read = len(context.query) + sum(map(len, context.responses))
            made.append(Generation(f"answer {number % self.variety}", read, tokens_out, reason, (1 + number % 8) / 8))
        return made


def _score(answers: Sequence[tuple[Item, str]]) -> list[float]:
    return [_number(item.task, item.doc_id, response) % 3 / 2 for item, response in answers]


@pytest.fixture(scope="session")
def made_up_generator() -> type[MadeUpGenerator]:
    """The class: `made_up_generator(variety=3)` is a deterministic `Generator` that keeps its `calls`."""
    return MadeUpGenerator


@pytest.fixture(scope="session")
def synthetic_tree() -> Callable[..., Tree]:
    """`synthetic_tree(items=4, models=2, max_hops=2, seed=0, complete=True, generator=None, rates=None)`.

    A live tree of made-up items, responses, token counts and scores (0, 0.5 or 1); the splits alternate.
    rates: what a token of each model costs; by default 0.01 for the first, 0.02 for the second, ...
    """

    def make(
        items: int = 4,
        models: int = 2,
        max_hops: int = 2,
        seed: int = 0,
        complete: bool = True,
        generator: MadeUpGenerator | None = None,
        rates: Sequence[float] | None = None,
    ) -> Tree:
        splits: Any = ("train", "validation", "test")
        tree = Tree(
            [Item("made-up", n, f"question {n} of {seed}", SETTINGS, splits[n % 3]) for n in range(items)],
            [f"model-{m}" for m in range(models)],
            max_hops,
            paper_cost(tuple(rates or [0.01 * (m + 1) for m in range(models)]), "unit"),
            generator or MadeUpGenerator(),
            _score,
        )
        if complete:
            rows, columns = np.indices(tree.known.shape)
            tree.require(rows.ravel(), columns.ravel())
        return tree

    return make


def build_tiny_model(folder: Path, seed: int, chat_template: str | None = None) -> Path:
    """A Llama of 10,000 random parameters with a tokenizer of one token per ASCII character, saved as on the hub."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    printable = string.digits + string.ascii_letters + string.punctuation + " \n"
    # A byte-level vocabulary writes the space and the line break as other characters.
    letters = [pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(c)[0][0] for c in printable]
    vocabulary = {token: n for n, token in enumerate(["<unk>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def stand_in_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file in place of the weights of the code model of `lightweight`, which do not ship.

    For routers that may call it, and do not.
    """
    from pools.pool import load_pool

    declared, folder = load_pool("lightweight").models[-1].weights, tmp_path_factory.mktemp("weights")
    assert declared is not None and declared.repository and declared.file
    (folder / declared.repository).mkdir(parents=True)
    (folder / declared.repository / declared.file).touch()
    monkeypatch.setenv("HARNESS_WEIGHTS", str(folder))


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Path]:
    """`tiny_model(folder, seed, chat_template=None)`: a tiny random Llama in a folder."""
    return build_tiny_model


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama, float32, without a chat template."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-a", seed=1)


@pytest.fixture(scope="session")
def tiny_pool_file(tiny_model_dir: Path) -> Path:
    """A pool file of two tiny models: `tiny-a` reads plain text, `tiny-b` (other weights) by its chat template."""
    folder = tiny_model_dir.parent
    build_tiny_model(folder / "tiny-b", seed=2, chat_template=CHAT_TEMPLATE)
    path = folder / "tiny.yaml"
    path.write_text(
        """
name: tiny
cost_unit: M param-tokens
rates: parameters of each model divided by 10^6
models:
  - name: tiny-a
    lm_eval: hf
    arguments: {dtype: float32, device: cpu}
    batch_size: 4
    base_rate: 0.01
    weights: {path: tiny-a}
  - name: tiny-b
    lm_eval: hf
    arguments: {dtype: float32, device: cpu}
    batch_size: 4
    base_rate: 0.02
    weights: {path: tiny-b}
    chat_template: true
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def small_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the shipped recording, with items of each task and split, that no test may write to."""
    return part_of_recording(tmp_path_factory.mktemp("recordings") / "small")


@pytest.fixture
def small_by_default(small_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`small_recording` as what ships: the recording of a command that names none. Where it is."""
    folder = tmp_path / "results"
    shutil.copytree(small_recording, folder / "recordings" / RECORDING.name)
    monkeypatch.setattr("harness.runs.source.RESULTS", folder)
    return folder / "recordings" / RECORDING.name


@pytest.fixture(scope="session")
def faults() -> int:
    """How many times as many faults shall be injected as in CI: HARNESS_FAULTS, 1 by default."""
    return FAULTS


@pytest.fixture(scope="session")
def counted() -> Callable[..., None]:
    """`counted(fault, subject, times, refused=0, lost=None, wrong=0, anew=None, mixed=None)`: a line of the table.

    refused: how many ended in one clear line; the others in the result that there is without the fault. anew: stored
    responses that the fault took away and that were made again. mixed: how often files of two results were side by
    side. None where the test does not count that. Fails where something was lost or wrong.
    """

    def count(
        fault: str,
        subject: str,
        times: int,
        refused: int = 0,
        lost: int | None = None,
        wrong: int = 0,
        anew: int | None = None,
        mixed: int | None = None,
    ) -> None:
        named = {"fault": fault, "subject": subject, "times": times, "refused": refused}
        line = {**named, "anew": anew, "lost": lost, "wrong": wrong, "mixed": mixed}
        if TABLE:
            with open(TABLE, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        assert times > 0 and not lost and not mixed and wrong == 0, line

    return count


@pytest.fixture(scope="session")
def outcome() -> Callable[[Callable[[], Any], Any], str]:
    """`outcome(use, expected)`: `refused` in one line that says what to do, `same` as expected, or else `wrong`."""

    def found(use: Callable[[], Any], expected: Any) -> str:
        try:
            return "same" if use() == expected else "wrong"
        except UserError as error:
            assert "\n" not in str(error) and ";" in str(error), "the line says what to do"
            return "refused"

    return found


@pytest.fixture(scope="session")
def damages() -> Callable[..., Iterator[bytes]]:
    """`damages(fault, content, number, seed=0)`: the content, each with one `bit flip` or `truncation`."""

    def damage(fault: str, content: bytes, number: int, seed: int = 0) -> Iterator[bytes]:
        rng = random.Random(seed)
        for _ in range(number):
            place = rng.randrange(len(content))
            if fault == "truncation":
                yield content[:place]
            else:
                changed = bytearray(content)
                changed[place] ^= 1 << rng.randrange(8)
                yield bytes(changed)

    return damage
