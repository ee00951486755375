"""lm-eval's `hf` model, with batches that do no work twice.

Requests of a recording share much: the system prompt, a task's instructions, a query that several pipelines have
answered. What the requests of a batch begin with alike is read once; padding is skipped, not read; and a response
that has come to its end leaves the batch, which lm-eval's would carry on until the last one ends. The responses are
the same, up to the rounding of floating-point sums, in less time (docs/results/performance.md says how much).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from pools.models.progress import count

CHUNK = 32
"""Columns of a padded batch that are read at a time; rows that have only padding there are left out."""


class SharedPrefixHFLM(HFLM):
    """`HFLM` for the recorder's batches. What it cannot speed up (sampling, other caches) is left to `HFLM`."""

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        mask = generation_kwargs.get("attention_mask")
        plain = generation_kwargs.keys() <= {"attention_mask", "do_sample", "temperature"}
        if mask is None or not plain or generation_kwargs.get("do_sample") or not _is_plain(self):
            counted = LogitsProcessorList([Counted()])
            return super()._model_generate(context, max_length, stop, logits_processor=counted, **generation_kwargs)
        rows = [ids[keep.bool()].tolist() for ids, keep in zip(context, mask, strict=True)]
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type, self.mixed_precision_dtype, enabled=self.mixed_precision_dtype is not None
            ),
        ):
            reader = _Reader(self.model, self.tokenizer.pad_token_id)
            reader.read_shared(rows)
            written = self._write(reader, stop, max_length - context.shape[1])
        width = max(map(len, written))
        padded = [tokens + [self.tokenizer.pad_token_id] * (width - len(tokens)) for tokens in written]
        return torch.cat([context, torch.tensor(padded, device=context.device, dtype=context.dtype)], dim=1)

    def _write(self, reader: _Reader, stop: list[str], limit: int) -> list[list[int]]:
        """Greedy responses to the rows that were read, as token ids: `generate`, again for those that go on."""
        ids, mask, cache, prompt = reader.ids, reader.mask, reader.cache, reader.ids.shape[1]
        written: list[list[int]] = [[] for _ in ids]
        number = torch.arange(len(ids), device=ids.device)  # which request a row of the batch is
        while len(number):
            done = _SomeDone(self, stop, prompt, len(number))
            ids = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                cache=cache,
                max_length=prompt + limit,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([done]),
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
            )
            full = ids.shape[1] >= prompt + limit
            count(responses=len(number) if full else sum(done.rows))
            for row, request in enumerate(number.tolist()):
                if done.rows[row] or full:
                    written[request] = ids[row, prompt:].tolist()
            keep = torch.tensor([not (ended or full) for ended in done.rows], device=ids.device)
            mask = torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], dim=1)
            ids, mask, number = ids[keep], mask[keep], number[keep]
            cache.batch_select_indices(keep)
            if len(number):
                ids, mask, dropped = _without_padding(ids, mask, cache)
                prompt -= dropped
        return written


class _SomeDone(StoppingCriteria):
    """Ends a call of `generate` as soon as an eighth of its rows have come to an end; `rows` says which have."""

    def __init__(self, lm: HFLM, stop: list[str], prompt: int, size: int) -> None:
        self._criteria = stop_sequences_criteria(lm.tokenizer, stop, prompt, size)
        end = lm.model.generation_config.eos_token_id
        self._ends = {end} if isinstance(end, int) else set(end or ())
        self.rows = [False] * size

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        count(tokens_out=self.rows.count(False))
        for criterion in self._criteria:
            criterion(input_ids, scores)
        last = input_ids[:, -1].tolist()
        for row, token in enumerate(last):
            self.rows[row] |= token in self._ends or any(c.done_tracker[row] for c in self._criteria)
        enough = 8 * sum(self.rows) >= len(self.rows)
        return torch.full((len(last),), enough, device=input_ids.device)


