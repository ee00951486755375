import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from pools.models.hf import SharedPrefixHFLM
from pools.models.progress import under_way

INSTRUCTION = "Answer the question as shortly as you can, and nothing else. "
QUERIES = ["What is 2 + 2?", "Name a colour. " * 5, "How many legs has a spider, and why has it so many of them?", "?"]
RESPONSES = ["", "Four.", "It has eight legs, as all of its relatives have, but for those that have lost one."]
PROMPTS = [f"{INSTRUCTION}{query}\n\n{response}" for query in QUERIES for response in RESPONSES]


class Read:
    """Counts the columns (tokens and padding) that a model reads."""

    def __init__(self, model):
        self.columns = 0
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, model, arguments, named):
        self.columns += named["input_ids"].numel()


@pytest.fixture(scope="module")
def models(tiny_model_dir):
    """Ours and lm-eval's; one batch takes all prompts."""
    options = {"pretrained": str(tiny_model_dir), "device": "cpu", "dtype": "float32", "batch_size": len(PROMPTS)}
    made = [kind(**options) for kind in (SharedPrefixHFLM, HFLM)]
    for lm in made:
        lm.read = Read(lm.model)
    return made


def answers(lm, prompts, until=(), limit=40, **more):
    arguments = {"until": list(until), "max_gen_toks": limit, "do_sample": False, **more}
    lm.read.columns = 0
    instances = [Instance("generate_until", {}, (prompt, dict(arguments)), n) for n, prompt in enumerate(prompts)]
    return lm.generate_until(instances, disable_tqdm=True)


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1], PROMPTS[::3], [PROMPTS[0], PROMPTS[0]], ["a", "b", "abc"]])
def test_responses_are_lm_eval_s(models, prompts):
    ours, theirs = models
    assert answers(ours, prompts) == answers(theirs, prompts)
    assert ours.read.columns <= theirs.read.columns


def test_tokens_are_counted_as_they_are_written_whoever_decodes(models):
    ours, _ = models
    for more in ({}, {"repetition_penalty": 1.1}):
        told = []
        with under_way("tiny", told.append):
            answers(ours, PROMPTS[:3], limit=10, **more)
        assert told[-1].tokens_out == 30 and len({event.tokens_out for event in told}) == 11, more


def test_shared_beginnings_are_read_once(models):
    ours, theirs = models
    assert answers(ours, PROMPTS, limit=1) == answers(theirs, PROMPTS, limit=1)
    distinct = len(INSTRUCTION) + sum(len(q) + sum(map(len, RESPONSES)) for q in QUERIES)  # a token per character
    assert theirs.read.columns == len(PROMPTS) * max(map(len, PROMPTS))
    assert distinct <= ours.read.columns < 2 * distinct < theirs.read.columns / 1.5


def test_responses_that_end_leave_the_batch(models):
    """Stops that some responses meet early and others never."""
    ours, theirs = models
    free = answers(theirs, PROMPTS, limit=200)
    stops = [free[0][3], free[1][9:11]]
    lengths = [len(response) for response in answers(theirs, PROMPTS, stops, limit=200)]
    assert len(set(lengths)) > 3
    assert answers(ours, PROMPTS, stops, limit=200) == answers(theirs, PROMPTS, stops, limit=200)
    assert ours.read.columns < 0.8 * theirs.read.columns


def test_a_response_that_ends_by_the_end_of_text(models, monkeypatch):
    ours, theirs = models
    free = answers(theirs, PROMPTS, limit=60)
    for lm in models:
        end = lm.tok_encode(free[2][5], add_special_tokens=False)[0]
        monkeypatch.setattr(lm.model.generation_config, "eos_token_id", [2, end])
    made = answers(ours, PROMPTS, limit=60)
    assert made == answers(theirs, PROMPTS, limit=60)
    assert len(made[2]) <= 6 < max(map(len, made))


@pytest.mark.parametrize(
    "more", [{"do_sample": True, "temperature": 1.0}, {"num_beams": 2}, {"repetition_penalty": 1.2}]
)
def test_other_ways_to_decode_are_left_to_lm_eval(models, more):
    made = []
    for lm in models:
        torch.manual_seed(1)
        made.append(answers(lm, PROMPTS, limit=5, **more))
    assert made[0] == made[1]
    assert models[0].read.columns == models[1].read.columns


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("config", "sliding_window", 16),
        ("config", "rope_parameters", {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
        ("generation_config", "repetition_penalty", 1.3),
        ("generation_config", "min_new_tokens", 4),
        ("generation_config", "eos_token_id", None),
    ],
)
def test_models_that_decode_otherwise_are_left_to_lm_eval(models, monkeypatch, where, name, value):
    ours, theirs = models
    for lm in models:
        monkeypatch.setattr(getattr(lm.model, where), name, value, raising=False)
    assert answers(ours, PROMPTS, limit=5) == answers(theirs, PROMPTS, limit=5)
    assert ours.read.columns == theirs.read.columns


def test_a_stop_text_in_thinking_is_left_to_lm_eval(models, monkeypatch):
    ours, theirs = models
    free = answers(theirs, PROMPTS, limit=60)
    for lm in models:
        monkeypatch.setattr(lm, "think_end_token", free[0][30])
    assert answers(ours, PROMPTS, [free[0][3]], limit=60) == answers(theirs, PROMPTS, [free[0][3]], limit=60)
