"""The Space: see the ranking, see why, see the fusion. `python app.py` runs it on the bundled checkpoints.

The page only arranges the functions of `blender_hf.space`, which know nothing of Gradio.
"""

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from blender_hf.data.columns import Columns
from blender_hf.data.files import SUFFIXES
from blender_hf.data.records import Record
from blender_hf.engine.aggregation import AGGREGATIONS
from blender_hf.engine.schedules import SCHEDULES
from blender_hf.errors import BlenderError, require
from blender_hf.inputs import Candidate
from blender_hf.loading.checkpoints import DEFAULT_FUSER, DEFAULT_RANKER
from blender_hf.space import markup
from blender_hf.space.answers import Failure, answer_models, iter_answers, make_client, on_space
from blender_hf.space.batches import read_data_set, read_upload
from blender_hf.space.fused import Fused, blend_fields
from blender_hf.space.leaderboard import leaderboard
from blender_hf.space.models import Models
from blender_hf.space.prompts import candidates_of_rows, examples, make_prompt, split_candidates
from blender_hf.space.service import Service, as_json_lines
from blender_hf.space.settings import DEFAULT_LIMITS, FusionSettings, Limits, RankingSettings

require("gradio", "space", "the page")
import gradio as gr  # noqa: E402

logger = logging.getLogger(__name__)

ScheduleName = Literal["full", "bubble", "knockout", "adaptive"]
AggregationName = Literal["max_logits", "max_wins", "bradley_terry", "copeland"]
# What the page begins with; its answers are short.
FIRST_EXAMPLE = "How would you introduce yourself as a medieval knight at a royal banquet?"
EXAMPLE_FILE = files("blender_hf") / "examples" / "smoke.jsonl"
FONT = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
# The clipboard of browsers exists only on https and on this machine; elsewhere the old way works.
COPY = """(text) => {
    if (navigator.clipboard) { navigator.clipboard.writeText(text); return; }
    const area = Object.assign(document.createElement("textarea"), {value: text});
    document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
}"""
TITLE = """<div class="bh bh-title"><h1>LLM-Blender</h1><p>Several language models answer; a ranker reads the answers
two by two and puts them in order; a fuser writes one answer from the best.</p></div>"""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show errors in plain words. Gradio renders messages as HTML, so they are escaped."""
    try:
        yield
    except BlenderError as error:
        raise gr.Error(escape(str(error), quote=False), print_exception=False) from None
    except gr.Error:
        raise
    except Exception as error:
        logger.exception("a request failed")
        raise gr.Error("Something went wrong on this side; the log says what.", print_exception=False) from error


class Settings:
    """The settings that all tabs share, as components and as what they mean."""

    def __init__(self, models: Models) -> None:
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            with gr.Row():
                self.ranker = gr.Dropdown(list(models.rankers), label="Ranker", filterable=False)
                self.schedule = gr.Dropdown(
                    list(SCHEDULES), label="Schedule", info="Which pairs are compared", filterable=False
                )
                self.aggregation = gr.Dropdown(
                    list(AGGREGATIONS), label="Aggregation", info="How comparisons become scores", filterable=False
                )
                self.tie_threshold = gr.Slider(
                    0, 0.25, 0.02, step=0.01, label="Tie threshold", info="How close to 50 % is a tie"
                )
            with gr.Row():
                self.fuser = gr.Dropdown(list(models.fusers), label="Fuser", filterable=False)
                self.top_k = gr.Slider(2, 8, 3, step=1, label="Top K", info="How many of the best are fused")
                most = FusionSettings.max_new_tokens
                self.max_new_tokens = gr.Slider(16, 1024, most, step=16, label="Most new tokens", info="Of the fuser")
                self.num_beams = gr.Slider(1, 8, 1, step=1, label="Beams", info="With 1 the text is streamed")

    @property
    def ranking(self) -> list[gr.components.Component]:
        """The components that `ranking_settings` takes, after the ranker's."""
        return [self.ranker, self.schedule, self.aggregation, self.top_k, self.tie_threshold]

    @property
    def fusion(self) -> list[gr.components.Component]:
        """The components of the fuser."""
        return [self.fuser, self.max_new_tokens, self.num_beams]


