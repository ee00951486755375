import gc
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

import pools.models.engine
from pools import Context, GenerationSettings, Item, UserError
from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.pool import load_pool

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


def test_models_differ(generator):
    assert [g.response for g in generator.generate(0, REQUESTS)] != [
        g.response for g in generator.generate(1, REQUESTS)
    ]


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
    assert [(batch.model, batch.done, batch.total) for batch in asked] == [("tiny-a", 0, 1), ("tiny-a", 1, 1)]
    second.generate(1, REQUESTS[:1])
    assert len(second.store) == 5


def test_every_batch_is_stored_before_the_next(pool, tmp_path):
    store, seen = TransitionStore(tmp_path / "s"), []

    def progress(batch):
        seen.append((batch.done, batch.total, len(store)))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LiveGenerator(pool, store=store, progress=progress).generate(0, REQUESTS)
    assert seen == [(0, 6, 0), (4, 6, 4)]
    LiveGenerator(pool, store=store, progress=progress).generate(0, REQUESTS)
    assert seen == [(0, 6, 0), (4, 6, 4), (0, 2, 4), (2, 2, 6)]


def test_progress(generator):
    seen = []
    generator.progress = seen.append
    try:
        made = generator.generate(0, REQUESTS)
    finally:
        generator.progress = None
    assert [(batch.done, batch.total) for batch in seen] == [(0, 6), (4, 6), (6, 6)]
    assert seen.pop(0).seconds == 0
    lengths = sorted(map(len, QUERIES))
    assert [batch.tokens_in for batch in seen] == [sum(lengths[2:]), sum(lengths[:2])]  # the longest first
    assert sum(batch.tokens_in for batch in seen) == sum(g.tokens_in for g in made)
    assert sum(batch.tokens_out for batch in seen) == sum(g.tokens_out for g in made)
    assert sum(batch.seconds for batch in seen) == pytest.approx(sum(g.seconds for g in made))


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


def test_nothing_is_printed(pool, capfd):
    import tqdm
    import tqdm.auto

    LiveGenerator(pool).generate(0, REQUESTS[:1])
    assert capfd.readouterr() == ("", "")
    with pools.models.engine._quiet():
        for bars in (tqdm.tqdm, tqdm.auto.tqdm):
            assert list(bars(range(3), desc="a bar")) == [0, 1, 2]
            assert list(bars(range(3), desc="a bar", disable=False)) == [0, 1, 2]
    assert capfd.readouterr().err == ""
    assert list(tqdm.tqdm(range(3), desc="a bar")) == [0, 1, 2]
    assert "a bar" in capfd.readouterr().err


def test_threads_that_are_quiet_in_turn_leave_the_bars_as_they_were(monkeypatch):
    """The second looks at the bars while the first has them off, and begins once the first has ended."""
    from tqdm.std import tqdm

    before, lock = tqdm.__init__, pools.models.engine._quiet_lock
    first = pools.models.engine._quiet()
    first.__enter__()

    class Late:
        def __enter__(self):
            monkeypatch.setattr(pools.models.engine, "_quiet_lock", lock)
            first.__exit__(None, None, None)
            return lock.__enter__()

        def __exit__(self, *error):
            return lock.__exit__(*error)

    monkeypatch.setattr(pools.models.engine, "_quiet_lock", Late())
    with pools.models.engine._quiet():
        pass
    assert tqdm.__init__ is before


def _changed(pool, **how):
    return replace(pool, models=(replace(pool.models[0], **how),))


def _fails(pool, match):
    with pytest.raises(UserError, match=match) as error:
        LiveGenerator(pool).generate(0, REQUESTS[:1])
    assert "\n" not in str(error.value)


def test_a_model_without_a_tokenizer(pool, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    for file in (pool.folder / "tiny-a").iterdir():
        if "token" not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    assert (folder / "model.safetensors").exists()
    weights = replace(pool.models[0].weights, path=str(folder))
    _fails(_changed(pool, weights=weights), "model tiny-a cannot be loaded as lm-eval `hf`")


def test_damaged_weights(pool, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    for file in (pool.folder / "tiny-a").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    weights = replace(pool.models[0].weights, path=str(folder))
    _fails(_changed(pool, weights=weights), "model tiny-a cannot be loaded")


def test_an_unknown_type(pool):
    _fails(_changed(pool, lm_eval="hff"), "model tiny-a: lm-eval has no model type 'hff'; it has .*hf,")


@pytest.mark.parametrize("arguments", [{"dtype": "float99"}, {"backend": "other"}, {"no_such_argument": 1}])
def test_bad_arguments(pool, arguments):
    _fails(_changed(pool, arguments={"device": "cpu", **arguments}), "model tiny-a cannot be loaded")


def test_a_chat_template_that_is_not_there(pool):
    _fails(_changed(pool, chat_template=True), "model tiny-a: its chat template cannot be applied")


# --- a server ---------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A chat server in OpenAI's manner that repeats the last message backwards; `asked` holds what it was sent."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            message = {"role": "assistant", "content": body["messages"][-1]["content"][::-1]}
            reply = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1/chat/completions", asked
        running.shutdown()


def _chat(pool, url, **arguments):
    arguments = {"model": "any", "base_url": url, "max_retries": 1, **arguments}
    return _changed(pool, lm_eval="local-chat-completions", weights=None, chat_template=True, arguments=arguments)


@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_chat_server(pool, server, concurrent, capfd):
    url, asked = server
    tokenizer = str(pool.folder / "tiny-b")
    declared = _chat(pool, url, tokenizer=tokenizer, tokenizer_backend="huggingface", num_concurrent=concurrent)
    queries = ["Why?", "Pourquoi là ?", "What is 2 + 2?"]
    made = LiveGenerator(declared).generate(0, [(Context(query), SETTINGS) for query in queries])
    assert [g.response for g in made] == [query[::-1] for query in queries]
    assert sorted(body["messages"][0]["content"] for body in asked) == sorted(queries)
    assert {body["max_tokens"] for body in asked} == {12}
    # Tokens, not characters of lm-eval's JSON: the tokenizer's chat template around the message, and the answer.
    # A token is a byte here.
    sizes = [len(query.encode()) for query in queries]
    assert [g.tokens_in for g in made] == [len("[user] \n[assistant] ") + size for size in sizes]
    assert [g.tokens_out for g in made] == sizes
    assert capfd.readouterr() == ("", "")


def test_a_chat_server_without_a_tokenizer_has_no_cost(pool, server):
    url, asked = server
    _fails(_chat(pool, url), "model tiny-a gives no token counts")
    assert len(asked) == 1  # told before more is paid for


@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_server_that_is_not_there(pool, concurrent, capfd, caplog):
    arguments = {"tokenizer": str(pool.folder / "tiny-b"), "tokenizer_backend": "huggingface"}
    declared = _chat(pool, "http://127.0.0.1:9/v1/chat/completions", **arguments, num_concurrent=concurrent)
    with pytest.raises(UserError, match=r"model tiny-a: the server http://127.0.0.1:9/.* did not answer") as error:
        LiveGenerator(declared).generate(0, REQUESTS[:3])
    assert "\n" not in str(error.value)
    del error
    gc.collect()
    # lm-eval's own words on it may pass; asyncio's tracebacks of the requests that failed beside the first may not.
    assert "asyncio" not in {record.name for record in caplog.records}
    assert capfd.readouterr() == ("", "")
