"""The tab that ranks the answers to many prompts: a leaderboard of their models, and the ranking of each prompt."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blender_hf.data.columns import Columns
from blender_hf.data.examples import MODEL_ANSWERS
from blender_hf.data.files import SUFFIXES
from blender_hf.data.records import Record
from blender_hf.errors import BlenderError, InputError
from blender_hf.space import markup
from blender_hf.space.batches import read_data_set, read_upload
from blender_hf.space.browsing import ANY_MODEL, ORDERS, RankedBatch, RankedPrompt
from blender_hf.space.fused import Fused
from blender_hf.space.leaderboard import leaderboard
from blender_hf.space.service import Service, as_json_lines
from blender_hf.space.settings import FusionSettings, RankingSettings

from .events import PRIVATE, gr, plain_errors
from .inputs import SettingsPanel


def batch_tab(service: Service, settings: SettingsPanel) -> None:
    """Arrange the tab."""
    gr.HTML(
        markup.note_html(
            "Which language model is best?",
            "Upload JSON lines with prompt and candidates, or a CSV with prompt, model and answer (or a column for each"
            f" model), or name a data set on the Hub: up to {service.limits.prompts} prompts.",
        )
    )
    # Without `file_types`, which would refuse a file before `read_upload` can say why.
    upload = gr.File(label=f"A file: {', '.join(SUFFIXES)}", height=140, elem_id="upload")
    status = gr.HTML(elem_id="batch-status")
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
    batch = gr.State(None)
    results = [status, board, downloads, batch]

    def check(path: str | None) -> list[Any]:
        with plain_errors():
            return [_file_status(service, path), "", None, None]

    def rank(path: str | None, name: str, part: str, *values: Any) -> Iterator[list[Any]]:
        with plain_errors():
            try:
                columns = Columns()
                records = _read(service, path, name, part, columns)
                yield from _ranking_steps(service, records, columns, *values)
            except BlenderError as error:  # a message that stays, unlike Gradio's
                yield [markup.error_html(str(error)), "", None, None]

    # Results never stand beside a file that they are not of.
    upload.change(check, upload, results, show_progress="hidden", **PRIVATE)
    sample.click(lambda: str(MODEL_ANSWERS), None, upload, **PRIVATE)
    run.click(
        rank,
        [upload, data_set, split, *settings.ranking],
        results,
        concurrency_limit=1,
        concurrency_id="batch",
        show_progress="hidden",
        **PRIVATE,
    )
    _browser(service, settings, batch)


def _read(
    service: Service, path: str | None, data_set: str | None, split: str | None, columns: Columns
) -> list[Record]:
    if path:
        return read_upload(path, service.limits, columns)
    if data_set and data_set.strip():
        return read_data_set(data_set, split, service.limits, columns)
    raise InputError("choose a file, name a data set, or take the example file")


def _file_status(service: Service, path: str | None) -> str:
    """Return what is in an uploaded file, or what is wrong with it."""
    if not path:
        return ""
    try:
        columns = Columns()
        records = read_upload(path, service.limits, columns)
    except BlenderError as error:
        return markup.error_html(str(error))
    return markup.contents_html(Path(path).name, records, columns.unread)


def _ranking_steps(service: Service, records: list[Record], columns: Columns, *values: Any) -> Iterator[list[Any]]:
    """Yield the updates of a batch: its progress, then the leaderboard, the two files and the rankings."""
    ranker, schedule, aggregation, top_k, tie = values
    settings = RankingSettings(schedule, aggregation, int(top_k), tie)
    rankings = []
    yield [gr.skip(), markup.progress_html(0, len(records)), None, None]
    for ranking in service.iter_rank(records, settings, ranker):
        rankings.append(ranking)
        yield [gr.skip(), markup.progress_html(len(rankings), len(records)), gr.skip(), gr.skip()]
    result = service.batch_result(records, rankings, tie)
    shown = markup.leaderboard_html(leaderboard(rankings, tie), rankings, columns.unread)
    ranked = RankedBatch(tuple(map(RankedPrompt, records, rankings)), settings, ranker)
    # Gradio takes its own copy of what is yielded.
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.jsonl" for name in ("ranked", "preferences")]
        for file in paths:
            file.write_text(as_json_lines(result[file.stem]), encoding="utf-8")
        yield ["", shown, [str(file) for file in paths], ranked]


def _browser(service: Service, settings: SettingsPanel, batch: gr.State) -> None:
    """Arrange the ranked answers of each prompt, with a list of the prompts to choose from."""
    with gr.Column(visible=False, elem_id="browser") as browser:
        gr.HTML(markup.note_html("Ranked answers", "Choose a prompt to see its answers, the best first."))
        with gr.Row():
            search = gr.Textbox(
                label="Search", placeholder="Words of a prompt, an answer or a model", max_lines=1, elem_id="search"
            )
            winner = gr.Dropdown([ANY_MODEL], value=ANY_MODEL, label="Best answer by", elem_id="winner")
            order = gr.Dropdown(list(ORDERS), label="Order", filterable=False, elem_id="order")
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                picked = gr.Radio([], label="Prompts", elem_id="prompts")
            with gr.Column(scale=6, min_width=320):
                answers = gr.HTML(elem_id="answers")
                fuse = gr.Button("Fuse the best answers", size="sm", elem_id="fuse-picked")
                fused = gr.HTML(elem_id="fused-picked")

    def open_browser(ranked: RankedBatch | None) -> list[Any]:
        if ranked is None:
            return [gr.Column(visible=False), "", gr.Dropdown(), gr.Radio([], value=None)]
        models = gr.Dropdown(ranked.winners, value=ANY_MODEL)
        return [gr.Column(visible=True), "", models, _prompts(ranked, list(range(len(ranked.prompts))))]

    def narrow(ranked: RankedBatch | None, *chosen: str) -> Any:
        return _prompts(ranked, ranked.find(*chosen)) if ranked else gr.skip()

    def show(ranked: RankedBatch | None, index: int | None) -> list[str]:
        if ranked is None:
            return ["", ""]
        if index is None:
            return [markup.note_html("Nothing found", "No prompt with its answers has these words."), ""]
        prompt = ranked.prompts[index]
        ranking = markup.ranking_html(prompt.ranking, ranked.settings.tie_threshold)
        return [markup.prompt_html(prompt.record.item.source) + ranking, ""]

    def write(ranked: RankedBatch, index: int | None, fuser: str, tokens: float, beams: float) -> Iterator[str]:
        if index is None:
            return
        prompt, writing = ranked.prompts[index], FusionSettings(int(tokens), int(beams))
        with plain_errors():
            try:
                item, ranking = prompt.record.item, prompt.ranking
                for step in service.iter_fuse(item, ranking, ranked.settings, writing, ranked.ranker, fuser):
                    yield markup.answer_html(ranking, step) if isinstance(step, Fused) else markup.writing_html(step)
            except BlenderError as error:
                yield markup.error_html(str(error))

    batch.change(open_browser, batch, [browser, search, winner, picked], show_progress="hidden", **PRIVATE)
    # Not `search.input`, of which Gradio 6.31 drops the first after the box has been shown.
    for event in (search.change, winner.input, order.input):
        event(narrow, [batch, search, winner, order], picked, show_progress="hidden", **PRIVATE)
    picked.change(show, [batch, picked], [answers, fused], show_progress="hidden", **PRIVATE)
    fuse.click(write, [batch, picked, *settings.fusion], fused, show_progress_on=[fused], **PRIVATE)


def _prompts(ranked: RankedBatch, indices: list[int]) -> Any:
    label = f"Prompts: {len(indices)} of {len(ranked.prompts)}"
    return gr.Radio(ranked.choices(indices), value=indices[0] if indices else None, label=label)
