"""What visitors fill in, as components: the settings of all tabs, the prompt and the candidates."""

from collections.abc import Sequence
from typing import Any

from blender_hf.engine.aggregation import AGGREGATIONS
from blender_hf.engine.schedules import SCHEDULES
from blender_hf.inputs import Candidate
from blender_hf.space import markup
from blender_hf.space.models import Models
from blender_hf.space.settings import FusionSettings

from .events import PRIVATE, gr


class SettingsPanel:
    """The settings that all tabs share, as components and as what they mean."""

    def __init__(self, models: Models) -> None:
        with gr.Accordion(_title(models.rankers[0], models.fusers[0]), open=False, elem_id="settings") as box:
            with gr.Row():
                self.ranker = gr.Dropdown(list(models.rankers), label="Ranker", filterable=False, elem_id="ranker")
                self.schedule = gr.Dropdown(
                    list(SCHEDULES), label="Schedule", info="Which pairs are compared", filterable=False
                )
                self.aggregation = gr.Dropdown(
                    list(AGGREGATIONS), label="Aggregation", info="How comparisons become scores", filterable=False
                )
                self.tie_threshold = gr.Slider(
                    0, 0.25, 0.02, step=0.01, label="Tie threshold", info="How far from 50 % is still a tie"
                )
            with gr.Row():
                self.fuser = gr.Dropdown(list(models.fusers), label="Fuser", filterable=False)
                self.top_k = gr.Slider(2, 8, 3, step=1, label="Top K", info="How many of the best are fused")
                most = FusionSettings.max_new_tokens
                self.max_new_tokens = gr.Slider(16, 1024, most, step=16, label="Most new tokens", info="Of the fuser")
                self.num_beams = gr.Slider(1, 8, 1, step=1, label="Beams", info="With 1 the text is streamed")
        for choice in (self.ranker, self.fuser):
            choice.change(
                lambda *chosen: gr.Accordion(label=_title(*chosen)), [self.ranker, self.fuser], box, **PRIVATE
            )

    @property
    def ranking(self) -> list[gr.components.Component]:
        """The components that `ranking_settings` takes, after the ranker's."""
        return [self.ranker, self.schedule, self.aggregation, self.top_k, self.tie_threshold]

    @property
    def fusion(self) -> list[gr.components.Component]:
        """The components of the fuser."""
        return [self.fuser, self.max_new_tokens, self.num_beams]


def _title(ranker: str, fuser: str) -> str:
    """Return what is seen of the settings while they are closed: the models in use."""
    return f"Settings · ranker {ranker} · fuser {fuser}"


class PromptFields:
    """The prompt, and in a part that is closed at first what came before it.

    Args:
        prompt: What the prompt is at first.
        elem_id: The id of the prompt.
    """

    def __init__(self, prompt: str, elem_id: str) -> None:
        self.prompt = gr.Textbox(prompt, label="Prompt", lines=2, max_lines=8, elem_id=elem_id)
        # Rendered by `arrange_context`.
        self.system = gr.Textbox(label="System message", lines=1, max_lines=4, render=False)
        placeholder = "User: 2 + 2?\nAssistant: 4"
        self.turns = gr.Textbox(label="Earlier turns", lines=3, max_lines=8, placeholder=placeholder, render=False)

    def arrange_context(self) -> None:
        """Arrange the system message and the earlier turns here."""
        with gr.Accordion("System message and earlier turns", open=False):
            self.system.render()
            self.turns.render()

    @property
    def values(self) -> list[gr.components.Component]:
        """All of them, as `make_prompt` takes their values."""
        return [self.prompt, self.system, self.turns]


class CandidateRows:
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
