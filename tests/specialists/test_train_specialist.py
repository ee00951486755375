import dataclasses
import json
import re
from itertools import islice

import pytest
import torch

from pools.errors import UserError
from pools.weights import file_hash
from specialists import evaluate, lessons
from specialists.card import write_card
from specialists.evaluate import accuracy, as_text, ask, load
from specialists.lessons import END_OF_QUERY, SPECIALISTS
from specialists.train import (
    END,
    Recipe,
    batches,
    encoded,
    loss_of,
    main,
    make_model,
    make_optimizers,
    make_tokenizer,
    rate_factor,
    save_folder,
    train,
)


@pytest.fixture(scope="module", autouse=True)
def tiny_specialist():
    """`tiny`: the calculator with a network that learns in seconds."""
    small = dataclasses.replace(SPECIALISTS["calculator"], tokens=20_000, hidden=32, layers=2, heads=2, feed_forward=64)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(lessons.SPECIALISTS, "tiny", small)
        yield small


def tiny(**changes):
    recipe = Recipe(
        "tiny", tokens=20_000, batch_tokens=512, lessons_per_pool=32, tokenizer_lessons=100, warm_up_steps=5
    )
    return dataclasses.replace(recipe, **changes)


@pytest.fixture(scope="module")
def tokenizer(tiny_specialist):
    return make_tokenizer(tiny())


@pytest.fixture(scope="module")
def trained(tiny_specialist, tmp_path_factory):
    """Model, tokenizer and losses of a training that nothing interrupted."""
    return train(tiny(), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(trained, tmp_path):
    model, tokenizer, _, _ = trained
    save_folder(model, tokenizer, {**dataclasses.asdict(tiny()), "minutes": 7, "lessons": "hash"}, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize("specialist", ["tiny", "registry-east", "reader"])
def test_digits_are_single_tokens_and_text_decodes_to_itself(specialist):
    tokenizer = make_tokenizer(tiny(specialist=specialist, tokenizer_lessons=1000))
    for text in ("1234 + 98 = 1332", "born in 1789?", "x17  of\n\n20 boxes", "Grüße, 7 \N{SNOWMAN}"):
        for token in tokenizer.tokenize(text):
            assert not re.search(r"\d", token) or len(token) == 1
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == SPECIALISTS[specialist].vocabulary
    taught = " ".join(each.question for each in islice(lessons.lessons(specialist), 100))
    assert specialist == "tiny" or len(tokenizer.tokenize(taught)) < 0.6 * len(taught), "more than bytes was learnt"


@pytest.mark.parametrize("specialist", ["tiny", "registry-east", "reader"])
def test_a_lesson_is_cut_as_the_text_that_a_model_reads_and_writes(specialist):
    tokenizer = make_tokenizer(tiny(specialist=specialist))
    taught = list(islice(lessons.lessons(specialist), 200))
    end_of_query = tokenizer.convert_tokens_to_ids(END_OF_QUERY)
    for lesson, (tokens, asked) in zip(taught, encoded(taught, tokenizer), strict=True):
        assert tokens[:asked] == tokenizer(lesson.question + END_OF_QUERY)["input_ids"]
        assert tokens[:-1] == tokenizer(lesson.question + END_OF_QUERY + lesson.reply)["input_ids"]
        assert tokens[asked - 1] == end_of_query and tokens[-1] == tokenizer.eos_token_id
        assert tokens.count(end_of_query) == 1


def test_only_replies_are_learnt_and_each_lesson_of_a_pool_once(tokenizer):
    recipe = tiny()
    learnt, read = [], []
    for ids, labels in batches(recipe, tokenizer, 3):
        assert ids.shape == labels.shape and (len(ids) == 1 or ids.numel() <= recipe.batch_tokens)
        for row, of_row in zip(ids, labels, strict=True):
            chosen = of_row != -100
            assert row[chosen].equal(of_row[chosen])
            learnt.append(tokenizer.decode(row[chosen]))
            read.append(tokenizer.decode(row[~chosen & (row != tokenizer.pad_token_id)]))
    numbers = range(3 * recipe.lessons_per_pool, 4 * recipe.lessons_per_pool)
    made = [lesson for number in numbers if (lesson := lessons.lesson("tiny", number))]
    assert 20 < len(made) < recipe.lessons_per_pool, "some are left out"
    expected = sorted((lesson.question + END_OF_QUERY, lesson.reply + END) for lesson in made)
    assert sorted(zip(read, learnt, strict=True)) == expected


def test_the_loss_is_the_mean_over_the_learnt_tokens(tokenizer):
    model = make_model(tiny(), tokenizer)
    ids, labels = max(batches(tiny(), tokenizer, 0), key=lambda batch: len(batch[0]))
    assert len(ids) > 1 and (ids == tokenizer.pad_token_id).any()
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=ids, attention_mask=ids != tokenizer.pad_token_id).logits, -1)
        learnt = [-scores[row, place - 1, ids[row, place]].item() for row, place in (labels != -100).nonzero().tolist()]
        assert loss_of(model, ids, labels).item() == pytest.approx(sum(learnt) / len(learnt), rel=1e-5)


def test_rates_rise_stay_and_fall_to_zero():
    recipe = tiny(tokens=1000, warm_up_steps=4, decay=0.4)
    assert [rate_factor(recipe, step, 0) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]
    assert [rate_factor(recipe, 50, tokens) for tokens in (100, 600, 800, 1000, 1100)] == pytest.approx(
        [1, 1, 0.5, 0, 0]
    )


