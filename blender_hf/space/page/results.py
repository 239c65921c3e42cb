"""The results of the Blend tab: the answer first, then the ranking, then who beats whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blender_hf.engine.results import Ranking
from blender_hf.space import markup
from blender_hf.space.fused import Fused

from .events import COPY, PRIVATE, gr

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Ranked:
    """What was ranked: the fields of its prompt, and the ranking."""

    fields: tuple[str, str, str]
    ranking: Ranking


class Results:
    """The results as components. What returns `Updates` says what an event yields."""

    def __init__(self) -> None:
        self.stale = gr.HTML(elem_classes="bh-changed")
        self.answer = gr.HTML(markup.intro_html(), elem_id="answer")
        self.text = gr.Textbox(visible="hidden", elem_id="answer-text")
        self.copy = gr.Button("Copy the answer", size="sm", visible=False, elem_id="copy")
        self.ranking = gr.HTML(elem_id="ranking")
        self.heat = gr.HTML(elem_id="heat")
        self.ranked = gr.State()
        with gr.Row(visible=False, equal_height=True, elem_id="pair") as self.pair:
            self.first = gr.Dropdown([], label="One candidate", filterable=False, min_width=140, elem_id="pair-first")
            self.second = gr.Dropdown([], label="Another", filterable=False, min_width=140, elem_id="pair-second")
            self.compare = gr.Button("Compare these two", scale=0, min_width=210, elem_id="compare-pair")
        # Not steps of what is streamed: Gradio sends only what changes in it, and now and then a page missed that.
        hidden: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        self.text.change(lambda value: gr.Button(visible=bool(value)), self.text, self.copy, **hidden)
        self.ranked.change(_pair, self.ranked, [self.pair, self.first, self.second], **hidden)
        self.copy.click(None, self.text, None, js=COPY, **PRIVATE)

    @property
    def outputs(self) -> list[Any]:
        """What the updates change."""
        return [self.stale, self.answer, self.text, self.ranking, self.heat, self.ranked]

    def cleared(self, answer: str = "") -> Updates:
        """Return the updates that clear all results, and show something else in place of the answer."""
        return dict.fromkeys(self.outputs, "") | {self.answer: answer or markup.intro_html(), self.ranked: None}

    def writing(self, text: str) -> Updates:
        """Return the updates that show a fused text while it is written."""
        return {self.answer: markup.writing_html(text)}

    def ranked_as(self, ranked: Ranked, tie_threshold: float) -> Updates:
        """Return the updates that show a ranking."""
        return {
            self.ranking: markup.ranking_html(ranked.ranking, tie_threshold),
            self.heat: markup.heat_map_html(ranked.ranking),
            self.ranked: ranked,
        }

    def answered(self, ranking: Ranking, fused: Fused | None, note: str = "") -> Updates:
        """Return the updates that show the answer; `note` says why nothing was fused."""
        text = fused.text if fused is not None and fused.kept else ranking.best
        return {self.answer: markup.answer_html(ranking, fused, note), self.text: text}


def _pair(ranked: Ranked | None) -> list[Any]:
    """Return the updates of the choice of two candidates: the best two, where there are results."""
    if ranked is None:
        return [gr.Row(visible=False), gr.skip(), gr.skip()]
    ranking = ranked.ranking
    names: Mapping[str, int] = {
        f"{chr(ord('A') + index)} · {markup.candidate_name(ranking, index)}": index for index in ranking.order
    }
    best, second = ranking.order[:2]
    choices = list(names.items())
    return [gr.Row(visible=True), gr.Dropdown(choices, value=best), gr.Dropdown(choices, value=second)]
