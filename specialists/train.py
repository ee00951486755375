"""Train the small specialists of the lightweight pool from scratch, on a CPU.

    python -m specialists.train train --specialist calculator --out results/specialists/calculator
    python -m specialists.train evaluate results/specialists/calculator results/specialists/reader

Each ships as this command made it, in float32 on one core; its card says how long that took. A training that was
interrupted goes on with `--resume`, to the same weights. `specialists.lessons` is what is taught, and how large the
networks are. The recipe: a Llama, a byte-pair encoding with single digits, loss on the replies alone, Muon for the
hidden matrices and AdamW for the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.weights import RECIPE, file_hash, files_of_model
from specialists import lessons as data
from specialists.card import write_card
from specialists.evaluate import accuracy, as_text, load

END, PAD = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class Recipe:
    """Every number of a training that is not the specialist's own."""

    specialist: str
    tokens: int
    """the training ends after so many tokens, those of the questions included"""
    seed: int = 0
    batch_tokens: int = 2048
    """tokens of a batch, padding included"""
    lessons_per_pool: int = 1024
    """so many lessons at a time are sorted by length and cut into batches, which are then shuffled"""
    tokenizer_lessons: int = 4000
    muon_rate: float = 8e-3
    adamw_rate: float = 2e-3
    warm_up_steps: int = 200
    decay: float = 0.4
    """share of the training, at its end, over which the rates fall to zero in a straight line"""
    clip: float = 1.0
    """largest norm of the gradient"""

    @property
    def size(self) -> data.Specialist:
        """The specialist, with the sizes of its network."""
        return data.SPECIALISTS[self.specialist]


# --- model and tokenizer ---------------------------------------------------------------------------------------


def make_tokenizer(recipe: Recipe) -> Any:
    """A byte-level byte-pair encoding with single digits, trained on the specialist's lessons.

    What ends the query is a token of its own, so that a text is cut at the same places as in training.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.size.vocabulary - 1,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    taught = islice(data.lessons(recipe.specialist), recipe.tokenizer_lessons)
    tokenizer.train_from_iterator((f"{each.question}\n{each.reply}" for each in taught), trainer)
    tokenizer.add_tokens([AddedToken(data.END_OF_QUERY, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def make_model(recipe: Recipe, tokenizer: Any) -> Any:
    """A Llama with random weights, drawn from the recipe's seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.size.hidden,
            intermediate_size=recipe.size.feed_forward,
            num_hidden_layers=recipe.size.layers,
            num_attention_heads=recipe.size.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # On a CPU the backward pass of torch's fused attention takes longer than all the rest.
            attn_implementation="eager",
        )
    )


# --- batches ---------------------------------------------------------------------------------------------------


def encoded(lessons: Sequence[data.Lesson], tokenizer: Any) -> list[tuple[list[int], int]]:
    """Token ids of each lesson, which end with END, and how many of them are the question's."""
    questions = tokenizer([each.question + data.END_OF_QUERY for each in lessons], add_special_tokens=False)
    replies = tokenizer([each.reply for each in lessons], add_special_tokens=False)
    return [
        ([*question, *reply, tokenizer.eos_token_id], len(question))
        for question, reply in zip(questions["input_ids"], replies["input_ids"], strict=True)
    ]


def batches(recipe: Recipe, tokenizer: Any, pool: int) -> list[tuple[Any, Any]]:
    """The batches of pool number `pool`: ids int64 [b, t], and labels [b, t] that are -100 if nothing is learnt."""
    import torch

    numbers = range(pool * recipe.lessons_per_pool, (pool + 1) * recipe.lessons_per_pool)
    lessons = [data.lesson(recipe.specialist, number) for number in numbers]
    rows = sorted(encoded([lesson for lesson in lessons if lesson], tokenizer), key=lambda row: len(row[0]))
    made: list[tuple[Any, Any]] = []
    while rows:
        size = 1
        while size < len(rows) and (size + 1) * len(rows[size][0]) <= recipe.batch_tokens:
            size += 1
        taken, rows = rows[:size], rows[size:]
        width = len(taken[-1][0])
        ids = torch.full((size, width), tokenizer.pad_token_id)
        labels = torch.full((size, width), -100)
        for row, (tokens, asked) in enumerate(taken):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, asked : len(tokens)] = torch.tensor(tokens[asked:])
        made.append((ids, labels))
    random.Random(f"{recipe.seed} {pool} batches").shuffle(made)
    return made


# --- training --------------------------------------------------------------------------------------------------


def rate_factor(recipe: Recipe, step: int, tokens: int) -> float:
    """What the learning rates are multiplied by: up over the first steps, flat, and down to zero at the end."""
    left = (recipe.tokens - tokens) / recipe.tokens
    return min(1.0, (step + 1) / recipe.warm_up_steps, max(0.0, left) / recipe.decay)


def make_optimizers(model: Any, recipe: Recipe) -> list[Any]:
    """Muon for the hidden matrices; AdamW for embeddings and norms."""
    import torch

    from specialists.muon import Muon

    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(hidden, lr=recipe.muon_rate),
        torch.optim.AdamW(rest, lr=recipe.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def loss_of(model: Any, ids: Any, labels: Any) -> Any:
    """Mean cross-entropy of the learnt tokens; only these pass the output layer."""
    import torch

    # Padding is on the right, so causal attention alone keeps it apart.
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    targets = labels[:, 1:]
    chosen = targets != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), targets[chosen])


