"""The tab that ranks the candidates of a prompt and fuses the best."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from blender_hf.errors import BlenderError
from blender_hf.inputs import Candidate, Item
from blender_hf.space import markup
from blender_hf.space.answers import Failure, answer_models, iter_answers, make_client
from blender_hf.space.fused import Fused
from blender_hf.space.prompts import FIRST_EXAMPLE, candidates_of_rows, examples, make_prompt, split_candidates
from blender_hf.space.service import Service
from blender_hf.space.settings import DEFAULT_LIMITS, FusionSettings, RankingSettings

from .events import PRIVATE, gr, mark_stale, plain_errors, plain_reason, scroll_to
from .inputs import CandidateRows, PromptFields, SettingsPanel
from .results import Ranked, Results, Updates


def blend_tab(service: Service, settings: SettingsPanel, public: bool) -> Results:
    """Arrange the tab; `public` is that of `build_app`."""
    first = examples()[FIRST_EXAMPLE].item
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            example = gr.Dropdown(list(examples()), value=FIRST_EXAMPLE, label="Example", elem_id="example")
            prompt = PromptFields(first.source, "prompt")
            with gr.Row():
                blend = gr.Button("Blend", variant="primary", elem_id="blend", min_width=120)
                rank = gr.Button("Rank only", elem_id="rank", min_width=120)
            with gr.Accordion("Candidates", open=True, elem_id="candidates") as folded:
                rows = CandidateRows(service.limits.candidates, first.candidates)
                with gr.Row():
                    add = gr.Button("Add a candidate", size="sm", elem_id="add", min_width=120)
                    clear = gr.Button("Clear all", size="sm", elem_id="clear", min_width=120)
                pasted, paste = _pasting()
                _small_answers(service, rows, prompt)
                _generation(rows, prompt, public)
            prompt.arrange_context()
        with gr.Column(scale=6, min_width=320, elem_classes="bh-results"):
            results = Results()

    def load(title: str) -> list[Any]:
        item = examples()[title].item
        return [item.prompt, "", "", *rows.show(item.candidates), gr.Accordion(open=True)]

    example.input(load, example, [*prompt.values, *rows.outputs, folded], **PRIVATE)
    add.click(lambda *values: rows.show([*rows.read(values), Candidate("")]), rows.values, rows.outputs, **PRIVATE)
    emptied = [example, *prompt.values, *rows.outputs]
    cleared = clear.click(lambda: [None, "", "", "", *rows.show([])], None, emptied, **PRIVATE)
    cleared.then(results.cleared, None, results.outputs, **PRIVATE)
    paste.click(lambda new: [*rows.show(split_candidates(new or "")), ""], pasted, [*rows.outputs, pasted], **PRIVATE)
    for index, remover in enumerate(rows.removers):
        remover.click(_remover(rows, index), rows.values, rows.outputs, **PRIVATE)

    choices = [*settings.ranking, *settings.fusion]
    mark_stale([*prompt.values, *choices, *rows.names, *rows.texts], results.stale)
    inputs = [*prompt.values, *choices, *rows.values]
    for button, fuse in ((blend, True), (rank, False)):
        begin, run = _events(service, rows, results, folded, (blend, rank), fuse)
        begun = button.click(begin, inputs, [folded, blend, rank, *results.outputs], show_progress="hidden", **PRIVATE)
        begun.success(None, None, None, js=scroll_to("answer"), **PRIVATE)
        done = begun.success(
            run, inputs, results.outputs, show_progress="minimal", show_progress_on=[results.answer], **PRIVATE
        )
        done.then(lambda: [gr.Button(interactive=True)] * 2, None, [blend, rank], show_progress="hidden", **PRIVATE)
    return results


def _pasting() -> tuple[gr.Textbox, gr.Button]:
    with gr.Accordion("Paste several candidates at once", open=False):
        pasted = gr.Textbox(
            label="Candidates", info="A line of --- separates them", lines=5, max_lines=12, elem_id="pasted"
        )
        return pasted, gr.Button("Use these candidates", size="sm", elem_id="paste")


def _remover(rows: CandidateRows, index: int) -> Any:
    def remove(*values: Any) -> list[Any]:
        candidates = rows.read(values)
        return rows.show([candidate for place, candidate in enumerate(candidates) if place != index])

    return remove


@dataclass(frozen=True)
class _Request:
    """What a visitor asks for, checked."""

    fields: tuple[str, str, str]
    item: Item
    ranking: RankingSettings
    fusion: FusionSettings
    ranker: str
    fuser: str


def _request(service: Service, rows: CandidateRows, values: tuple[Any, ...]) -> _Request:
    prompt, system, turns, ranker, schedule, aggregation, top_k, tie, fuser, tokens, beams, *row_values = values
    fields = (prompt or "", system or "", turns or "")
    candidates = rows.read(row_values)
    chosen = candidates_of_rows([c.model for c in candidates], [c.text for c in candidates])
    item = service.item(make_prompt(*fields), chosen)
    settings = RankingSettings(schedule, aggregation, int(top_k), tie)
    return _Request(fields, item, settings, FusionSettings(int(tokens), int(beams)), ranker, fuser)


def _events(
    service: Service,
    rows: CandidateRows,
    results: Results,
    folded: gr.Accordion,
    buttons: tuple[gr.Button, gr.Button],
    fuse: bool,
) -> tuple[Callable[..., Updates], Callable[..., Iterator[Updates]]]:
    """Return what a button does: first, with everything checked, make room for the results, then bring them."""

    def begin(*values: Any) -> Updates:
        with plain_errors():
            request = _request(service, rows, values)
        waiting = results.cleared(markup.working_html(len(request.item.candidates)))
        return {**waiting, folded: gr.Accordion(open=False), **dict.fromkeys(buttons, gr.Button(interactive=False))}

    def run(*values: Any) -> Iterator[Updates]:
        try:
            yield from _steps(service, results, _request(service, rows, values), fuse)
        except Exception as error:  # shown in place of the answer, so that what follows goes on
            yield results.cleared(markup.note_html("No answer", plain_reason(error)))

    return begin, run


def _steps(service: Service, results: Results, request: _Request, fuse: bool) -> Iterator[Updates]:
    """Yield the updates of the results: the ranking first, then the fused text as it is written, then the answer."""
    item, settings = request.item, request.ranking
    ranking = service.rank(item, settings, request.ranker)
    ranked = results.ranked_as(Ranked(request.fields, ranking), settings.tie_threshold)
    if not fuse:
        yield ranked | results.answered(ranking, None)
        return
    yield ranked | results.writing("")
    try:
        for step in service.iter_fuse(item, ranking, settings, request.fusion, request.ranker, request.fuser):
            if isinstance(step, Fused):
                yield results.answered(ranking, step)
            else:
                yield results.writing(step)
    except BlenderError as error:  # the ranking stands
        yield results.answered(ranking, None, f"Not fused: {error}.")


def _small_answers(service: Service, rows: CandidateRows, prompt: PromptFields) -> None:
    """Arrange the candidates that the bundled language model writes."""
    with gr.Accordion("Let a small model answer", open=False):
        gr.Markdown("A model of 135 million parameters runs here. It answers three times: fluently, and often wrongly.")
        tokens = gr.Slider(32, 512, 128, step=32, label="Most tokens of an answer")
        write = gr.Button("Add its answers", size="sm", elem_id="small")

    def answer(text: str, system: str, turns: str, most: int, *row_values: Any) -> list[Any]:
        with plain_errors():
            written = service.small_answers(make_prompt(text or "", system or "", turns or ""), int(most))
            return rows.show([*(c for c in rows.read(row_values) if c.text.strip()), *written])

    write.click(answer, [*prompt.values, tokens, *rows.values], rows.outputs, concurrency_limit=1, **PRIVATE)


def _generation(rows: CandidateRows, prompt: PromptFields, public: bool) -> None:
    """Arrange the candidates that are written by language models."""
    with gr.Accordion("Let language models answer", open=False):
        models = gr.Textbox(
            label="Language models",
            info="Ids with commas between them, up to six",
            placeholder="meta-llama/Llama-3.1-8B-Instruct, Qwen/Qwen3-8B",
            elem_id="models",
        )
        with gr.Row():
            base_url = gr.Textbox(
                label="Endpoint",
                info="Empty for Hugging Face Inference Providers",
                placeholder="http://localhost:8000/v1",
                elem_id="endpoint",
            )
            token = gr.Textbox(
                label="Token", info="Sent to that endpoint, kept nowhere", type="password", elem_id="token"
            )
        tokens = gr.Slider(32, DEFAULT_LIMITS.new_tokens, 384, step=32, label="Most tokens of an answer")
        generate = gr.Button("Add their answers", size="sm", elem_id="generate")

    def answer(*values: Any) -> Iterator[list[Any]]:
        with plain_errors():
            text, system, turns, names, url, secret, most, *row_values = values
            candidates = [c for c in rows.read(row_values) if c.text.strip()]
            asked = answer_models(names or "")
            client = make_client(url or "", secret or "", public=public)
            messages = make_prompt(text or "", system or "", turns or "")
            for found in iter_answers(client, messages, asked, int(most)):
                if isinstance(found, Failure):
                    gr.Warning(escape(f"{found.model}: {found.reason}", quote=False))
                    continue
                candidates.append(found)
                yield rows.show(candidates)

    generate.click(answer, [*prompt.values, models, base_url, token, tokens, *rows.values], rows.outputs, **PRIVATE)
