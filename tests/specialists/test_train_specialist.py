import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from pools.errors import UserError
from specialists.card import write_card
from specialists.evaluate import ask, final, load, table
from specialists.lessons import (
    EARLIER,
    MIXTURE,
    OWN,
    SEPARATOR,
    SPECIALISTS,
    TEMPLATE,
    UNKNOWN,
    corrupted,
    general_response,
    lesson,
    reply,
)
from specialists.questions import (
    HELD_OUT_SEEDS,
    TRAIN_SEEDS,
    held_out,
    normalised,
    question,
    read_suite,
    without_held_out,
)
from specialists.train import Recipe, encoded, main, make_model, make_tokenizer, save_folder, train
from tasks.reasoning_gym.items import SUITE_SEEDS, draw, generator_configs

TASKS = Path(__file__).parents[2] / "tasks" / "reasoning_gym"
SUITE_TASKS = sorted(path.stem for path in TASKS.glob("*.yaml"))


@pytest.fixture(scope="module")
def suite():
    return read_suite(TASKS)


@pytest.fixture(scope="module")
def source(suite):
    return without_held_out(suite, 20)


@pytest.fixture(scope="module")
def tokenizer(source):
    return make_tokenizer(source, tiny())


def tiny(**changes):
    recipe = Recipe(
        "math", tokens=20_000, hidden=32, layers=2, heads=2, feed_forward=64, vocabulary=512, batch_tokens=512,
        lessons_per_pool=32, tokenizer_lessons=100, warm_up_steps=5, autocast=False,
    )  # fmt: skip
    return dataclasses.replace(recipe, **changes)


def test_training_held_out_and_suite_seeds_are_disjoint():
    assert TRAIN_SEEDS.stop <= HELD_OUT_SEEDS.start and HELD_OUT_SEEDS.stop <= SUITE_SEEDS
    assert all(config.seed >= SUITE_SEEDS for task in SUITE_TASKS for config in generator_configs(task))


@pytest.mark.parametrize("task", SUITE_TASKS)
def test_every_question_of_the_suite_is_excluded(suite, task):
    items = list(itertools.islice(draw(generator_configs(task)), 160))
    assert {normalised(item["question"]) for item in items} <= suite.excluded


def test_the_prompt_is_the_suites(suite):
    assert suite.prompt == '{question}\nWork step by step, then give the final answer after "Answer:".'


def test_lessons_leave_out_excluded_questions(suite, source):
    asked = [question(suite, "products", index, TRAIN_SEEDS) for index in range(300)]
    assert any(normalised(made.text) in suite.excluded for made in asked), "the check below would be empty"
    for specialist in SPECIALISTS:
        lessons = [lesson(source, specialist, index) for index in range(2000)]
        given = {normalised(made.parts[0].split("\nWork step by step")[0]) for made in lessons if made}
        assert None in lessons
        assert not given & source.excluded
    for family in source.generators:
        assert {normalised(made.text) for made in held_out(suite, family, 20)} <= source.excluded


def test_held_out_questions_are_not_the_suites(suite):
    for family in suite.generators:
        asked = [normalised(made.text) for made in held_out(suite, family, 50)]
        assert len(set(asked)) == 50 and not set(asked) & suite.excluded


@pytest.mark.parametrize("family", ["chain_sum", "products", "expression", "aiw", "color_cube_rotation"])
def test_replies_are_right(suite, family):
    specialist = "math" if family in OWN["math"] else "qa"
    for index in range(300):
        asked = question(suite, family, index, TRAIN_SEEDS)
        assert final(reply(specialist, asked)) == asked.answer


def test_each_written_step_is_true(suite):
    steps = 0
    for family, index in itertools.product(("chain_sum", "products", "expression"), range(200)):
        text = reply("math", question(suite, family, index, TRAIN_SEEDS)).split(". Answer:")[0]
        for step in text.split("; "):
            start, _, written = step.partition(": ")
            if written:  # "55+98: +90=145, +8=153"
                total = int(re.match(r"-?\d+", start)[0])
                for part in written.split(", "):
                    change, _, after = part.partition("=")
                    total += int(change)
                    assert total == int(after), step
                assert total == eval(start), step
            else:
                assert len({eval(side) for side in step.split("=")}) == 1, step
            steps += 1
    assert steps > 1000


def test_leg_counting_takes_both_specialists(suite):
    for index in range(200):
        asked = question(suite, "leg_counting", index, TRAIN_SEEDS)
        written = reply("qa", asked)
        assert eval(final(written)) == int(asked.answer)
        assert reply("math", asked) == UNKNOWN
        computed = reply("math", asked, [written])
        assert final(computed) == asked.answer
        assert final(reply("math", asked, ["Answer: 7", written, "prose"])) == asked.answer
        assert final(reply("qa", asked, [written, computed])) == asked.answer, "a later hop keeps what is right"
        assert reply("qa", asked, ["Answer: 7"]) == written


def test_foreign_questions_keep_the_last_answer(suite):
    asked = question(suite, "aiw", 0, TRAIN_SEEDS)
    assert reply("math", asked) == UNKNOWN
    assert reply("math", asked, ["Answer: 3", "prose"]) == "Answer: 3"
    assert reply("math", asked, ["Answer: 3", UNKNOWN, "so.\nAnswer: 4"]) == "Answer: 4"
    assert reply("qa", asked, ["Answer: 99"]) == reply("qa", asked)