class Rows:
    """The candidates: as many rows as may be ranked, of which the first few are seen."""

    def __init__(self, n: int, shown: Sequence[Candidate]) -> None:
        self.count = gr.State(max(len(shown), 2))
        self.boxes: list[gr.Column] = []
        self.names: list[gr.Textbox] = []
        self.texts: list[gr.Textbox] = []
        self.removers: list[gr.Button] = []
        filled = [*shown, *[Candidate("")] * (n - len(shown))]
        for index, candidate in enumerate(filled):
            self._add(index, candidate, visible=index < max(len(shown), 2))

    def _add(self, index: int, candidate: Candidate, visible: bool) -> None:
        letter = chr(ord("A") + index)
        classes = ["bh-candidate", f"bh-c{index % markup.N_COLOURS}"]
        with gr.Column(visible=visible, elem_classes=classes, elem_id=f"candidate-{index}", variant="panel") as box:
            with gr.Row(equal_height=True, elem_classes="bh-candidate-head"):
                name = gr.Textbox(
                    candidate.model or "",
                    label=f"Model of candidate {letter}",
                    show_label=False,
                    container=False,
                    placeholder=f"{letter} · name of the model (optional)",
                    max_length=100,
                    scale=4,
                    min_width=100,
                )
                remover = gr.Button(f"Remove {letter}", size="sm", scale=1, min_width=90, variant="secondary")
            text = gr.Textbox(
                candidate.text,
                label=f"Candidate {letter}",
                show_label=False,
                container=False,
                lines=2,
                max_lines=4,
                placeholder="An answer to the prompt",
                elem_id=f"text-{index}",
            )
        self.boxes.append(box)
        self.names.append(name)
        self.texts.append(text)
        self.removers.append(remover)

    @property
    def values(self) -> list[gr.components.Component]:
        """All inputs: how many rows are seen, the names, the texts."""
        return [self.count, *self.names, *self.texts]

    @property
    def outputs(self) -> list[Any]:
        """What `show` changes."""
        return [*self.values, *self.boxes]

    def read(self, values: Sequence[Any]) -> list[Candidate]:
        """Return the rows that are seen, empty ones too, from the values of `values`."""
        count, n = values[0], len(self.names)
        return [Candidate(values[1 + n + i] or "", values[1 + i] or None) for i in range(count)]

    def show(self, candidates: Sequence[Candidate]) -> list[Any]:
        """Return the updates of `outputs` that show these candidates, at least two rows."""
        n = len(self.names)
        if len(candidates) > n:
            raise gr.Error(f"At most {n} candidates are ranked here.", print_exception=False)
        count = max(len(candidates), 2)
        filled = [*candidates, *[Candidate("")] * (n - len(candidates))]
        names, texts = [c.model or "" for c in filled], [c.text for c in filled]
        return [count, *names, *texts, *(gr.Column(visible=index < count) for index in range(n))]


def build_app(
    rankers: Sequence[str] = (DEFAULT_RANKER,),
    fusers: Sequence[str] = (DEFAULT_FUSER,),
    *,
    limits: Limits = DEFAULT_LIMITS,
    public: bool | None = None,
) -> gr.Blocks:
    """Build the page. No model is loaded before it is needed.

    Args:
        rankers: Names, folders or Hub ids of the rankers that may be chosen, the default first.
        fusers: The same of the fusers.
        limits: The largest request that is served.
        public: Whether visitors are strangers, who get neither this machine's token nor its network; None finds out.

    Returns:
        The page; launch it with `launch_options()`.
    """
    service = Service(Models(rankers, fusers), limits)
    public = on_space() if public is None else public
    with gr.Blocks(title="LLM-Blender", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        _endpoints(service)  # the first to take their names, which the page's own events would take otherwise
        gr.HTML(TITLE)
        settings = Settings(service.models)
        with gr.Tab("Blend", id="blend"):
            _blend_tab(service, settings, public)
        with gr.Tab("Compare", id="compare"):
            _compare_tab(service, settings)
        with gr.Tab("Batch", id="batch"):
            _batch_tab(service, settings)
    return app.queue(max_size=64, default_concurrency_limit=4)


def launch_options() -> dict[str, Any]:
    """Return how the page is launched: its looks, and the MCP server where `gradio[mcp]` is installed."""
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=("ui-monospace", "monospace"), radius_size="lg"
    )
    style = (files("blender_hf.space") / "style.css").read_text(encoding="utf-8")
    return {
        "theme": theme,
        "css": style,
        "max_file_size": DEFAULT_LIMITS.file_bytes,
        "mcp_server": find_spec("mcp") is not None,
        "footer_links": ["api", "settings"],
    }


def _blend_tab(service: Service, settings: Settings, public: bool) -> None:
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
            rows = Rows(service.limits.candidates, first.candidates)
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


def _remover(rows: Rows, index: int) -> Any:
    def remove(*values: Any) -> list[Any]:
        candidates = rows.read(values)
        return rows.show([candidate for place, candidate in enumerate(candidates) if place != index])

    return remove


def _blend_steps(service: Service, rows: Rows, fuse: bool, *values: Any) -> Iterator[list[Any]]:
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


