"""Try heads that compare candidates which a frozen encoder reads once each, with their prompt.

    python -m benchmarks.comparison_heads train.jsonl.gz dev.jsonl.gz --encoder ENCODER --save

The mean states over the prompt and over the candidate are computed once, and kept in the folder of states. Each head is
trained on the judged pairs of the first file with several seeds, and measured on those of the second. A second run goes
on where one was killed; a folder of states is for one choice of options.
"""

import argparse
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks.judged import decided_pairs, parser_of, sampled, without_length
from benchmarks.tables import Cell, Table, publish
from blender_hf import Blender
from blender_hf.data.labelled import LabelledPrompt, labels_by_pair
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.evaluation.pairwise import accuracy, by_source, length_rule
from blender_hf.modeling.modeling_pair_ranker import PairRanker
from blender_hf.modeling.processing_pair_ranker import CandidateEncoding, PairRankerProcessor
from blender_hf.modeling.ranking_math import compare_encodings
from blender_hf.modeling.separate_encoding import read_rows
from blender_hf.training.fine_tuning import initialise_new_tokens

LENGTHS = {"max_pair_length": 544, "max_source_length": 160, "max_candidate_length": 192}
BATCH_TOKENS = 4096
# The indices of a prompt and of its candidate, and the tokens of both.
Reading = tuple[tuple[int, int], CandidateEncoding]
WIDTH = 128  # of the layer that all outputs of a head share
DROPOUT = 0.1
PROMPTS_PER_STEP = 128
LEARNING_RATE = 2e-3
MAX_EPOCHS = 30
PATIENCE = 3  # epochs without a lower loss on the held-out prompts

FEATURES: dict[str, Callable[[torch.Tensor, torch.Tensor], list[torch.Tensor]]] = {
    "candidate": lambda source, candidate: [candidate],
    "source, candidate": lambda source, candidate: [source, candidate],
    "source, candidate, product, difference": lambda source, candidate: [
        source,
        candidate,
        source * candidate,
        (source - candidate).abs(),
    ],
}


@dataclass(frozen=True)
class States:
    """What an encoder makes of the candidates of many prompts, filled up with zeros."""

    source: torch.Tensor  # (prompts, candidates, hidden): the mean over the prompt, as read with each candidate
    candidate: torch.Tensor  # (prompts, candidates, hidden): the mean over the candidate
    present: torch.Tensor  # (prompts, candidates): False where there is no candidate

    def of(self, rows: torch.Tensor) -> "States":
        """Return the states of some prompts."""
        return States(self.source[rows], self.candidate[rows], self.present[rows])

    @property
    def pairs(self) -> torch.Tensor:
        """True for each two candidates of a prompt, once, (prompts, candidates, candidates)."""
        return (self.present[:, :, None] & self.present[:, None, :]).triu(1)

    def save(self, file: Path) -> None:
        """Write the states to a file, in half precision."""
        torch.save({"source": self.source.half(), "candidate": self.candidate.half(), "present": self.present}, file)

    @classmethod
    def load(cls, file: Path) -> "States":
        """Read the states of a file, in single precision."""
        found = torch.load(file)
        return cls(found["source"].float(), found["candidate"].float(), found["present"])


@dataclass(frozen=True)
class Targets:
    """What the logit of each pair shall be, (prompts, candidates, candidates) both."""

    labels: torch.Tensor  # the probability that the row is better than the column
    weights: torch.Tensor  # 0 where nothing is known

    def of(self, rows: torch.Tensor) -> "Targets":
        """Return the targets of some prompts."""
        return Targets(self.labels[rows], self.weights[rows])


@dataclass(frozen=True)
class Head:
    """The settings of a head; `embedding` is the size of a preference embedding, an even number."""

    features: str = "source, candidate"
    score: bool = True
    embedding: int = 0
    weights_of_prompt: bool = False  # unit embeddings, each plane weighted by the prompt: GPM, arXiv 2410.02197
    candidates_meet: bool = False  # in an attention layer over the candidates of the prompt


