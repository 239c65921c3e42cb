"""The tab that ranks the candidates of a prompt and fuses the best."""

from collections.abc import Iterator
from html import escape
from typing import Any

from blender_hf.errors import BlenderError
from blender_hf.inputs import Candidate
from blender_hf.space import markup
from blender_hf.space.answers import Failure, answer_models, iter_answers, make_client
from blender_hf.space.fused import Fused
from blender_hf.space.prompts import FIRST_EXAMPLE, candidates_of_rows, examples, make_prompt, split_candidates
from blender_hf.space.service import Service
from blender_hf.space.settings import DEFAULT_LIMITS, FusionSettings, RankingSettings

from .events import COPY, PRIVATE, gr, plain_errors
from .inputs import CandidateRows, SettingsPanel


def blend_tab(service: Service, settings: SettingsPanel, public: bool) -> None:
    """Arrange the tab; `public` is that of `build_app`."""
    first = examples()[FIRST_EXAMPLE].item
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            example = gr.Dropdown(list(examples()), value=FIRST_EXAMPLE, label="Example", elem_id="example")
            prompt = gr.Textbox(first.source, label="Prompt", lines=2, max_lines=8, elem_id="prompt")
            with gr.Accordion("System message and earlier turns", open=False):
                system = gr.Textbox(label="System message", lines=1, max_lines=4)
                turns = gr.Textbox(
                    label="Earlier turns", lines=3, max_lines=8, placeholder="User: 2 + 2?\nAssistant: 4"
                )
            with gr.Row():
                blend = gr.Button("Blend", variant="primary", elem_id="blend")
                rank = gr.Button("Rank only", elem_id="rank")
            rows = CandidateRows(service.limits.candidates, first.candidates)
            with gr.Row():
                add = gr.Button("Add a candidate", size="sm", elem_id="add")
                clear = gr.Button("Clear all", size="sm", elem_id="clear")
            with gr.Accordion("Paste several candidates at once", open=False):
                pasted = gr.Textbox(
                    label="Candidates", info="A line of --- separates them", lines=5, max_lines=12, elem_id="pasted"
                )
                paste = gr.Button("Use these candidates", size="sm", elem_id="paste")
            _small_answers(service, rows, [prompt, system, turns])
            _generation(rows, [prompt, system, turns], public)
        with gr.Column(scale=6, min_width=320):
            ranking = gr.HTML(markup.note_html("Ranking", "Press Blend to rank the candidates."), elem_id="ranking")
            heat = gr.HTML(elem_id="heat")
            fused = gr.HTML(elem_id="fused")
            text = gr.Textbox(visible="hidden", elem_id="fused-text")
            copy = gr.Button("Copy the fused answer", size="sm", visible=False, elem_id="copy")

    def load(title: str) -> list[Any]:
        item = examples()[title].item
        return [item.prompt, "", "", *rows.show(item.candidates)]

    def steps(fuse: bool, *values: Any) -> Iterator[list[Any]]:
        with plain_errors():
            yield from _blend_steps(service, rows, fuse, *values)

    def rank_and_fuse(*values: Any) -> Iterator[list[Any]]:
        yield from steps(True, *values)

    def only_rank(*values: Any) -> Iterator[list[Any]]:
        yield from steps(False, *values)

    shown, row_values = [ranking, heat, fused, text], [rows.values, rows.outputs]
    example.input(load, example, [prompt, system, turns, *row_values[1]], **PRIVATE)
    add.click(lambda *values: rows.show([*rows.read(values), Candidate("")]), row_values[0], row_values[1], **PRIVATE)
    clear.click(lambda: ["", "", "", *rows.show([])], None, [prompt, system, turns, *row_values[1]], **PRIVATE)
    paste.click(lambda new: [*rows.show(split_candidates(new or "")), ""], pasted, [*row_values[1], pasted], **PRIVATE)
    for index, remover in enumerate(rows.removers):
        remover.click(_remover(rows, index), row_values[0], row_values[1], **PRIVATE)
    inputs = [prompt, system, turns, *settings.ranking, *settings.fusion, *rows.values]
    for button, run in ((blend, rank_and_fuse), (rank, only_rank)):
        button.click(run, inputs, shown, show_progress_on=[ranking], scroll_to_output=True, **PRIVATE)
    # Not a step of what is streamed: Gradio sends only what changes in it, and now and then a page missed that.
    text.change(lambda value: gr.Button(visible=bool(value)), text, copy, show_progress="hidden", **PRIVATE)
    copy.click(None, text, None, js=COPY, **PRIVATE)