def _small_answers(service: Service, rows: Rows, prompt_fields: list[Any]) -> None:
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


def _generation(rows: Rows, prompt_fields: list[Any], public: bool) -> None:
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


def _compare_tab(service: Service, settings: Settings) -> None:
    first = examples()[FIRST_EXAMPLE].item
    prompt = gr.Textbox(first.source, label="Prompt", lines=2, max_lines=8, elem_id="compare-prompt")
    with gr.Row():
        a = gr.Textbox(first.texts[0], label="Answer A", lines=6, max_lines=14, elem_id="answer-a", min_width=300)
        b = gr.Textbox(first.texts[1], label="Answer B", lines=6, max_lines=14, elem_id="answer-b", min_width=300)
    with gr.Row():
        run = gr.Button("Compare", variant="primary", elem_id="compare")
        swap = gr.Button("Swap A and B", elem_id="swap")
    result = gr.HTML(elem_id="comparison")

    def compare(text: str, one: str, other: str, ranker: str, tie: float) -> str:
        with plain_errors():
            found = service.compare(make_prompt(text or ""), one or "", other or "", tie, ranker)
            return markup.comparison_html(found)

    run.click(compare, [prompt, a, b, settings.ranker, settings.tie_threshold], result, **PRIVATE)
    swap.click(lambda one, other: (other, one, ""), [a, b], [a, b, result], **PRIVATE)


def _batch_tab(service: Service, settings: Settings) -> None:
    gr.HTML(
        markup.note_html(
            "Which language model is best?",
            "Upload JSON lines with prompt and candidates, or a CSV with prompt, model and answer (or a column for each"
            f" model), or name a data set on the Hub: up to {service.limits.prompts} prompts.",
        )
    )
    upload = gr.File(label="JSON Lines, JSON, CSV, Parquet", file_types=[*SUFFIXES], height=140, elem_id="upload")
    with gr.Row():
        data_set = gr.Textbox(label="Or a data set on the Hub", placeholder="org/name", max_lines=1, elem_id="data-set")
        split = gr.Textbox(label="Its split, if it has several", placeholder="train", max_lines=1, elem_id="split")
    with gr.Row():
        run = gr.Button("Rank the answers", variant="primary", elem_id="run-batch")
        sample = gr.Button("Take the example file", elem_id="sample")
    board = gr.HTML(elem_id="board")
    # A File that the style hides while it is empty: Gradio 6.17 (the newest for transformers 4) neither shows a file
    # that an event makes visible, nor survives a DownloadButton that gets its file.
    downloads = gr.File(label="Take home", interactive=False, elem_id="downloads")

    def rank(path: str | None, name: str, part: str, *values: Any) -> Iterator[list[Any]]:
        with plain_errors():
            if not path and not (name or "").strip():
                raise gr.Error("Choose a file or a data set, or take the example file.", print_exception=False)
            columns = Columns()
            if path:
                records = read_upload(path, service.limits, columns)
            else:
                records = read_data_set(name, part, service.limits, columns)
            yield from _batch_steps(service, records, columns.unread, *values)

    run.click(
        rank,
        [upload, data_set, split, *settings.ranking],
        [board, downloads],
        concurrency_limit=1,
        concurrency_id="batch",
        show_progress="hidden",
        **PRIVATE,
    )
    sample.click(lambda: str(EXAMPLE_FILE), None, upload, **PRIVATE)


def _batch_steps(
    service: Service, records: Sequence[Record], left_out: Iterable[str], *values: Any
) -> Iterator[list[Any]]:
    """Yield the updates of a batch: its progress, then the leaderboard and the two files."""
    ranker, schedule, aggregation, top_k, tie = values
    settings = RankingSettings(schedule, aggregation, int(top_k), tie)
    rankings = []
    yield [markup.progress_html(0, len(records)), gr.File(None)]
    for ranking in service.iter_rank(records, settings, ranker):
        rankings.append(ranking)
        yield [markup.progress_html(len(rankings), len(records)), gr.skip()]
    result = service.batch_result(records, rankings, tie)
    shown = markup.leaderboard_html(leaderboard(rankings, tie), rankings, left_out)
    # Gradio takes its own copy of what is yielded.
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.jsonl" for name in ("ranked", "preferences")]
        for file in paths:
            file.write_text(as_json_lines(result[file.stem]), encoding="utf-8")
        yield [shown, gr.File([str(file) for file in paths])]


