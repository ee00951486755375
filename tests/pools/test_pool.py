import hashlib
import re
from dataclasses import replace

import pytest

from pools import UserError
from pools.pool import load_pool, pool_from_dict, pool_names

GOOD = """
name: mine
cost_unit: unit
rates: made up
models:
  - name: a
    lm_eval: hf
    base_rate: 1.5
    arguments: {dtype: bfloat16}
    weights: {path: weights-a}
  - name: b
    lm_eval: local-completions
    base_rate: 0
    template: "{{ query }}"
    price: {input: 1, output: 2.5, source: list}
"""


@pytest.fixture
def load(tmp_path):
    def load(text=GOOD):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_pool(str(path))

    return load


def test_shipped_pools():
    assert "lightweight" in pool_names()
    for name in pool_names():
        pool = load_pool(name)
        assert pool.name == name
        assert len(pool.models) >= 2
        assert pool.cost_model("paper").input_rate == tuple(m.base_rate for m in pool.models)
        assert all(m.base_rate > 0 for m in pool.models)
        for model in pool.models:
            weights = model.weights
            pinned = weights is None or weights.sha256 or weights.path or re.fullmatch("[0-9a-f]{40}", weights.revision)
            assert pinned, f"{name}: {model.name}"
    registries = ("registry-north", "registry-east", "registry-west")
    assert load_pool("lightweight").model_names == (*registries, "calculator", "reader", "qwen2.5-coder-0.5b")


def test_a_pool_file(load, tmp_path):
    pool = load()
    assert pool.model_names == ("a", "b")
    assert (pool.models[0].base_rate, pool.models[0].weights.path, pool.folder) == (1.5, "weights-a", tmp_path)
    assert (pool.models[1].template, pool.models[1].price.output) == ("{{ query }}", 2.5)
    assert pool_from_dict(pool.to_dict(), "here", tmp_path) == pool


def test_only_an_import_makes_a_billed_pool(tmp_path):
    path = tmp_path / "billed.yaml"
    path.write_text("name: x\ncost_unit: u\nrates: r\nbilled: true\nmodels: [{name: a, lm_eval: hf, base_rate: 1.0}]\n")
    with pytest.raises(UserError, match="imported tables"):
        load_pool(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [unclosed", "not YAML"),
        (GOOD.replace("rates: made up", "rates: &x made up"), "anchor or alias, line 4, column 8"),
        (GOOD.replace("name: mine", "name: [*x]"), "write a value out in place of an anchor or alias"),
        (GOOD.replace("rates: made up", "rates: 2020-99-99"), "month"),
        (GOOD.replace("rates: made up", f"rates: {'9' * 5000}"), "digits"),
        (GOOD.replace("rates: made up", f"rates: {'[' * 1000}"), "nested"),
        (GOOD.replace("rates: made up", 'rates: "\\ud800"'), "surrogate"),
        (GOOD.replace("rates: made up", "rates: a\nrates: b"), "key rates is named twice"),
        (GOOD + "#" * 300_000, "bytes"),
        ("", "expected a mapping"),
        (GOOD.replace("cost_unit", "cost_units"), "unknown key 'cost_units'"),
        (GOOD.replace("    base_rate: 1.5\n", ""), "`models.0.base_rate` is missing"),
        (GOOD.replace("{path: weights-a}", "{pth: weights-a}"), "unknown key 'models.0.weights.pth'"),
        (GOOD.replace("{path: weights-a}", "{file: x}"), "`path` or a `repository`"),
        (GOOD.replace("{path: weights-a}", f"{{path: x, sha256: '{'0' * 64}'}}"), "needs the `file`"),
        (GOOD.replace("{path: weights-a}", "{path: x, file: w, sha256: abc}"), "sha256: String should match pattern"),
        (
            GOOD.replace("weights-a}", "x, revision: 1234567}"),
            "weights.revision: Input should be a valid string",
        ),
        (GOOD.split("models:")[0] + "models: []", "models: Tuple should have at least 1 item"),
        (GOOD.replace("1.5", "-1"), r"models\.0\.base_rate: Input should be"),
        (GOOD.replace("1.5", str(10**350)), "base_rate: Input should be a finite number"),
        (GOOD.replace("bfloat16", "2020-01-01"), "expected plain data that JSON can hold"),
        (GOOD.replace("bfloat16", ".nan"), "expected plain data that JSON can hold"),
        (GOOD.replace("1.5", "1e-4"), r"YAML reads 1e-4 as text, 1\.0e-4 as a number"),
        (GOOD.replace("1.5", "1.0e+16"), "base_rate: Input should be less than or equal to 1000000000000000"),
        (GOOD.replace("input: 1", "input: -1"), r"models\.1\.price\.input: Input should be"),
        (GOOD.replace("{dtype: bfloat16}", "[bfloat16]"), r"models\.0\.arguments: Input should be an object$"),
        (GOOD.replace("name: b", "name: a"), "model name a is used twice"),
        (GOOD.replace("name: b", "name: A"), "model name A differs from a by case alone"),
        (GOOD.replace("name: b", 'name: "b "'), "model name 'b ' has spaces at an end"),
        (GOOD.replace("name: mine", 'name: "m\\u200bine"'), r"name 'm\\u200bine' holds U\+200B"),
        (GOOD.replace("name: mine", 'name: ""'), "name is '': expected a name"),
        (GOOD.replace("cost_unit: unit", 'cost_unit: "\\e[31m"'), r"cost_unit .* holds U\+001B"),
        *((GOOD.replace("1.5", odd), "a number is written as 1_000") for odd in ("1_000", "1:30", "010", "0x10")),
        (GOOD.replace("{{ query }}", "Answer."), "model b: the template renders every query as the same text"),
        (GOOD.replace("{{ query }}", "{{ responses[0] }}"), "model b: the template cannot be rendered"),
        (GOOD.replace("{{ query }}", "{{ query"), "model b: the template is not valid"),
    ],
)
def test_bad_pool_files_are_told_in_one_line(load, tmp_path, text, said):
    with pytest.raises(UserError, match=said) as error:
        load(text)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "mine.yaml") in str(error.value)


