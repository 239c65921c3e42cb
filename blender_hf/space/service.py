"""What the named endpoints do: plain values in, plain values out, the same models as the page."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from blender_hf.data.records import Record, record_from_mapping
from blender_hf.engine.results import Comparison, Ranking
from blender_hf.errors import GenerationError, InputError
from blender_hf.generation.outcomes import Failure, Reply
from blender_hf.generation.prompts import prompt_item
from blender_hf.generation.sampling import Sampling
from blender_hf.inputs import Candidate, CandidateInput, Item, make_item
from blender_hf.labelling.filters import Filters
from blender_hf.labelling.formats import FORMATS, Labelled, ranked_fields

from .fused import Fused, fusion_item, iter_fusion, judge_fusion
from .leaderboard import leaderboard
from .models import Models
from .settings import DEFAULT_LIMITS, FusionSettings, Limits, RankingSettings, check_batch, check_item

# Temperature and nucleus of a small language model: a spread for its answers to differ, and little enough for sense.
SMALL = (0.5, 0.95)


class Service:
    """Ranks, compares, fuses and makes leaderboards, within limits.

    Args:
        models: The checkpoints.
        limits: The largest request that is served.
    """

    def __init__(self, models: Models, limits: Limits = DEFAULT_LIMITS) -> None:
        self.models = models
        self.limits = limits

    def item(self, prompt: Any, candidates: Sequence[Any]) -> Item:
        """Check a prompt with its candidates, their number and lengths."""
        item = make_item(prompt, candidates, where="the request")
        check_item(item, self.limits)
        return item

    def small_answers(self, prompt: Any, max_tokens: int, n: int = 3) -> list[Candidate]:
        """Let the bundled language model answer a prompt several times.

        Raises:
            GenerationError: If it gives no answer, as to a prompt that is longer than it reads.
        """
        item = prompt_item(prompt)
        check_item(item, self.limits)
        model = self.models.small_llm()
        with self.models.lock:
            (outcomes,) = model.start([item.messages], Sampling(n, max_tokens, *SMALL)).result()
        written = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        if not written:
            reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, Failure)}
            raise GenerationError(f"{model.name}: {'; '.join(sorted(reasons))}")
        return [Candidate(reply.text, f"{model.name} ({number})") for number, reply in enumerate(written, 1)]

    def rank(self, item: Item, settings: RankingSettings, ranker: str | None = None) -> Ranking:
        """Rank the candidates of a prompt."""
        judge = self.models.ranker(ranker)
        with self.models.lock:
            return judge.rank([item], settings.as_schedule(), settings.aggregation)[0]

    def compare(
        self,
        prompt: Any,
        a: CandidateInput,
        b: CandidateInput,
        tie_threshold: float | None = None,
        ranker: str | None = None,
    ) -> Comparison:
        """Compare two answers in both orders."""
        settings = RankingSettings.chosen(tie_threshold=tie_threshold)
        item, judge = self.item(prompt, [a, b]), self.models.ranker(ranker)
        with self.models.lock:
            return judge.compare([item], settings.tie_threshold)[0]

    def iter_fuse(
        self,
        item: Item,
        ranking: Ranking,
        settings: RankingSettings,
        fusion: FusionSettings,
        ranker: str | None = None,
        fuser: str | None = None,
    ) -> Iterator[str | Fused]:
        """Fuse the best candidates of a ranking: yield the text as it is written, and at last the judged fusion."""
        judge, writer = self.models.ranker(ranker), self.models.fuser(fuser)
        inputs, chosen = fusion_item(item, ranking, settings.top_k, writer.max_candidates)
        for step in iter_fusion(inputs, writer, fusion, self.models.lock):
            if isinstance(step, str):
                yield step
                continue
            with self.models.lock:
                judged = judge_fusion(item, ranking, step, chosen, judge, settings.tie_threshold)
            yield judged

    def fuse(
        self,
        item: Item,
        ranking: Ranking,
        settings: RankingSettings,
        fusion: FusionSettings,
        ranker: str | None = None,
        fuser: str | None = None,
    ) -> Fused | None:
        """Fuse the best candidates of a ranking; where no two differ, there is nothing to fuse, and no fusion."""
        if len(set(ranking.candidates)) < 2:
            return None
        steps = self.iter_fuse(item, ranking, settings, fusion, ranker, fuser)
        return next(step for step in steps if isinstance(step, Fused))

    def records(self, values: Sequence[Any]) -> list[Record]:
        """Check the records of a batch."""
        if not isinstance(values, list):
            raise InputError('records must be a list of objects {"prompt", "candidates"}')
        records = [
            record_from_mapping(value, where=f"record {number}", default_id=number)
            for number, value in enumerate(values, 1)
        ]
        check_batch([record.item for record in records], self.limits)
        return records

    def iter_rank(
        self, records: Sequence[Record], settings: RankingSettings, ranker: str | None = None
    ) -> Iterator[Ranking]:
        """Rank the records of a batch one by one, so that others get their turns between them."""
        for record in records:
            yield self.rank(record.item, settings, ranker)

    def batch_result(
        self, records: Sequence[Record], rankings: Sequence[Ranking], tie_threshold: float
    ) -> dict[str, Any]:
        """Return the leaderboard, the ranked records and the preferences of a batch as plain values."""
        standings = leaderboard(rankings, tie_threshold)
        return {
            "leaderboard": [standing.to_dict() for standing in standings],
            "ranked": [ranked_record(*pair) for pair in zip(records, rankings, strict=True)],
            "preferences": preference_records(records, rankings),
        }


def ranked_record(record: Record, ranking: Ranking) -> dict[str, Any]:
    """Return a record with its ranking, its candidates the best first."""
    return {"id": record.id, "prompt": record.item.source, **ranked_fields(ranking, record.item)}


def preference_records(records: Sequence[Record], rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Return the best candidate of each prompt as chosen and the worst as rejected, as `blender-hf label` does."""
    form, filters = FORMATS["dpo"], Filters()
    return [
        row.fields
        for record, ranking in zip(records, rankings, strict=True)
        for row in form.rows(Labelled(record, ranking))
        if filters.reason(row, form) is None
    ]


def as_json_lines(records: Iterable[dict[str, Any]]) -> str:
    """Return records as JSON, one a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