def train(
    recipe: Recipe,
    work: Path,
    resume: bool = False,
    every_seconds: float = 200.0,
    stop_after: int | None = None,
    check_every: int = 0,
) -> tuple[Any, Any, list[float], float]:
    """Train, with a checkpoint in `work` every so many seconds.

    Gives model, tokenizer, the loss of each step, and the seconds it took, those before a resumption among them.

    stop_after: steps after which to stop as if interrupted.
    check_every: steps after which some held-out lessons are asked; 0: never.
    Raises UserError if there is nothing to resume from, or the checkpoint is of another recipe.
    """
    import torch

    torch.manual_seed(recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.pt"
    tokenizer = make_tokenizer(recipe)
    model = make_model(recipe, tokenizer)
    optimizers = make_optimizers(model, recipe)
    step, tokens, pool, place = 0, 0, 0, 0
    losses: list[float] = []
    seconds = 0.0
    if resume:
        if not checkpoint.is_file():
            raise UserError(f"nothing to resume: {checkpoint} is missing; start without --resume")
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != dataclasses.asdict(recipe):
            given = state["recipe"]
            raise UserError(f"{checkpoint} is of another recipe: {given}; give its options, or start without --resume")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, tokens, pool, place = state["place"]
        losses, seconds = state["losses"], state["seconds"]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer):,} tokens", flush=True)

    def save() -> None:
        state = {
            "recipe": dataclasses.asdict(recipe),
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "place": [step, tokens, pool, place],
            "losses": losses,
            "seconds": seconds + time.perf_counter() - start,
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    start = saved_at = time.perf_counter()
    here = batches(recipe, tokenizer, pool)
    model.train()
    while tokens < recipe.tokens:
        ids, labels = here[place]
        factor = rate_factor(recipe, step, tokens)
        for optimizer, rate in zip(optimizers, (recipe.muon_rate, recipe.adamw_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        loss = loss_of(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        step, tokens, place = step + 1, tokens + int((ids != tokenizer.pad_token_id).sum()), place + 1
        if place == len(here):
            pool, place = pool + 1, 0
            here = batches(recipe, tokenizer, pool)
        now = time.perf_counter()
        if step % 50 == 0:
            recent = sum(losses[-50:]) / len(losses[-50:])
            print(f"step {step}  tokens {tokens:,}  loss {recent:.4f}  {seconds + now - start:.0f} s", flush=True)
        if check_every and step % check_every == 0:
            right = accuracy(model.eval(), tokenizer, recipe.specialist, 200)
            print("held out: " + ", ".join(f"{f} {sum(of) / len(of):.0%}" for f, of in right.items()), flush=True)
            model.train()
        if now - saved_at > every_seconds or step == stop_after:
            save()
            saved_at = now
        if step == stop_after:
            break
    save()
    return model, tokenizer, losses, seconds + time.perf_counter() - start


# --- command line ----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m specialists.train", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train", help="train a specialist and write its folder")
    trainer.add_argument("--specialist", choices=list(data.SPECIALISTS), required=True)
    trainer.add_argument("--out", type=Path, required=True, help="folder of the trained model")
    trainer.add_argument("--tokens", type=int, help="by default the specialist's own number")
    trainer.add_argument("--seed", type=int, default=Recipe.seed)
    trainer.add_argument("--work", type=Path, help="folder of the checkpoint; default: runs/specialists/<specialist>")
    trainer.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    trainer.add_argument("--check-every", type=int, default=500, help="steps between looks at held-out lessons")
    evaluator = commands.add_parser("evaluate", help="ask trained specialists held-out lessons")
    evaluator.add_argument("folders", type=Path, nargs="+", help="folders of trained specialists")
    evaluator.add_argument("--number", type=int, default=1000, help="held-out lessons of each")
    evaluator.add_argument("--write-cards", action="store_true", help="write the table into the folders' README.md")
    for command in (trainer, evaluator):
        command.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        return _train(given) if given.command == "train" else _evaluate(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _train(given: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(given.threads)
    recipe = Recipe(given.specialist, given.tokens or data.SPECIALISTS[given.specialist].tokens, given.seed)
    work = given.work or Path("runs/specialists") / given.specialist
    model, tokenizer, _, seconds = train(recipe, work, given.resume, check_every=given.check_every)
    facts = {**dataclasses.asdict(recipe), "minutes": round(seconds / 60)}
    save_folder(model, tokenizer, {**facts, "lessons": data.lessons_hash(recipe.specialist)}, given.out)
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(given.threads)
    for folder in given.folders:
        model, tokenizer, name = load(folder)
        scores = as_text(accuracy(model, tokenizer, name, given.number))
        print(f"{name}\n{scores}")
        if given.write_cards:
            write_card(folder, scores, given.number)
    return 0


def save_folder(model: Any, tokenizer: Any, facts: Mapping[str, Any], folder: Path) -> None:
    """Write the Hugging Face folder: bfloat16 weights, tokenizer, configuration, and `recipe.json` beside them.

    facts: what `recipe.json` shall hold beside threads and torch's version. It also holds the sha256 of every file that
    decides what the model answers.
    """
    import copy

    import torch
    from transformers import GenerationConfig

    model = copy.deepcopy(model).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner alone
    recipe = {
        **facts,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
        "sha256": {str(path.relative_to(folder)): file_hash(path) for path in files_of_model(folder)},
    }
    (folder / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
