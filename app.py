"""The Space: see the ranking, see why, see the fusion. `python app.py` runs it on the bundled checkpoints.

The page only arranges the functions of `blender_hf.space`, which know nothing of Gradio; its tabs are in
`blender_hf.space.page`.
"""

import argparse
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, Literal

from blender_hf.data.examples import FOLDER as EXAMPLES
from blender_hf.loading.checkpoints import DEFAULT_FUSER, DEFAULT_RANKER
from blender_hf.space import markup
from blender_hf.space.about import links
from blender_hf.space.answers import on_space
from blender_hf.space.fused import blend_fields
from blender_hf.space.models import Models
from blender_hf.space.page.batch_tab import batch_tab
from blender_hf.space.page.blend_tab import blend_tab
from blender_hf.space.page.compare_tab import compare_tab
from blender_hf.space.page.events import gr, plain_errors
from blender_hf.space.page.inputs import SettingsPanel
from blender_hf.space.page.models_tab import models_tab
from blender_hf.space.prompts import make_prompt
from blender_hf.space.service import Service
from blender_hf.space.settings import DEFAULT_LIMITS, FusionSettings, Limits, RankingSettings

ScheduleName = Literal["full", "bubble", "knockout", "adaptive"]
AggregationName = Literal["max_logits", "max_wins", "bradley_terry", "copeland"]
# What the schema of the endpoints says of a candidate.
CandidateValue = str | dict[str, Any] | list[dict[str, Any]]
FONT = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")


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
        gr.HTML(markup.title_html(links()))
        settings = SettingsPanel(service.models)
        with gr.Tabs() as tabs:
            with gr.Tab("Blend", id="blend"):
                results = blend_tab(service, settings, public)
            with gr.Tab("Compare", id="compare"):
                compare_tab(service, settings, tabs, results)
            with gr.Tab("Batch", id="batch"):
                batch_tab(service, settings)
            with gr.Tab("Models", id="models"):
                models_tab(service.models)
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
        # Gradio hands out no other file of the package, wherever it is installed.
        "allowed_paths": [str(EXAMPLES)],
        # A larger file is refused by Gradio, in a message that does not stay; the page's own stays.
        "max_file_size": 4 * DEFAULT_LIMITS.file_bytes,
        "mcp_server": find_spec("mcp") is not None,
        "footer_links": ["api", "settings"],
    }


def _endpoints(service: Service) -> None:
    """Name the endpoints for programs; with MCP, each is a tool that is described by its docstring."""

    def rank(
        prompt: str,
        candidates: list[CandidateValue],
        system: str = "",
        turns: str = "",
        schedule: ScheduleName = "full",
        aggregation: AggregationName = "max_logits",
        ranker: str = "",
    ) -> dict:
        """Rank candidate answers to a prompt by comparing them two by two.

        Args:
            prompt: What was asked.
            candidates: The answers, each a text, a chat message or a list of messages.
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

    def compare(
        prompt: str, a: CandidateValue, b: CandidateValue, tie_threshold: float = 0.02, ranker: str = ""
    ) -> dict:
        """Compare two answers to a prompt in both orders of presentation.

        Args:
            prompt: What was asked.
            a: One answer, a text, a chat message or a list of messages.
            b: The other answer, likewise.
            tie_threshold: How far, 0 to 0.5, the probability may be from 0.5 and still be a tie.
            ranker: The checkpoint; empty for the default.

        Returns:
            preferred ("a", "b" or "tie"), probability that a is better, and the logits of both orders.
        """
        with plain_errors():
            return service.compare(make_prompt(prompt), a, b, tie_threshold, ranker).to_dict()

    def blend(
        prompt: str,
        candidates: list[CandidateValue],
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
            candidates: The answers, each a text, a chat message or a list of messages.
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