def _endpoints(service: Service) -> None:
    """Name the endpoints for programs; with MCP, each is a tool that is described by its docstring."""

    def rank(
        prompt: str,
        candidates: list[str],
        system: str = "",
        turns: str = "",
        schedule: ScheduleName = "full",
        aggregation: AggregationName = "max_logits",
        ranker: str = "",
    ) -> dict:
        """Rank candidate answers to a prompt by comparing them two by two.

        Args:
            prompt: What was asked.
            candidates: The answers.
            system: The system message, or nothing.
            turns: Earlier turns, each beginning with User: or Assistant: on its own line, or nothing.
            schedule: Which pairs are compared.
            aggregation: How comparisons become scores.
            ranker: The checkpoint, one of those that the page offers; empty for the default.

        Returns:
            order (indices, the best first), ranks (1 is the best), scores (higher is better), comparisons, best.
        """
        with plain_errors():
            item = service.item(make_prompt(prompt, system, turns), candidates)
            settings = RankingSettings.chosen(schedule=schedule, aggregation=aggregation)
            return service.rank(item, settings, ranker).to_dict()

    def compare(prompt: str, a: str, b: str, tie_threshold: float = 0.02, ranker: str = "") -> dict:
        """Compare two answers to a prompt in both orders of presentation.

        Args:
            prompt: What was asked.
            a: One answer.
            b: The other answer.
            tie_threshold: How far, 0 to 0.5, the probability may be from 0.5 and still be a tie.
            ranker: The checkpoint; empty for the default.

        Returns:
            preferred ("a", "b" or "tie"), probability that a is better, and the logits of both orders.
        """
        with plain_errors():
            return service.compare(make_prompt(prompt), a, b, tie_threshold, ranker).to_dict()

    def blend(
        prompt: str,
        candidates: list[str],
        system: str = "",
        turns: str = "",
        top_k: int = 3,
        max_new_tokens: int = FusionSettings.max_new_tokens,
        num_beams: int = 1,
        ranker: str = "",
        fuser: str = "",
    ) -> dict:
        """Rank candidate answers and fuse the best of them into one.

        Args:
            prompt: What was asked.
            candidates: The answers.
            system: The system message, or nothing.
            turns: Earlier turns, each beginning with User: or Assistant: on its own line, or nothing.
            top_k: How many of the best are fused.
            max_new_tokens: Most tokens that are written.
            num_beams: Beams of the search.
            ranker: The checkpoint of the ranker; empty for the default.
            fuser: The checkpoint of the fuser; empty for the default.

        Returns:
            ranking, fused (null where no two candidates differ), fused_from (indices), output (the fused text if the
            ranker prefers it, however little, else the best candidate) and returned ("fused" or "best").
        """
        with plain_errors():
            item = service.item(make_prompt(prompt, system, turns), candidates)
            # As `Blender.blend` does, to which no win is too narrow.
            settings = RankingSettings.chosen(top_k=top_k, tie_threshold=0.0)
            writing = FusionSettings.chosen(max_new_tokens=max_new_tokens, num_beams=num_beams)
            ranking = service.rank(item, settings, ranker)
            return blend_fields(ranking, service.fuse(item, ranking, settings, writing, ranker, fuser))

    def batch(records: list[dict], tie_threshold: float = 0.02, ranker: str = "") -> dict:
        """Rank many prompts, and compare the language models that answered them.

        Args:
            records: Objects with prompt and candidates; a candidate is a text or an object with text and model.
            tie_threshold: How far, 0 to 0.5, a probability may be from 0.5 and still be a tie.
            ranker: The checkpoint; empty for the default.

        Returns:
            leaderboard (win rates and Bradley-Terry strengths with 95 % intervals), ranked (the records in order) and
            preferences (prompt, chosen, rejected).
        """
        with plain_errors():
            checked = service.records(records)
            settings = RankingSettings.chosen(tie_threshold=tie_threshold)
            rankings = list(service.iter_rank(checked, settings, ranker))
            return service.batch_result(checked, rankings, settings.tie_threshold)

    for endpoint in (rank, compare, blend):
        gr.api(endpoint, api_name=endpoint.__name__)
    gr.api(batch, api_name="batch", concurrency_limit=1, concurrency_id="batch")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the page."""
    parser = argparse.ArgumentParser(description="Run the page of LLM-Blender.")
    parser.add_argument(
        "--ranker", action="append", help="a ranker or a reward model to offer; repeat it for more, the default first"
    )
    parser.add_argument("--fuser", action="append", help="a fuser to offer; repeat it for more, the default first")
    parser.add_argument("--host", help="where to listen; Gradio's default is this machine alone")
    parser.add_argument("--port", type=int, help="which port; Gradio's default is the first free one from 7860")
    options = parser.parse_args(arguments)
    app = build_app(options.ranker or [DEFAULT_RANKER], options.fuser or [DEFAULT_FUSER])
    app.launch(server_name=options.host, server_port=options.port, **launch_options())


if __name__ == "__main__":
    main()
