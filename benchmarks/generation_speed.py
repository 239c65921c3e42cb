"""Measure how fast a local language model answers, beside `generate` of transformers with the same batch.

    OMP_NUM_THREADS=2 python -m benchmarks.generation_speed --save

Both write the same number of tokens to the same prompts, whose batch is padded on the left, and take turns.
"""

from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.inputs import read_records
from benchmarks.judged import parser_of
from benchmarks.tables import Cell, Table, processor, publish
from benchmarks.timing import medians
from blender_hf import LocalLLM
from blender_hf.generation.local import LocalModel
from blender_hf.generation.sampling import Sampling
from blender_hf.modeling.fast_kernels import cpu_features
from blender_hf.modeling.hub_mixins import make_portable

COLUMNS = {"precision": "", "answers together": "", "LocalLLM, tokens/s": ".0f", "generate, tokens/s": ".0f"}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--llm", default="smollm2-135m", help="bundled name, folder or Hub id")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=64, help="that each answer has")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    table = Table({**COLUMNS, "ratio": ".2f"}, list(rows(options)))
    cpu = cpu_features().get("cpu_name", processor())
    note = (
        f"{options.tokens} tokens an answer; torch {torch.__version__} on {cpu}, {torch.get_num_threads()} threads; "
        f"medians of {options.turns} turns."
    )
    publish(__file__, [table, note], options)


def rows(options: Any) -> Iterator[list[Cell]]:
    for dtype in options.dtypes:
        ours = LocalModel(LocalLLM(options.llm, device="cpu", dtype=dtype, batch_size=max(options.batches)))
        # Answers of one length, so that both do the same work.
        ours.model.generation_config.eos_token_id = None
        with TemporaryDirectory() as folder:
            ours.model.save_pretrained(folder)
            ours.tokenizer.save_pretrained(folder)
            make_portable(folder)
            plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        plain.generation_config.eos_token_id = None
        for batch in options.batches:
            prompts = [record["prompt"] for record in read_records()[:batch]]
            seconds = medians(calls(ours, plain, tokenizer, prompts, options.tokens), options.turns)
            mine, theirs = (batch * options.tokens / taken for taken in seconds)
            yield [dtype, str(batch), mine, theirs, mine / theirs]


def calls(ours: LocalModel, plain: Any, tokenizer: Any, prompts: list[str], tokens: int) -> list[Callable[[], object]]:
    """Return what answers all prompts: a `LocalModel`, and transformers."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    sampling = Sampling(max_new_tokens=tokens, temperature=0)

    def with_transformers() -> object:
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        written = plain.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return [lambda: ours.start(chats, sampling).result(), with_transformers]


if __name__ == "__main__":
    main()