def test_no_such_pool(tmp_path):
    with pytest.raises(UserError, match="did you mean lightweight"):
        load_pool("lightwait")
    with pytest.raises(UserError, match=r"cannot read pool file .*No such file"):
        load_pool(str(tmp_path / "none.yaml"))
    (tmp_path / "buttons.yaml").touch()
    with pytest.raises(UserError, match=r"No such file or directory; did you mean buttons\.yaml\?"):
        load_pool(str(tmp_path / "buton.yml"))
    (tmp_path / "latin.yaml").write_bytes("name: ü".encode("latin-1"))
    with pytest.raises(UserError, match="not YAML"):
        load_pool(str(tmp_path / "latin.yaml"))


def test_fingerprint(load, tmp_path):
    folder = tmp_path / "weights-a"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    pool = load()
    model = pool.models[0]
    fingerprint = pool.fingerprint(model)
    assert fingerprint == load().fingerprint(load().models[0])

    def changed(**how):
        return pool.fingerprint(replace(model, **how)) != fingerprint

    assert changed(template="{{ query }}")
    assert changed(chat_template=True)
    assert changed(lm_eval="vllm")
    assert changed(arguments={"dtype": "float32"})
    assert changed(arguments={**model.arguments, "max_length": 512})
    assert not changed(arguments={**model.arguments, "gpu_memory_utilization": 0.3, "tensor_parallel_size": 2})
    # Of a GGUF file the sha256 is enough; other weights have neighbours, the tokenizer above all, that decide, too.
    gguf = replace(model.weights, file="weights.gguf", sha256="0" * 64)
    (folder / "weights.gguf").write_bytes(b"not looked at")
    one = pool.fingerprint(replace(model, weights=gguf))
    assert one == pool.fingerprint(replace(model, weights=replace(gguf, path="nowhere")))
    assert one != pool.fingerprint(replace(model, weights=replace(gguf, sha256="1" * 64)))
    (folder / "weights.gguf").unlink()
    named = {"file": "model.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert not changed(weights=replace(model.weights, **named))
    with pytest.raises(UserError, match="wrong weights for model a"):
        changed(weights=replace(model.weights, **{**named, "sha256": "0" * 64}))
    # Where it runs and what it costs is not what it answers.
    assert not changed(arguments={**model.arguments, "device": "cuda:1", "batch_size": 3})
    assert not changed(batch_size=64)
    assert not changed(base_rate=9.0, description="renamed")
    # A copy elsewhere is the same model; a file of other content is not.
    folder.rename(tmp_path / "moved")
    assert not changed(weights=replace(model.weights, path="moved"))
    (tmp_path / "moved" / "README.md").write_text("notes")
    (tmp_path / "moved" / "recipe.json").write_text("{}")
    assert not changed(weights=replace(model.weights, path="moved"))
    (tmp_path / "moved" / "model.safetensors").write_bytes(b"Weights")
    assert changed(weights=replace(model.weights, path="moved"))
    (tmp_path / "moved" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "moved" / "tokenizer.json").write_text("{}")
    assert changed(weights=replace(model.weights, path="moved"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{header: Bearer s3cret}", "header: Input should be"),
        ('{header: {Authorization: "s3cret\\nX: y"}}', "header.Authorization: String should match"),
        ("{base_url: s3cret.example/v1}", "base_url: String should match pattern '.http"),
        ("{num_concurrent: 0}", "num_concurrent: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_what_every_request_would_fail_with_is_refused_when_the_file_is_read(load, arguments, said):
    with pytest.raises(UserError, match=said) as caught:
        load(GOOD.replace("lm_eval: local-completions\n", f"lm_eval: local-completions\n    arguments: {arguments}\n"))
    assert "s3cret" not in str(caught.value)
