"""Measure what the few bits of the bundled language model cost: how likely it finds good answers.

    python -m benchmarks.low_bits dev_permissive.jsonl.gz --gguf SmolLM2-135M-Instruct.Q4_1.gguf --save

The mean negative log-likelihood of a token of the better candidate of each pair, in nats, in float32: with the bundled
weights, with those of the GGUF file that they were made of, and with those of `--full`, a folder or Hub id.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm

from benchmarks.judged import parser_of, sampled
from benchmarks.tables import Cell, Table, interval, publish
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.evaluation.bootstrap import figures
from blender_hf.generation.local import LocalModel
from blender_hf.generation.specs import as_llm
from blender_hf.loading.checkpoints import BUNDLED_LLM
from blender_hf.modeling.chat_templates import PromptEncoder

LOSS, MORE = ".3f|.3f", "+.3f|+.3f"
END = "<|im_end|>"
LEFT_OUT = "of which longer ones are left out"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="JSONL of judged pairs")
    parser.add_argument("--gguf", type=Path, help="the GGUF file that the bundled weights were made of")
    parser.add_argument("--full", help="folder or Hub id of the model in full precision")
    parser.add_argument("--answers", type=int, default=20, help="random sample of each source")
    parser.add_argument("--most-tokens", type=int, default=400, help=f"of a prompt with its answer, {LEFT_OUT}")
    options = parser.parse_args()
    prompts = [prompt for prompt in read_labelled(options.data) if prompt.pairs and prompt.pairs[0].label in (0, 1)]
    drawn = sampled(prompts, lambda prompt: prompt.source, options.answers, options.seed)
    # The first is what the others are compared with.
    llms = {"full precision": options.full, "the GGUF file": options.gguf, "bundled": BUNDLED_LLM}
    rows: list[dict[str, tuple[float, float]]] = []
    for name, llm in llms.items():
        if llm is not None:
            losses = [loss for loss in measured(str(llm), drawn, options.most_tokens) if loss is not None]
            rows = rows or [{} for _ in losses]
            for row, loss in zip(rows, losses, strict=True):
                row[name] = loss
    publish(__file__, [table(rows, options.seed), note(rows, options)], options)


def measured(llm: str, prompts: Sequence[LabelledPrompt], most: int) -> Iterator[tuple[float, float] | None]:
    """Yield of each prompt's good answer the negative log-likelihood and the number of tokens, its end included."""
    model = LocalModel(replace(as_llm(llm), device="cpu", dtype="float32"))
    encode = PromptEncoder(model.tokenizer)
    for prompt in tqdm(prompts, desc=model.name):
        pair = prompt.pairs[0]
        before, _ = encode(prompt.item.messages)
        text = prompt.item.texts[pair.a if pair.label == 1 else pair.b]
        answer = model.tokenizer(text + END, add_special_tokens=False)["input_ids"]
        if len(before) + len(answer) > most:
            yield None
            continue
        with torch.inference_mode():
            logits = model.model(torch.tensor([before + answer])).logits[0, len(before) - 1 : -1]
        yield functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item(), len(answer)


def table(rows: Sequence[Mapping[str, tuple[float, float]]], seed: int) -> Table:
    """Return the mean of each model, and how much higher it is than that of the first, prompt by prompt."""
    first = next(iter(rows[0]))
    more = {f"{name} more": name for name in rows[0] if name != first}
    paired = [
        {**row, **{key: (row[name][0] - row[first][0], row[name][1]) for key, name in more.items()}} for row in rows
    ]
    found = figures(paired, seed=seed)
    cells: list[list[Cell]] = [
        [name, interval(found[name]), interval(found[f"{name} more"]) if name != first else None] for name in rows[0]
    ]
    return Table({"weights": "", "negative log-likelihood": LOSS, f"more than {first}": MORE}, cells)


def note(rows: Sequence[Mapping[str, tuple[float, float]]], options: argparse.Namespace) -> str:
    tokens = sum(next(iter(row.values()))[1] for row in rows)
    return (
        f"{len(rows)} answers with {tokens:,.0f} tokens of {options.data.name}, at most {options.answers} of a source "
        f"and {options.most_tokens} tokens with the prompt, in nats a token; intervals of 95 % over prompts."
    )


if __name__ == "__main__":
    main()
