from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pools.models.engine
from pools import Context, Generation, GenerationSettings, Item, UserError
from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.models.engine import Unanswered
from pools.models.generator import LiveGenerator
from pools.models.progress import Batch, Loading, UnderWay
from pools.pool import load_pool
from pools.template import render
from pools.types import UpstreamError

SETTINGS = GenerationSettings(("\n\n",), 12)
QUERIES = ["What is 2 + 2?", "Name a colour.", "Why?", "How many legs has a spider, and why?", "x" * 40, "{{ query }}"]
REQUESTS = [(Context(query), SETTINGS) for query in QUERIES]


@pytest.fixture(scope="module")
def pool(tiny_pool_file):
    return load_pool(str(tiny_pool_file))


@pytest.fixture(scope="module")
def generator(pool):
    """One for all tests that need no store, so that the models are loaded once."""
    return LiveGenerator(pool)


@pytest.fixture
def direct(pool):
    """lm-eval's own model class, as `lm_eval --model hf` makes it; answers and tokens of one batch."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    made = {}

    def ask(model, texts, settings):
        if model not in made:
            folder = pool.folder / pool.models[model].weights.path
            made[model] = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=len(texts))
        arguments = {"until": list(settings.until), "max_gen_toks": settings.max_new_tokens, "do_sample": False}
        instances = [Instance("generate_until", {}, (text, arguments), n) for n, text in enumerate(texts)]
        tokenizer = made[model].tokenizer
        return made[model].generate_until(instances, disable_tqdm=True), [len(tokenizer.encode(t)) for t in texts]

    return ask


@pytest.mark.parametrize("model", [0, 1])
def test_the_answers_are_lm_eval_s(generator, direct, model):
    context = Context(QUERIES[1], ("one answer", "and another"))
    requests = [*REQUESTS[:3], (context, SETTINGS)]  # one batch
    texts = ["What is 2 + 2?", "Name a colour.", "Why?", "Name a colour.\n\none answer\n\nand another\n\n"]
    if model == 1:
        texts = [f"[user] {text}\n[assistant] " for text in texts]
    assert [generator.text(model, c) for c, _ in requests] == texts
    made = generator.generate(model, requests)
    responses, tokens_in = direct(model, texts, SETTINGS)
    assert [g.response for g in made] == responses
    assert len(set(responses)) > 1
    assert [g.tokens_in for g in made] == tokens_in == [len(text) for text in texts]  # a token per character
    assert all(g.seconds > 0 for g in made)


def test_batches_are_the_longest_first_and_answers_in_the_order_asked(generator, direct):
    order = sorted(QUERIES, key=len, reverse=True)
    batches = [order[:4], order[4:]]  # the pool file's batch size is 4
    expected = {}
    for batch in batches:
        expected |= dict(zip(batch, direct(0, batch, SETTINGS)[0], strict=True))
    assert [g.response for g in generator.generate(0, REQUESTS)] == [expected[q] for q in QUERIES]


def test_loading_tokens_and_responses_are_told_as_they_come(pool):
    told = []
    made = LiveGenerator(pool, progress=told.append).generate(0, REQUESTS[:4])  # one batch
    begun, loading, loaded, *under_way, batch = told
    assert begun == Batch("tiny-a", 0, 4, 0, 0) and loading == Loading("tiny-a") and loaded.seconds > 0
    assert all(isinstance(event, UnderWay) for event in under_way)
    tokens, responses = [e.tokens_out for e in under_way], [e.responses for e in under_way]
    assert tokens == sorted(tokens) and responses == sorted(responses) and responses[-1] == 4
    assert len(set(tokens)) >= max(g.tokens_out for g in made), "at each step"
    assert tokens[-1] >= batch.tokens_out == sum(g.tokens_out for g in made), "what ends a response is written, too"
    assert (batch.done, batch.total) == (4, 4)


def test_settings_of_every_request_are_kept(generator):
    settings = [GenerationSettings((), 5), GenerationSettings((), 9), GenerationSettings((), 5)]
    made = generator.generate(0, [(Context("Why?"), s) for s in settings])
    assert made[0].response == made[2].response
    assert made[1].response.startswith(made[0].response)
    assert (len(made[0].response), len(made[1].response)) == (5, 9)


def test_length_and_stop(generator):
    """A token is a character, so the limit and the stop can be read off the response."""
    full = generator.generate(0, [(Context("Why?"), GenerationSettings((), 12))])[0]
    assert (len(full.response), full.tokens_out, full.finish_reason) == (12, 12, "length")
    stop = full.response[5]
    cut = generator.generate(0, [(Context("Why?"), GenerationSettings((stop,), 12))])[0]
    assert cut.response == full.response[: full.response.index(stop)]
    assert (cut.tokens_out, cut.finish_reason) == (len(cut.response), "stop")


def test_what_does_not_fit_is_cut_off_and_not_charged(generator):
    made = generator.generate(0, [(Context("word " * 500), SETTINGS)])[0]
    assert made.tokens_in == 2048 - 12
    with pytest.raises(UserError, match="model tiny-a reads and writes at most 2048 tokens"):
        generator.generate(0, [(Context("q"), GenerationSettings((), 2048))])


def test_the_store_answers_the_second_time(pool, tmp_path, monkeypatch):
    first = LiveGenerator(pool, store=TransitionStore(tmp_path / "s"))
    made = first.generate(0, REQUESTS[:3])
    assert (first.store.hits, first.store.misses, len(first.store)) == (0, 3, 3)

    second = LiveGenerator(pool, store=TransitionStore(tmp_path / "s"))
    with monkeypatch.context() as no_models:
        no_models.setattr(pools.models.engine, "_load", lambda *_: pytest.fail("a model was loaded"))
        assert second.generate(0, REQUESTS[:3]) == made
    assert (second.store.hits, second.store.misses) == (3, 0)
    # What is new is asked for, and only that; the other model's answers are others.
    asked = []
    second.progress = asked.append
    assert second.generate(0, REQUESTS[:4])[:3] == made
    told = [(e.model, e.done, e.total) for e in asked if isinstance(e, Batch)]
    assert told == [("tiny-a", 0, 1), ("tiny-a", 1, 1)]
    second.generate(1, REQUESTS[:1])
    assert len(second.store) == 5


def test_every_batch_is_told_of_and_stored_before_the_next(pool, tmp_path):
    store, seen = TransitionStore(tmp_path / "s"), []

    def progress(event):
        if isinstance(event, Batch):
            seen.append((event.done, event.total, len(store), event.tokens_in))
            if len(seen) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LiveGenerator(pool, store=store, progress=progress).generate(0, REQUESTS)
    lengths = sorted(map(len, QUERIES), reverse=True)  # the longest first
    assert seen == [(0, 6, 0, 0), (4, 6, 4, sum(lengths[:4]))]
    LiveGenerator(pool, store=store, progress=progress).generate(0, REQUESTS)
    assert seen[2:] == [(0, 2, 4, 0), (2, 2, 6, sum(lengths[4:]))]


def test_an_engine_of_a_file_may_answer_in_any_order(pool, generator, tmp_path):
    """The one that docs/guides/cluster.md shows."""
    page = Path(__file__).parents[3] / "docs" / "guides" / "cluster.md"
    (tmp_path / "own.py").write_text(page.read_text().partition("```python\n")[2].partition("```")[0])
    backwards = LiveGenerator(pool, engine=f"{tmp_path}/own.py")
    made = backwards.generate(0, REQUESTS)
    assert [g.response for g in made] == [g.response for g in generator.generate(0, REQUESTS)]
    with pytest.raises(UserError, match=r"unknown engine 'rya': known are .*local, ray; did you mean ray"):
        LiveGenerator(pool, engine="rya")


def test_only_so_many_models_stay_loaded(pool, monkeypatch):
    loaded = []
    monkeypatch.setattr(pools.models.engine, "_load", lambda pool, model, folder: loaded.append(model.name) or object())
    generator = LiveGenerator(pool, resident=1)
    for model in (0, 0, 1, 1, 0):
        generator.language_model(model)
    assert loaded == ["tiny-a", "tiny-b", "tiny-a"]
    assert len(generator._local._loaded) == 1


def test_a_live_tree(generator, pool):
    items = [Item("task", n, query, SETTINGS, "train") for n, query in enumerate(QUERIES[:2])]
    tree = Tree(items, pool.model_names, 2, pool.cost_model("paper"), generator, lambda answers: [1.0] * len(answers))
    tree.require(*(a.ravel() for a in np.indices(tree.known.shape)))
    assert tree.complete
    assert min(made.tokens_in for _, _, made in tree.generations(0)) > 0
    first = tree.generation(0, 1).response
    assert tree.context(0, tree.node((0, 1))).responses[0] == first
    assert tree.generation(0, tree.node((0, 1))).tokens_in == len(f"[user] {QUERIES[0]}\n\n{first}\n\n\n[assistant] ")


LAST = "{{ query }}{% if responses %} {{ responses[-1] }}{% endif %}"


def reading(pool, template):
    """The pool with another template for its first model."""
    return replace(pool, models=(replace(pool.models[0], template=template), pool.models[1]))


def test_what_renders_alike_is_asked_and_stored_once(pool, tmp_path):
    store, asked = TransitionStore(tmp_path / "s"), []
    generator = LiveGenerator(reading(pool, LAST), store=store, progress=asked.append)
    longer = GenerationSettings((), 13)
    contexts = [Context("Why?", responses) for responses in (("x", "b"), ("a",), ("b",), ("a", "b"), (), ("b", "a"))]
    requests = [*((context, SETTINGS) for context in contexts), (contexts[0], longer)]
    made = generator.generate(0, requests)
    assert made[0] == made[2] == made[3] and made[1] == made[5]
    assert asked[-1].done == asked[-1].total == len(store) == 4  # of a, of b, of neither, and the longer one
    alone = LiveGenerator(reading(pool, LAST))
    assert [g.response for g in made] == [alone.generate(0, [request])[0].response for request in requests]
    assert len({g.response for g in made}) == 4
    # Another way to the same text is known, in another process, too; what reads otherwise is asked.
    asked.clear()
    again = LiveGenerator(reading(pool, LAST), store=TransitionStore(tmp_path / "s"), progress=asked.append)
    assert again.generate(0, [(Context("Why?", ("new", "newer", "a")), SETTINGS)]) == [made[1]] and not asked
    again.generate(1, [(context, SETTINGS) for context in contexts])
    assert asked[-1].total == len(contexts)


class Refusing:
    """An engine that answers with what is read, and not at all if that ends in `refuse`."""

    def __init__(self, pool):
        self.pool, self.read = pool, []

    def run(self, batches):
        for model, of_model in batches.items():
            for number, batch in enumerate(of_model):
                texts = [render(self.pool.models[model].template, context) for context, _ in batch]
                self.read += texts
                yield (
                    model,
                    number,
                    [
                        Unanswered("busy") if text.endswith("refuse") else Generation(text, 1, 1, "stop", 0.0)
                        for text in texts
                    ],
                )


def test_partial_answers_come_in_the_order_of_the_requests(pool, tmp_path):
    pool = reading(pool, LAST)
    engine, store = Refusing(pool), TransitionStore(tmp_path / "s")
    ends = ["b", "refuse", "a", "b", "refuse", "c", "a"]
    requests = [(Context("Why?", (f"earlier {n}", end)), SETTINGS) for n, end in enumerate(ends)]
    with pytest.raises(UpstreamError, match="busy; 1 of 4 requests failed; what was answered is stored") as error:
        LiveGenerator(pool, store=store, engine=engine).generate(0, requests)
    found = [made and made.response for made in error.value.answers[0]]
    assert found == [None if end == "refuse" else f"Why? {end}" for end in ends]
    assert len(store) == 3 and sorted(engine.read) == sorted({f"Why? {end}" for end in ends})
    answered = [request for request, end in zip(requests, ends, strict=True) if end != "refuse"]
    made = LiveGenerator(pool, store=store, engine=engine).generate_all({0: answered, 1: requests[:1]})
    assert [g.response for g in made[0]] == [text for text in found if text]
    assert engine.read[4:] == ["Why?\n\nearlier 0\n\nb\n\n"]


def test_nothing_is_printed(pool, capfd):
    LiveGenerator(pool).generate(0, REQUESTS[:1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"arguments": {"dtype": "float99"}}, "cannot be loaded as lm-eval `hf`"),
        ({"arguments": {"device": "cpu", "no_such_argument": 1}}, "cannot be loaded as lm-eval `hf`"),
        ({"lm_eval": "hff"}, "cannot be loaded as lm-eval `hff`: .*'hff'.*hf"),
        ({"chat_template": True}, "its chat template cannot be applied"),
    ],
)
def test_a_model_that_does_not_work_is_said_in_a_line(pool, how, said):
    fails(replace(pool, models=(replace(pool.models[0], **how),)), said)


@pytest.mark.parametrize("damage", ["no tokenizer", "weights cut off"])
def test_a_damaged_folder(pool, tmp_path, damage):
    for file in (pool.folder / "tiny-a").iterdir():
        if damage != "no tokenizer" or "token" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage == "weights cut off":
        (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    weights = replace(pool.models[0].weights, path=str(tmp_path))
    fails(replace(pool, models=(replace(pool.models[0], weights=weights),)), "cannot be loaded as lm-eval `hf`")


def fails(pool, said):
    with pytest.raises(UserError, match=f"model tiny-a.*{said}") as error:
        LiveGenerator(pool).generate(0, REQUESTS[:1])
    assert "\n" not in str(error.value)


def test_weights_of_all_that_may_be_asked_are_looked_for_before_one_is_loaded(pool):
    """But not of models that are known not to be, and not where the store has the answers."""
    told = []
    nowhere = replace(pool.models[1], weights=replace(pool.models[1].weights, path="nowhere"))
    lacking = replace(pool, models=(pool.models[0], nowhere))
    with pytest.raises(UserError, match=f"no weights for model {nowhere.name}"):
        LiveGenerator(lacking, progress=told.append).generate_all({0: REQUESTS[:1], 1: REQUESTS[:1]})
    expecting = LiveGenerator(lacking, progress=told.append)
    expecting.expect([0, 1])
    with pytest.raises(UserError, match=f"no weights for model {nowhere.name}"):
        expecting.generate(0, REQUESTS[:1])
    assert not [event for event in told if isinstance(event, Loading)]
    expecting = LiveGenerator(lacking)
    expecting.expect([0])
    assert expecting.generate(0, REQUESTS[:1])
