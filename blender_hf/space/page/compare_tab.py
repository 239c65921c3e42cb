"""The tab that compares two answers in both orders of presentation."""

from typing import Any

from blender_hf.space import markup
from blender_hf.space.prompts import FIRST_EXAMPLE, examples, make_prompt
from blender_hf.space.service import Service

from .events import PRIVATE, gr, mark_stale, plain_errors, scroll_to
from .inputs import PromptFields, SettingsPanel
from .results import Ranked, Results


def compare_tab(service: Service, settings: SettingsPanel, tabs: gr.Tabs, results: Results) -> None:
    """Arrange the tab, to which two candidates of the results may be sent; it is the one that is called "compare"."""
    first = examples()[FIRST_EXAMPLE].item
    prompt = PromptFields(first.source, "compare-prompt")
    with gr.Row():
        sides = [_side(letter, first.candidates[index].model, first.texts[index]) for index, letter in enumerate("AB")]
    names, texts = zip(*sides, strict=True)
    with gr.Row():
        run = gr.Button("Compare", variant="primary", elem_id="compare", min_width=120)
        swap = gr.Button("Swap A and B", elem_id="swap", min_width=120)
    with gr.Column(elem_classes="bh-results"):
        stale = gr.HTML(elem_classes="bh-changed")
        result = gr.HTML(elem_id="comparison")
    prompt.arrange_context()

    def compare(text: str, system: str, turns: str, a: str, b: str, *others: Any) -> list[str]:
        name_a, name_b, ranker, tie = others
        with plain_errors():
            found = service.compare(make_prompt(text or "", system or "", turns or ""), a or "", b or "", tie, ranker)
            return ["", markup.comparison_html(found, {"a": name_a, "b": name_b})]

    def send(ranked: Ranked, one: int, other: int) -> list[Any]:
        ranking = ranked.ranking
        if one == other:
            raise gr.Error("Choose two different candidates.", print_exception=False)
        chosen = (one, other)
        models = [markup.candidate_name(ranking, index) for index in chosen]
        return [gr.Tabs(selected="compare"), *ranked.fields, *models, *(ranking.candidates[index] for index in chosen)]

    inputs = [*prompt.values, *texts, *names, settings.ranker, settings.tie_threshold]
    compared = [run.click(compare, inputs, [stale, result], **PRIVATE)]
    both = [*names, *texts]
    swap.click(lambda a, b, one, other: [b, a, other, one, "", ""], both, [*both, stale, result], **PRIVATE)
    mark_stale(inputs, stale)
    pair = [results.ranked, results.first, results.second]
    sent = results.compare.click(send, pair, [tabs, *prompt.values, *names, *texts], **PRIVATE)
    compared.append(sent.success(compare, inputs, [stale, result], **PRIVATE))
    for done in compared:
        done.success(None, None, None, js=scroll_to("comparison"), **PRIVATE)


def _side(letter: str, model: str | None, text: str) -> tuple[gr.Textbox, gr.Textbox]:
    """Arrange the model and the text of an answer."""
    with gr.Column(min_width=300):
        name = gr.Textbox(
            model or "",
            label=f"Model of answer {letter}",
            show_label=False,
            container=False,
            placeholder=f"{letter} · name of the model (optional)",
            max_length=100,
        )
        answer = gr.Textbox(text, label=f"Answer {letter}", lines=6, max_lines=10, elem_id=f"answer-{letter.lower()}")
    return name, answer
