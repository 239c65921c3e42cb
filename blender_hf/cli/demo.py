"""The command `demo`: from bare prompts to blended answers, beside the answers of large models."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from blender_hf.logs import counted, quieten_libraries

from .command import LLM_FORMS, Command, Options, option, whole
from .output import log
from .results import as_text, blend_text, rank_text

if TYPE_CHECKING:
    from blender_hf.blender import Blender
    from blender_hf.data.records import Record
    from blender_hf.generation.candidates import Generated
    from blender_hf.inputs import Item

# Of the records in examples/smoke.jsonl, which have answers of six models of 6 to 13 billion parameters.
SHOWN = ("vicuna80-02", "vicuna80-21", "vicuna80-33")
# Enough of a spread for several answers to differ, and little enough for a small model to keep to the point.
TEMPERATURE, TOP_P = 0.5, 0.95
BLENDED = "the answer above"


def run(options: Options) -> None:
    """Print what becomes of each prompt."""
    from blender_hf.blender import Blender
    from blender_hf.generation.candidates import CandidateWriter
    from blender_hf.generation.sampling import Sampling
    from blender_hf.generation.specs import LocalLLM, on_device
    from blender_hf.loading.checkpoints import BUNDLED_LLM

    quieten_libraries()
    shown = list(_records())[: options.limit]
    llms = on_device(options.llm or [BUNDLED_LLM], options.device)
    # All prompts in one batch.
    together = options.n * len(shown)
    llms = tuple(replace(llm, batch_size=together) if isinstance(llm, LocalLLM) else llm for llm in llms)
    sampling = Sampling(options.n, options.max_new_tokens, TEMPERATURE, TOP_P, options.seed)
    blender = Blender.from_pretrained(device=options.device)
    writer = CandidateWriter(llms, sampling)
    names = ", ".join(llm.label for llm in llms)
    work = f"{counted(options.n, 'answer')} to each of {counted(len(shown), 'prompt')}"
    log(f"{names}: {work}, up to {options.max_new_tokens} tokens each ...")
    bare = (replace(record.item, candidates=()) for record in shown)
    for generated, record in zip(writer.iter(bare), shown, strict=True):
        sys.stdout.write(as_text(record, _text(blender, generated, record.item)) + "\n")
        sys.stdout.flush()


def _records() -> Iterator["Record"]:
    from blender_hf.data.examples import MODEL_ANSWERS
    from blender_hf.data.sources import read_records

    found = {record.id: record for record in read_records(MODEL_ANSWERS)}
    return (found[name] for name in SHOWN)


def _text(blender: "Blender", generated: "Generated", large: "Item") -> str:
    """Blend what was generated, and rank the result among the answers of large models."""
    from blender_hf.inputs import Candidate

    answers = generated.item.candidates
    numbered = [replace(answer, model=f"{answer.model} ({number})") for number, answer in enumerate(answers, 1)]
    blend = blender.blend(generated.prompt, numbered)
    beside = blender.rank(large.prompt, [Candidate(blend.output, BLENDED), *large.candidates])
    return f"{blend_text(blend)}\n\nBeside the answers of large models:\n\n{rank_text(beside)}\n"


COMMAND = Command(
    name="demo",
    help="Watch three prompts go from a bare prompt to a blended answer",
    about="""Let a small language model answer three prompts several times, rank its answers, fuse the best, and rank
    the result among answers of six large models. Nothing is downloaded.""",
    options=(
        option("--llm MODEL", "a language model, repeatable (default: the bundled smollm2-135m)", action="append"),
        option("--n N", "answers per model and prompt", type=whole(1), default=4),
        option("--max-new-tokens N", "maximum answer length", type=whole(1), default=256),
        option("--limit N", "only the first N prompts", type=whole(1)),
        option("--seed N", "random seed", type=whole(0), default=0),
        option("--device DEVICE", "cpu, cuda, cuda:1, mps (default: a GPU if available)"),
    ),
    run=run,
    epilog=f"{LLM_FORMS}\nExample: blender-hf demo --llm org/model --llm http://localhost:8000/v1#qwen",
)