HEADS = {
    "score": Head(),
    "score of the candidate alone": Head(features="candidate"),
    "score, with product and difference": Head(features="source, candidate, product, difference"),
    "score and skew form, 2": Head(embedding=2),
    "score and skew form, 8": Head(embedding=8),
    "score and skew form, 32": Head(embedding=32),
    "skew form alone, 8": Head(score=False, embedding=8),
    "GPM, 8": Head(score=False, embedding=8, weights_of_prompt=True),
    "score, candidates meet": Head(candidates_meet=True),
    "score and skew form, 8, candidates meet": Head(embedding=8, candidates_meet=True),
}
# Those that are tried on a plain encoder, and those that learn from a teacher.
MAIN_HEADS = ("score", "score, with product and difference", "score and skew form, 8", "score, candidates meet")
STUDENTS = ("score", "score and skew form, 2", "score and skew form, 8", "score and skew form, 32")


class ComparisonHead(nn.Module):
    """Gives every two candidates of a prompt a logit, exactly antisymmetric."""

    def __init__(self, settings: Head, hidden: int) -> None:
        super().__init__()
        self.settings = settings
        n_features = len(FEATURES[settings.features](torch.empty(0), torch.empty(0)))
        self.norm = nn.LayerNorm(n_features * hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.dense = nn.Linear(n_features * hidden, WIDTH)
        self.meet = (
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, DROPOUT, batch_first=True, norm_first=True)
            if settings.candidates_meet
            else None
        )
        self.out = nn.Linear(WIDTH, 1 + settings.embedding)
        self.weigh = nn.Linear(hidden, settings.embedding // 2) if settings.weights_of_prompt else None

    def forward(self, states: States) -> torch.Tensor:
        """Return the logits (prompts, candidates, candidates), positive where the row is better than the column."""
        here = states.present
        features = torch.cat(FEATURES[self.settings.features](states.source[here], states.candidate[here]), dim=-1)
        found = self.dropout(torch.tanh(self.dense(self.dropout(self.norm(features)))))
        known = found.new_zeros(*here.shape, WIDTH).masked_scatter(here[:, :, None], found)
        if self.meet is not None:
            known = self.meet(known, src_key_padding_mask=~here)
        scores, embedded = self.out(known).tensor_split([1], dim=-1)
        if self.weigh is not None:
            # The prompt as read with its first candidate: both candidates of a pair need the same weights.
            weights = functional.softplus(self.weigh(states.source[:, :1])) * self.settings.embedding
            embedded = functional.normalize(embedded, dim=-1) * weights.sqrt().repeat_interleave(2, dim=-1)
        encodings = torch.cat([scores * self.settings.score, embedded], dim=-1)  # (prompts, candidates, 1 + embedding)
        return compare_encodings(encodings[:, :, None], encodings[:, None])


def trained(settings: Head, states: States, targets: Targets, seed: int) -> ComparisonHead:
    """Train a head until its loss on a tenth of the prompts, held out, falls no more."""
    torch.manual_seed(seed)
    order = torch.randperm(len(states.present))
    held_out, rest = order[: len(order) // 10], order[len(order) // 10 :]
    head = ComparisonHead(settings, states.source.shape[-1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    best, kept, waited = float("inf"), head.state_dict(), 0
    for _ in range(MAX_EPOCHS):
        head.train()
        for rows in rest[torch.randperm(len(rest))].split(PROMPTS_PER_STEP):
            optimizer.zero_grad()
            loss_of(head(states.of(rows)), targets.of(rows)).backward()
            optimizer.step()
        loss = loss_of(logits_of(head, states.of(held_out)), targets.of(held_out)).item()
        best, kept, waited = (loss, copy.deepcopy(head.state_dict()), 0) if loss < best else (best, kept, waited + 1)
        if waited == PATIENCE:
            break
    head.load_state_dict(kept)
    return head.eval()


def loss_of(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the mean binary cross-entropy over the pairs."""
    losses = functional.binary_cross_entropy_with_logits(logits, targets.labels, targets.weights, reduction="sum")
    return losses / targets.weights.sum()


@torch.inference_mode()
def logits_of(head: ComparisonHead, states: States) -> torch.Tensor:
    return head.eval()(states)


@dataclass(frozen=True)
class Encoder:
    """An encoder that reads a prompt and one candidate; `shared` hides the candidate from the tokens of the prompt."""

    processor: PairRankerProcessor
    ranker: PairRanker
    shared: bool

    @classmethod
    def of_ranker(cls, name: str, *, shared: bool) -> "Encoder":
        """Return the encoder of a ranker."""
        scorer = reader_of(name).scorer
        return cls(scorer.processor, scorer.model, shared)

    @classmethod
    def plain(cls, name: str, *, shared: bool) -> "Encoder":
        """Return an encoder that was not trained to rank."""
        tokenizer = AutoTokenizer.from_pretrained(name)
        n_known = len(tokenizer)
        processor = PairRankerProcessor.for_training(tokenizer, **LENGTHS)
        n_added, ids = len(tokenizer) - n_known, processor.special_token_ids()
        ranker = PairRanker.from_backbone(name, n_added_tokens=n_added, pooling="mean", **ids).eval()
        initialise_new_tokens(ranker.get_input_embeddings(), tokenizer, n_known)
        return cls(processor, ranker.bfloat16(), shared)

    @torch.inference_mode()
    def read(self, prompts: Sequence[LabelledPrompt]) -> States:
        """Read every candidate of every prompt."""
        config = copy.copy(self.ranker.config)
        config.shared_prompt = self.shared
        present = torch.zeros(len(prompts), max(len(prompt.item.candidates) for prompt in prompts), dtype=torch.bool)
        pooled = torch.zeros(2, *present.shape, config.backbone_config.hidden_size)
        for batch in tqdm(batches_of(sorted(self._readings(prompts), key=lambda reading: len(reading[1])))):
            inputs = self.processor.pad_candidates([encoding for _, encoding in batch])
            real = inputs["attention_mask"].bool()
            rows, columns = torch.tensor([place for place, _ in batch]).T
            parts = read_rows(self.ranker.backbone, config, inputs["input_ids"], real, inputs.get("token_type_ids"))
            pooled[:, rows, columns] = torch.stack(parts).float()
            present[rows, columns] = True
        return States(pooled[0], pooled[1], present)

    def _readings(self, prompts: Sequence[LabelledPrompt]) -> Iterator[Reading]:
        for row, prompt in enumerate(prompts):
            [source] = self.processor.encode_prompts([prompt.item.messages])
            for number, candidate in enumerate(self.processor.encode_texts(prompt.item.texts)):
                yield (row, number), self.processor.encode_candidate(source, candidate)


def batches_of(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Return batches of readings, which are sorted by length."""
    batches: list[list[Reading]] = [[]]
    for reading in readings:
        if len(reading[1]) * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(reading)
    return batches


def reader_of(ranker: str) -> Blender:
    """Return a ranker that reads pairs, without its term for distinct tokens."""
    blender = Blender.from_pretrained(ranker, None, dtype="bfloat16", truncation=LENGTHS)
    blender.ranker.model.config.distinct_token_weight = 0.0
    return blender


def read_pairs(prompts: Sequence[LabelledPrompt], most: int, blender: Blender) -> torch.Tensor:
    """Return the logits (prompts, most, most) of a ranker that reads every pair of the candidates, `most` at most."""
    logits = torch.zeros(len(prompts), most, most)
    rankings = blender.iter_rank(prompt.item for prompt in prompts)
    for row, ranking in zip(logits, tqdm(rankings, total=len(prompts)), strict=True):
        found = torch.tensor(ranking.comparisons)
        row[: len(found), : len(found)] = found.nan_to_num()  # NaN: no candidate is compared with itself
    return logits


def judged_targets(prompts: Sequence[LabelledPrompt]) -> Targets:
    """Return the judgments of the training prompts; several of the same two candidates are their mean."""
    most = max(len(prompt.item.candidates) for prompt in prompts)
    labels, weights = torch.zeros(2, len(prompts), most, most)
    for row, prompt in enumerate(prompts):
        for (a, b), found in labels_by_pair(prompt).items():
            labels[row, a, b], weights[row, a, b] = fmean(found), 1.0
    return Targets(labels, weights)


def distilled_targets(logits: torch.Tensor, states: States) -> Targets:
    """Return what a teacher says of all pairs of the training prompts."""
    return Targets(torch.sigmoid(logits), states.pairs.float())


class Dev:
    """The prompts that the heads are measured on, with a sample of their decided pairs."""

    def __init__(self, prompts: Sequence[LabelledPrompt], most: int, seed: int) -> None:
        self.places = {
            (prompt.source, prompt.item.source, text): (row, number)
            for row, prompt in enumerate(prompts)
            for number, text in enumerate(prompt.item.texts)
        }
        pairs = decided_pairs(prompts, most, seed)
        self.groups = by_source([pair.source for pair in pairs], pairs)

    def accuracies(self, logits: torch.Tensor) -> tuple[float, float]:
        """Return the accuracy, and that without length, means over the sources."""
        rows = [self._accuracies(pairs, logits) for pairs in self.groups.values()]
        return fmean(row[0] for row in rows), fmean(row[1] for row in rows)

    def _accuracies(self, pairs: Sequence[PreferencePair], logits: torch.Tensor) -> tuple[float, float]:
        labels = [pair.label for pair in pairs]
        found = [self._logit(pair, logits) for pair in pairs]
        lengths = length_rule([pair.candidate_a for pair in pairs], [pair.candidate_b for pair in pairs])
        return accuracy(found, labels) or 0.0, without_length(found, lengths, labels)

    def _logit(self, pair: PreferencePair, logits: torch.Tensor) -> float:
        (row, a), (_, b) = (
            self.places[pair.source, pair.prompt, text] for text in (pair.candidate_a, pair.candidate_b)
        )
        return logits[row, a, b].item()


def cyclic_share(logits: torch.Tensor, present: torch.Tensor) -> float:
    """Return the share of three candidates of a prompt of which each beats the next."""
    cyclic, n_triples = 0, 0
    for row, here in zip(logits, present, strict=True):
        for a, b, c in combinations(here.nonzero().flatten().tolist(), 3):
            n_triples += 1
            cyclic += abs(sum(row[i, j].sign().item() for i, j in ((a, b), (b, c), (c, a)))) == 3
    return cyclic / max(n_triples, 1)


def agreement(logits: torch.Tensor, teacher: torch.Tensor, states: States) -> tuple[float, float]:
    """Return how often two matrices have the same winner, and their correlation, over all pairs of candidates."""
    pairs = states.pairs
    ours, theirs = logits[pairs], teacher[pairs]
    return ((ours > 0) == (theirs > 0)).float().mean().item(), torch.corrcoef(torch.stack([ours, theirs]))[0, 1].item()


def main() -> None:
    options = arguments()
    options.states.mkdir(parents=True, exist_ok=True)
    judged = (prompt for prompt in read_labelled(options.train) if prompt.pairs)
    train = sampled(judged, lambda prompt: prompt.source, options.prompts_per_source, options.seed)
    prompts = list(read_labelled(options.dev))
    study = Study(train, prompts, Dev(prompts, options.max_pairs_per_source, options.seed), options)
    full, shared = (Encoding(options.ranker, True, shared) for shared in (False, True))
    sections = [*study.judged(full, HEADS), *study.judged(shared, ["score"])]
    if options.encoder:
        sections += study.judged(Encoding(options.encoder, False, False), MAIN_HEADS)
    publish(__file__, [*sections, *study.distilled(full), note(options, study)], options)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("train", type=Path, help="JSONL of judged pairs to train on")
    parser.add_argument("dev", type=Path, help="JSONL of judged pairs to measure on")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder of a ranker that reads pairs")
    parser.add_argument("--encoder", help="Hub id or folder of an encoder that was not trained to rank, tried as well")
    parser.add_argument("--states", type=Path, default=Path("runs/comparison_heads"), help="folder of the states")
    parser.add_argument("--prompts-per-source", type=int, default=400, help="most prompts of a source to train on")
    parser.add_argument("--teacher-prompts", type=int, default=40, help="the same, for distillation")
    parser.add_argument("--max-pairs-per-source", type=int, default=200, help="random sample of larger ones to measure")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each head")
    return parser.parse_args()


@dataclass(frozen=True)
class Encoding:
    """An encoder and what its tokens see; `shared` hides the candidate from the tokens of the prompt."""

    name: str
    is_ranker: bool
    shared: bool

    @property
    def title(self) -> str:
        """It as a heading."""
        return f"{Path(self.name).name}, {'shared prompt' if self.shared else 'full attention'}"


@dataclass(frozen=True)
class Study:
    """The prompts, and the options of the run."""

    train: Sequence[LabelledPrompt]
    prompts: Sequence[LabelledPrompt]
    dev: Dev
    options: argparse.Namespace

    def judged(self, encoding: Encoding, names: Iterable[str]) -> list[str | Table]:
        """Train heads on judged pairs, and return their accuracies."""
        train, measured = self._states(encoding, "train", self.train), self._states(encoding, "dev", self.prompts)
        rows: list[list[Cell]] = []
        if encoding.is_ranker:
            pairs = self._pairs("dev", self.prompts, measured)
            own = own_logits(encoding.name, measured)
            rows.append(["pairs read together", *self._accuracies([pairs], measured)])
            rows.append(["the ranker's own head, not trained for it", *self._accuracies([own], measured)])
        for name in names:
            found = self._logits(encoding, name, "judged", train, judged_targets(self.train), measured)
            rows.append([name, *self._accuracies(found, measured)])
        columns = {"head": "", **dict.fromkeys(["accuracy", "spread", "without length", "spread of it"], ".3f")}
        return [f"### {encoding.title}", Table({**columns, "cyclic": ".2%"}, rows)]

    def distilled(self, encoding: Encoding) -> list[str | Table]:
        """Train heads on what the ranker says of all pairs when it reads them together."""
        chosen = sampled(
            enumerate(self.train), lambda row: row[1].source, self.options.teacher_prompts, self.options.seed
        )
        rows, prompts = zip(*chosen, strict=True)
        states, measured = self._states(encoding, "train", self.train), self._states(encoding, "dev", self.prompts)
        states, wanted = states.of(torch.tensor(rows)), self._pairs("dev", self.prompts, measured)
        targets = distilled_targets(self._pairs("train", prompts, states), states)
        found: list[list[Cell]] = [["its own head", *agreement(own_logits(encoding.name, measured), wanted, measured)]]
        for name in STUDENTS:
            logits = self._logits(encoding, name, "distilled", states, targets, measured)
            agreements = [agreement(matrix, wanted, measured) for matrix in logits]
            found.append([name, *(fmean(column) for column in zip(*agreements, strict=True))])
        title = f"### {encoding.title}: agreement with reading pairs together, after distillation"
        return [title, Table({"head": "", "same winner": ".3f", "correlation": ".3f"}, found)]

    def _states(self, encoding: Encoding, split: str, prompts: Sequence[LabelledPrompt]) -> States:
        file = self._file(encoding.title, split)
        if not file.exists():
            load = Encoder.of_ranker if encoding.is_ranker else Encoder.plain
            load(encoding.name, shared=encoding.shared).read(prompts).save(file)
        return States.load(file)

    def _pairs(self, split: str, prompts: Sequence[LabelledPrompt], states: States) -> torch.Tensor:
        file = self._file("pairs", split)
        if not file.exists():
            torch.save(read_pairs(prompts, states.present.shape[1], reader_of(self.options.ranker)), file)
        return torch.load(file)

    def _logits(
        self, encoding: Encoding, name: str, labels: str, states: States, targets: Targets, measured: States
    ) -> torch.Tensor:
        """Return the logits of a head on the measured prompts, with each seed; training is not done again."""
        file = self._file(encoding.title, labels, name)
        if not file.exists():
            seeds = range(self.options.seed, self.options.seed + self.options.seeds)
            heads = [trained(HEADS[name], states, targets, seed) for seed in tqdm(seeds, desc=name)]
            torch.save(torch.stack([logits_of(head, measured) for head in heads]), file)
        return torch.load(file)

    def _file(self, *names: str) -> Path:
        return self.options.states / (re.sub(r"\W+", "-", " ".join(names)) + ".pt")

    def _accuracies(self, logits: Iterable[torch.Tensor], states: States) -> list[Cell]:
        """Return the mean and the spread over seeds of both accuracies, and the mean share of cycles."""
        found = list(logits)
        columns = zip(*map(self.dev.accuracies, found), strict=True)
        cells = [cell for column in columns for cell in (fmean(column), stdev(column) if len(column) > 1 else None)]
        return [*cells, fmean(cyclic_share(matrix, states.present) for matrix in found)]


@torch.inference_mode()
def own_logits(ranker: str, states: States) -> torch.Tensor:
    """Return the logits of a ranker's own head, (prompts, candidates, candidates)."""
    scores = reader_of(ranker).ranker.model.head.float()(states.source, states.candidate)  # (prompts, candidates, 1)
    return scores - scores.transpose(1, 2)


def note(options: argparse.Namespace, study: Study) -> str:
    return (
        f"Trained on {len(study.train):,} prompts, at most {options.prompts_per_source} of a source, prompts cut at "
        f"{LENGTHS['max_source_length']} tokens and candidates at {LENGTHS['max_candidate_length']}; a tenth decides "
        f"when to stop. Mean over the sources of {options.dev.name.split('.')[0]}, decided pairs, at most "
        f"{options.max_pairs_per_source} of a source; mean and standard deviation of {options.seeds} seeds. Cyclic: of "
        "three candidates of a prompt, how often each beats the next. Agreement: over all pairs of candidates of the "
        f"same file, judged or not; learnt from at most {options.teacher_prompts} prompts of a source."
    )


if __name__ == "__main__":
    main()