class Counted(LogitsProcessor):
    """Changes nothing: it is called for each token of the rows of a batch, and counts them."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        count(tokens_out=len(input_ids))
        return scores


class _Reader:
    """Keys and values of what was read so far: `ids`, `mask` and `cache`, a row per request, padded on the left."""

    def __init__(self, model: Any, pad: int) -> None:
        self.model, self.pad = model, pad
        self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        self.ids = torch.zeros(1, 0, dtype=torch.long, device=model.device)
        self.mask = self.ids.clone()

    def read_shared(self, rows: Sequence[list[int]]) -> None:
        """Read every row but for its last token, in three steps: what all share, what neighbours share, the rest."""
        room = min(map(len, rows)) - 1
        common = min(room, _shared(min(rows), max(rows)))
        self._read([rows[0][:common]], [0])
        rest = [row[common:] for row in rows]
        stems, stem_of = _stems(rest)
        self._read(stems, [0] * len(stems))
        self._read([row[len(stems[stem]) : -1] for row, stem in zip(rest, stem_of, strict=True)], stem_of)
        last = torch.tensor([row[-1:] for row in rows], device=self.ids.device)
        self.ids = torch.cat([self.ids, last], dim=1)
        self.mask = torch.cat([self.mask, torch.ones_like(last)], dim=1)
        self.ids, self.mask, _ = _without_padding(self.ids, self.mask, self.cache)

    def _read(self, rows: Sequence[list[int]], parents: list[int]) -> None:
        """Go on from rows `parents` of what was read, with the tokens of `rows`."""
        picked = torch.tensor(parents, device=self.ids.device)
        self.cache.batch_select_indices(picked)
        width = max(map(len, rows))
        ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in rows], device=picked.device).long()
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=picked.device).long()
        self.ids = torch.cat([self.ids[picked], ids], dim=1)
        self.mask = torch.cat([self.mask[picked], mask], dim=1)
        start = self.ids.shape[1] - width
        while start < self.ids.shape[1]:
            end = min(start + CHUNK, self.ids.shape[1])
            self._forward(start, end)
            start = end

    def _forward(self, start: int, end: int) -> None:
        """Read columns start to end of the rows that have anything there; the others' keys are masked zeros."""
        active = self.mask[:, start:end].any(dim=1)
        layers = self.cache.layers
        before = [(layer.keys, layer.values) for layer in layers] if start else None
        if not bool(active.all()):
            self.cache.batch_select_indices(active)
        mask = self.mask[active, :end]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, start:]
        self.model(
            input_ids=self.ids[active, start:end],
            attention_mask=mask,
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if bool(active.all()):
            return
        for number, layer in enumerate(layers):
            for name in ("keys", "values"):
                read = getattr(layer, name)
                whole = read.new_zeros(len(active), *read.shape[1:])
                if before is not None:
                    whole[:, :, :start] = before[number][name == "values"]
                whole[active] = read
                setattr(layer, name, whole)


def _without_padding(
    ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Ids and mask `[B, T]` with padding on the left alone, as little as can be, and how many columns fewer they are.

    The cache, which lacks the last column's keys, is rearranged alike: keys know their positions.
    """
    width = int(mask.sum(dim=1).max())
    dropped = mask.shape[1] - width
    if not dropped:
        return ids, mask, 0
    order = mask.argsort(dim=1, stable=True)[:, dropped:]  # what is masked first, then the tokens in their order
    read = order[:, None, :-1, None]
    for layer in cache.layers:
        for name in ("keys", "values"):
            of_layer = getattr(layer, name)
            setattr(layer, name, of_layer.gather(2, read.expand(-1, of_layer.shape[1], -1, of_layer.shape[3])))
    return ids.gather(1, order), mask.gather(1, order), dropped


def _stems(rows: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Beginnings that several rows share, and which of them each row has. No stem is a whole row.

    Rows belong together that share at least a third of their tokens with the first of them, in sorted order.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(rows)), key=rows.__getitem__):
        if groups and 3 * _shared(rows[groups[-1][0]], rows[number]) >= len(rows[number]):
            groups[-1].append(number)
        else:
            groups.append([number])
    stems: list[list[int]] = []
    stem_of = [0] * len(rows)
    for group in groups:
        first, last = rows[group[0]], rows[group[-1]]
        length = min(_shared(first, last), *(len(rows[number]) - 1 for number in group))
        for number in group:
            stem_of[number] = len(stems)
        stems.append(first[:length])
    return stems, stem_of


def _shared(one: list[int], other: list[int]) -> int:
    """Length of what two rows begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


_HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "max_length"),
    *("do_sample", "temperature", "top_k", "top_p", "use_cache", "output_attentions", "output_hidden_states"),
}
"""What a model's generation config may set: greedy decoding does not depend on it, or takes it from the arguments."""


def _is_plain(lm: HFLM) -> bool:
    """Whether the model decodes greedily from a cache of all keys, whose rows can be picked: most decoders do.

    Else responses could differ from lm-eval's by more than rounding: penalties that count padding, limits that start
    anew with every call, thinking in which a stop text is none, positions that depend on how much is read at once.
    """
    model, config = lm.model, lm.model.config.get_text_config(decoder=True)
    decoding = model.generation_config
    ends = decoding.eos_token_id
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return (
        not model.config.is_encoder_decoder
        and model._supports_default_dynamic_cache()
        and kinds == {"full_attention"}
        and not windowed
        and not {"dynamic", "longrope"} & {rope.get("rope_type"), rope.get("type")}
        and len(set((getattr(model, "hf_device_map", None) or {}).values())) < 2
        and {"position_ids", "cache", "logits_to_keep"} <= inspect.signature(model.forward).parameters.keys()
        and lm.think_end_token is None
        and decoding.to_diff_dict().keys() <= _HARMLESS
        and lm.eot_token_id in (ends if isinstance(ends, list) else [ends])
    )
