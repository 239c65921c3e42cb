"""The tab that compares two answers in both orders of presentation."""

from blender_hf.space import markup
from blender_hf.space.prompts import FIRST_EXAMPLE, examples, make_prompt
from blender_hf.space.service import Service

from .events import PRIVATE, gr, plain_errors
from .inputs import SettingsPanel


def compare_tab(service: Service, settings: SettingsPanel) -> None:
    """Arrange the tab."""
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