def test_wrong_responses_are_wrong(suite):
    import random

    rng = random.Random(0)
    for specialist in SPECIALISTS:
        for family in OWN[specialist]:
            asked = question(suite, family, 3, TRAIN_SEEDS)
            right = reply(specialist, asked)
            assert all(final(corrupted(right, rng)) != final(right) for _ in range(50))
    assert len({general_response(asked, rng) for _ in range(50)}) > 40


def test_lessons_have_earlier_responses_and_the_mixture(source):
    assert sum(share for _, share in EARLIER) == pytest.approx(1)
    for specialist in SPECIALISTS:
        assert sum(MIXTURE[specialist].values()) == pytest.approx(1)
        lessons = [made for made in (lesson(source, specialist, index) for index in range(1000)) if made]
        hops = [sum(part == SEPARATOR for part in made.parts) for made in lessons]
        assert set(hops) == {0, 1, 2}
        assert all(made.learnt[-1] and not made.learnt[0] for made in lessons)
        assert any(not made.learnt[1] for made in lessons) and any(sum(made.learnt) == 3 for made in lessons)


def test_single_digits_and_the_same_tokens_as_in_generation(source, tokenizer):
    for text in ("1234 + 98", "in 2889,x17", "-40=-25"):
        for token in tokenizer.tokenize(text):
            assert len(re.findall(r"\d", token)) <= 1
            assert not (re.search(r"\d", token) and len(token) > 1)
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    lessons = [made for made in (lesson(source, "qa", index) for index in range(200)) if made]
    for made, (tokens, _) in zip(lessons, encoded(lessons, tokenizer), strict=True):
        # Up to the last response a model reads the rendered context as one text.
        context = tokenizer("".join(made.parts[:-1]))["input_ids"]
        cut = [token for token in tokens if token != tokenizer.eos_token_id]
        assert cut[: len(context)] == context


def test_only_replies_are_learnt(source, tokenizer):
    lessons = [made for made in (lesson(source, "math", index) for index in range(50)) if made]
    for made, (tokens, learnt) in zip(lessons, encoded(lessons, tokenizer), strict=True):
        taught = tokenizer.decode([token for token, learn in zip(tokens, learnt, strict=True) if learn])
        wanted = [part for part, learn in zip(made.parts, made.learnt, strict=True) if learn]
        assert taught.replace("<|end|>", "") == "".join(wanted)
        assert taught.endswith("<|end|>")


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(source, tmp_path, monkeypatch):
    monkeypatch.setattr("specialists.evaluate.NEW_TOKENS", 8)
    recipe = tiny()
    whole, tokenizer, losses = train(source, recipe, tmp_path / "whole")
    assert sum(losses[-5:]) / 5 < 0.75 * sum(losses[:5]) / 5
    train(source, recipe, tmp_path / "cut", stop_after=len(losses) // 2)
    resumed, _, again = train(source, recipe, tmp_path / "cut", resume=True)
    assert again == losses
    for name, weights in whole.state_dict().items():
        assert weights.equal(resumed.state_dict()[name]), name

    folder = tmp_path / "folder"
    save_folder(whole, tokenizer, dataclasses.asdict(recipe), folder)
    model, loaded = load(folder)
    assert loaded("a 12\n###\n")["input_ids"] == tokenizer("a 12\n###\n")["input_ids"]
    asked = held_out(source, "aiw", 2)
    assert len(ask(model, loaded, source, asked, [(), ("Answer: 3",)])) == 2
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    rows = table({"math": (model, loaded)}, source, 1)
    assert [name for name, _ in rows] == ["math", "math -> math", "wrong -> math", "general -> math"]


def test_another_recipe_is_not_resumed(source, tmp_path):
    train(source, tiny(), tmp_path, stop_after=1)
    with pytest.raises(UserError, match="another recipe"):
        train(source, tiny(seed=1), tmp_path, resume=True)
    with pytest.raises(UserError, match="nothing to resume"):
        train(source, tiny(), tmp_path / "none", resume=True)


def test_errors_are_one_line(capsys, tmp_path):
    assert main(["evaluate"]) == 2
    assert main(["train", "--specialist", "qa", "--out", str(tmp_path), "--tasks", str(tmp_path)]) == 2
    assert main(["evaluate", "--qa", str(tmp_path / "none")]) == 2
    assert all(line.startswith("error: ") for line in capsys.readouterr().err.splitlines())


def test_the_card_says_what_the_folder_holds(source, tokenizer, tmp_path):
    recipe = tiny(specialist="qa", tokens=1234)
    save_folder(make_model(recipe, tokenizer), tokenizer, dataclasses.asdict(recipe), tmp_path)
    write_card(tmp_path, "| who answers |", 7, "the command")
    card = (tmp_path / "README.md").read_text()
    for part in ("license: apache-2.0", "--specialist qa --tokens 1234 --seed 0", "| who answers |", "the command"):
        assert part in card
    assert TEMPLATE.strip() in card and "held-out items 500,000,000" in card