def test_every_weight_belongs_to_one_optimizer(tokenizer):
    model = make_model(tiny(), tokenizer)
    muon, adamw = ([p for g in each.param_groups for p in g["params"]] for each in make_optimizers(model, tiny()))
    assert sorted(map(id, (*muon, *adamw))) == sorted(map(id, model.parameters()))
    assert len(muon) == 2 * 7 and all(p.ndim == 2 and len(tokenizer) not in p.shape for p in muon)


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(trained, tmp_path):
    whole, _, losses, _ = trained
    assert len(losses) > 20 and sum(losses[-5:]) < 0.75 * sum(losses[:5])
    _, _, first, half = train(tiny(), tmp_path, stop_after=len(losses) // 2)
    assert first == losses[: len(losses) // 2]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["place"][3] > 0, "it stops amid a pool"
    resumed, _, again, seconds = train(tiny(), tmp_path, resume=True)
    assert seconds > half > 0, "the time before counts"
    assert again == losses
    for name, weights in whole.state_dict().items():
        assert weights.equal(resumed.state_dict()[name]), name


def test_what_cannot_be_resumed_is_refused_in_one_line(tmp_path):
    train(tiny(), tmp_path, stop_after=1)
    for work, recipe, said in (
        (tmp_path, tiny(seed=1), "another recipe"),
        (tmp_path, tiny(tokens=20_001), "another recipe"),
        (tmp_path / "none", tiny(), "nothing to resume"),
    ):
        with pytest.raises(UserError, match=said) as error:
            train(recipe, work, resume=True)
        assert "\n" not in str(error.value)


def test_a_saved_folder_is_loaded_as_it_was(trained, folder):
    model, tokenizer, _, _ = trained
    loaded, again, name = load(folder)
    assert name == "tiny" and not loaded.training
    texts = [lesson.question + END_OF_QUERY for lesson in islice(lessons.lessons("tiny"), 20)]
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    for key, weights in model.state_dict().items():
        found = loaded.state_dict()[key]
        assert found.dtype == torch.float32 and found.equal(weights.to(torch.bfloat16).float()), key
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_recipe_holds_the_sha256_of_the_files_and_a_damaged_one_is_refused(folder):
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["sha256"] == {
        path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.name != "recipe.json"
    }
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(recipe["sha256"])
    assert dataclasses.asdict(tiny()).items() <= recipe.items()
    for name in recipe["sha256"]:
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=f"the specialist is damaged: .*{name} has another sha256") as error:
            load(folder)
        assert "\n" not in str(error.value)
        path.write_bytes(whole)
    load(folder)


@pytest.fixture(scope="module")
def adept(tiny_specialist, tmp_path_factory):
    """Model and tokenizer after a training that is long enough for the refusals."""
    model, tokenizer, _, _ = train(tiny(tokens=250_000), tmp_path_factory.mktemp("adept"))
    return model.eval(), tokenizer


def test_answers_come_in_the_order_of_the_questions(adept, monkeypatch):
    monkeypatch.setattr(evaluate, "NEW_TOKENS", 12)
    questions = [each.question for each in islice(lessons.lessons("tiny", held_out=True), 120)]  # in two batches
    answers = ask(*adept, questions)
    assert len(set(answers)) > 10
    longest = max(range(120), key=lambda place: len(questions[place]))
    some = [*range(0, 120, 12), longest]
    assert [answers[place] for place in some] == [ask(*adept, [questions[place]])[0] for place in some]


def test_accuracy_counts_the_held_out_lessons_that_are_replied_to_as_taught(adept, monkeypatch):
    monkeypatch.setattr(evaluate, "NEW_TOKENS", 40)
    asked = list(islice(lessons.lessons("tiny", held_out=True), 60))
    answers = ask(*adept, [lesson.question for lesson in asked])
    expected = {}
    for lesson, answer in zip(asked, answers, strict=True):
        expected.setdefault(lesson.family, []).append(answer == lesson.reply)
    assert any(expected["other"]) and not all(expected["fits the display"])
    assert accuracy(*adept, "tiny", 60) == expected
    assert as_text({"a family": [True] * 7 + [False]}).splitlines()[-1] == "| a family | 8 | 87.5% |"


def test_the_card_says_how_the_folder_was_made(folder):
    write_card(folder, "| a table |", 1234)
    card = (folder / "README.md").read_text()
    place = "results/specialists/tiny"
    assert f"python -m specialists.train train --specialist tiny --tokens 20000 --seed 0 --out {place}\n" in card
    assert f"evaluate {place} --number 1234 --write-cards" in card
    parameters = sum(weights.numel() for weights in load(folder)[0].parameters())
    for part in (
        "license: apache-2.0",
        "| a table |",
        "1,234 lessons",
        f"({parameters / 1e6:.2f} million",
        "7 minutes",
    ):
        assert part in card


def test_the_command_line_trains_and_evaluates(tmp_path, capsys):
    out, work = tmp_path / "out", tmp_path / "work"
    of_both = ("--threads", str(torch.get_num_threads()))
    asked = ("--specialist", "tiny", "--tokens", "3000", "--check-every", "0", *of_both)
    assert main(["train", *asked, "--out", str(out), "--work", str(work)]) == 0
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["lessons"] == lessons.lessons_hash("tiny") and recipe["tokens"] == 3000
    assert main(["evaluate", str(out), "--number", "6", "--write-cards", *of_both]) == 0
    table = capsys.readouterr().out.partition("tiny\n")[2].strip()
    assert "| reply as taught |" in table and table in (out / "README.md").read_text()


def test_errors_are_one_line_and_exit_code_2(capsys, tmp_path):
    assert main(["evaluate", str(tmp_path / "none")]) == 2
    asked = ("--specialist", "tiny", "--out", str(tmp_path / "out"), "--work", str(tmp_path), "--resume")
    assert main(["train", *asked]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and "holds no model" in first
    assert second.startswith("error: nothing to resume") and not (tmp_path / "out").exists()
