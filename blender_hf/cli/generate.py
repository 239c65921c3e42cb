"""The command `generate`: prompts in, the candidates of several language models out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice, tee
from typing import TYPE_CHECKING

from blender_hf.errors import BlenderError
from blender_hf.logs import counted, quieten_libraries

from .command import (
    LLM_FORMS,
    LLM_OPTIONS,
    OVERWRITE,
    QUIET,
    RECORD_OPTIONS,
    Command,
    Options,
    chosen_llms,
    option,
    record_source,
    whole,
)
from .output import Tally, check_records, report, shows_progress

if TYPE_CHECKING:
    from blender_hf.generation.candidates import Generated
    from blender_hf.generation.records import PromptRecord


def run(options: Options) -> None:
    """Generate candidates; each line is written complete, as soon as its prompt is answered."""
    output = check_records(options)
    from tqdm import tqdm

    from blender_hf.data.jobs import open_log, remaining
    from blender_hf.data.sources import checked_count
    from blender_hf.generation.candidates import DEFAULT_WINDOW, CandidateWriter
    from blender_hf.generation.records import answered_prompts, read_prompts
    from blender_hf.generation.sampling import Sampling
    from blender_hf.generation.specs import LocalLLM

    quieten_libraries()
    llms = chosen_llms(options.llm, options)
    sampling = Sampling(options.n, options.max_new_tokens, options.temperature, options.top_p, options.seed)
    names = [llm.label for llm in llms]
    settings = {"models": {llm.label: llm.origin for llm in llms}, "dtype": options.dtype, **asdict(sampling)}
    # What a local model samples depends on its batch, so a resumed run makes the same batches again.
    window = DEFAULT_WINDOW if any(isinstance(llm, LocalLLM) for llm in llms) else None
    source = record_source(options)
    with open_log(output, ".generate.json") as log:
        done: dict[str, str] = {}
        if not options.overwrite:
            done = answered_prompts(log, names, options.n, source.columns)
            log.check(settings)

        def waiting() -> Iterator["PromptRecord"]:
            return remaining(islice(read_prompts(source), options.limit), done, window)

        # A file is checked whole before a model is loaded.
        total = checked_count(source, waiting())
        writer = CandidateWriter(llms, sampling)
        tally = Tally(already=len(done))
        records, ahead = tee(waiting())
        answers = writer.iter(record.item for record in ahead)
        log.begin(settings, anew=options.overwrite)
        with tqdm(total=total, unit="prompt", disable=not shows_progress(options)) as bar:
            for generated, record in zip(answers, records, strict=True):
                bar.update()
                if record.id in done:
                    continue
                if generated.candidates:
                    log.append(record.answered(generated, names))
                _count(tally, record, generated)
                if len(writer.given_up) == len(names) and not generated.candidates:
                    break
    _report(options, tally, names)


def _count(tally: Tally, record: "PromptRecord", generated: "Generated") -> None:
    """Add what became of a prompt."""
    for candidate in generated.candidates[len(record.item.candidates) :]:
        tally.counts["candidates", candidate.model] += 1
        tally.counts["truncated", candidate.model] += getattr(candidate, "truncated", False)
    for failure in generated.failures:
        tally.reasons[failure.model][failure.reason] += 1
    if generated.candidates:
        tally.counts["written"] += 1
    else:
        tally.failed.append(record.id)


def _report(options: Options, tally: Tally, names: Sequence[str]) -> None:
    """Log and print the summary; fail if a prompt has no candidate."""
    counts, seconds = tally.counts, tally.seconds
    models = {
        name: {
            **{kind: counts[kind, name] for kind in ("candidates", "truncated")},
            "failures": tally.reasons[name].total(),
            "reasons": dict(tally.reasons[name]),
        }
        for name in names
    }
    parts = [
        f"{counted(counts['written'], 'prompt')} answered in {seconds:.1f} s",
        f"{counts['already']} answered before" if counts["already"] else "",
        *(_of_model(tally, name) for name in names),
    ]
    done = {**{name: counts[name] for name in ("written", "already")}, "unanswered": len(tally.failed)}
    report(options, parts, {**done, "seconds": seconds, "models": models, "output": options.output})
    if tally.failed:
        reasons = "; ".join(f"{name}: {next(iter(tally.reasons[name]), 'no answer')}" for name in names)
        raise BlenderError(
            f"no language model answered the prompt {tally.failed[0]!r} ({reasons}); prompts without candidates are "
            "not in the output; run the command again to retry them"
        )


def _of_model(tally: Tally, name: str) -> str:
    text = f"{name}: {counted(tally.counts['candidates', name], 'candidate')}"
    if truncated := tally.counts["truncated", name]:
        text += f" ({truncated} truncated)"
    if reasons := tally.reasons[name]:
        text += f", {counted(reasons.total(), 'failure')} ({reasons.most_common(1)[0][0]})"
    return text


COMMAND = Command(
    name="generate",
    help="Let several language models answer each prompt",
    about="""Let several language models answer each prompt, and write what blend, rank and fuse read. A model that
    fails is recorded with the reason, and the others continue. After an interruption, run the same command again to
    resume after the last record written.""",
    options=(
        *RECORD_OPTIONS,
        QUIET,
        option("--llm MODEL", "a language model; repeatable", action="append", required=True),
        OVERWRITE,
        option("--n N", "answers per model", type=whole(1), default=1),
        option("--max-new-tokens N", "maximum answer length", type=whole(1), default=512),
        option("--temperature T", "0 is greedy decoding (default: the model's)", type=float),
        option("--top-p P", "nucleus sampling (default: the model's)", type=float),
        option("--seed N", "random seed, as far as the model supports it", type=whole(0)),
        *LLM_OPTIONS,
    ),
    run=run,
    epilog=f"""\
Input is one JSON object per line, for example
  {{"id": "q1", "prompt": "2 + 2?"}}
"messages" (chat) can replace "prompt", and so can other names of common datasets; see docs/data.md. A record keeps the
candidates that it already has, and no model is queried twice: run on its own output, the command retries only what
failed.

{LLM_FORMS}
Example: blender-hf generate prompts.jsonl --llm org/model --llm http://localhost:8000/v1#qwen --output answers.jsonl
""",
)