def _remover(rows: CandidateRows, index: int) -> Any:
    def remove(*values: Any) -> list[Any]:
        candidates = rows.read(values)
        return rows.show([candidate for place, candidate in enumerate(candidates) if place != index])

    return remove


def _blend_steps(service: Service, rows: CandidateRows, fuse: bool, *values: Any) -> Iterator[list[Any]]:
    """Yield the updates of the results: the ranking first, then the fused text as it is written."""
    prompt, system, turns, ranker, schedule, aggregation, top_k, tie, fuser, tokens, beams, *row_values = values
    candidates = rows.read(row_values)
    chosen = candidates_of_rows([c.model for c in candidates], [c.text for c in candidates])
    item = service.item(make_prompt(prompt or "", system or "", turns or ""), chosen)
    settings = RankingSettings(schedule, aggregation, int(top_k), tie)
    writing = FusionSettings(int(tokens), int(beams))
    ranking = service.rank(item, settings, ranker)
    shown = [markup.ranking_html(ranking, tie), markup.heat_map_html(ranking)]
    yield [*shown, markup.writing_html("") if fuse else "", ""]
    if not fuse:
        return
    try:
        for step in service.iter_fuse(item, ranking, settings, writing, ranker, fuser):
            if isinstance(step, Fused):
                yield [gr.skip(), gr.skip(), markup.fused_html(step, ranking), step.text]
            else:
                yield [gr.skip(), gr.skip(), markup.writing_html(step), ""]
    except BlenderError as error:  # the ranking stands
        yield [gr.skip(), gr.skip(), markup.note_html("Fused answer", str(error)), ""]


def _small_answers(service: Service, rows: CandidateRows, prompt_fields: list[Any]) -> None:
    """Arrange the candidates that the bundled language model writes."""
    with gr.Accordion("Let a small model answer", open=False):
        gr.Markdown("A model of 135 million parameters runs here. It answers three times: fluently, and often wrongly.")
        tokens = gr.Slider(32, 512, 128, step=32, label="Most tokens of an answer")
        write = gr.Button("Add its answers", size="sm", elem_id="small")

    def answer(prompt: str, system: str, turns: str, most: int, *row_values: Any) -> list[Any]:
        with plain_errors():
            written = service.small_answers(make_prompt(prompt or "", system or "", turns or ""), int(most))
            return rows.show([*(c for c in rows.read(row_values) if c.text.strip()), *written])

    write.click(answer, [*prompt_fields, tokens, *rows.values], rows.outputs, concurrency_limit=1, **PRIVATE)


def _generation(rows: CandidateRows, prompt_fields: list[Any], public: bool) -> None:
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
            prompt, system, turns, names, url, secret, most, *row_values = values
            candidates = [c for c in rows.read(row_values) if c.text.strip()]
            asked = answer_models(names or "")
            client = make_client(url or "", secret or "", public=public)
            messages = make_prompt(prompt or "", system or "", turns or "")
            for found in iter_answers(client, messages, asked, int(most)):
                if isinstance(found, Failure):
                    gr.Warning(escape(f"{found.model}: {found.reason}", quote=False))
                    continue
                candidates.append(found)
                yield rows.show(candidates)

    generate.click(answer, [*prompt_fields, models, base_url, token, tokens, *rows.values], rows.outputs, **PRIVATE)
