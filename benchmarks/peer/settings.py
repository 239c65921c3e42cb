"""The compared settings and the aims, as tables of records."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One way to rank."""

    name: str  # as the tables show it
    side: str  # "peer" (llm-blender) or "ours"
    method: str  # "full", "bubble" (peer), "best", "schedule", "separate" or "pointwise" (ours)
    dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)  # `batch_size` of the peer, or options of our method
    sizes: tuple[int, ...] | None = None  # numbers of candidates; None for all
    devices: tuple[str, ...] = ("cpu", "cuda")  # where it is available
    extra: str = ""  # an optional package that this setting uses, disabled for all others

    def applies_to(self, n: int) -> bool:
        """Return whether it is measured for a number of candidates."""
        return self.sizes is None or n in self.sizes

    def sequences(self, n: int) -> int:
        """Return about how many sequences the model reads per prompt."""
        return {"full": n * (n - 1), "pointwise": n, "separate": n, "schedule": 3 * n}.get(self.method, 2 * (n - 1))

    def is_like(self, other: "Setting") -> bool:
        """Return whether a sequence takes about as long as in another setting."""
        batches = [setting.options.get("batch_size") for setting in (self, other)]
        return self.side == other.side and self.dtype == other.dtype and batches[0] == batches[1]

    def message(self, ranker: str, device: str, threads: int | None) -> dict[str, Any]:
        """Return the message that tells a worker what to load."""
        same = {"ranker": ranker, "device": device, "threads": threads, "dtype": self.dtype, "method": self.method}
        own = {"options": self.options, "extra": self.extra}
        return {**same, **(self.options if self.side == "peer" else own)}


@dataclass(frozen=True)
class Aim:
    """A speed-up to reach: the fastest of ours against the fastest of the peer's, by medians of one run."""

    name: str  # as the report shows it
    peer: tuple[str, ...]  # names of the peer's settings
    ours: tuple[str, ...]  # names of our settings
    at_least: float
    agreement: float | None = None  # the share of prompts that must agree with the top-1 of our full ranking in float32
    sizes: tuple[int, ...] | None = None  # numbers of candidates; None for all


REFERENCE = "ours, full, float32"
FULL_ONE_ORDER = "ours, full, one order, float32"
SEPARATE, SEPARATE_NARROW = "ours, separate, float32", "ours, separate, bfloat16"
# Its default is a batch of 8, in float32 on a CPU and in float16 on a GPU.
PEER_DEFAULT = "peer, full, batch 8"
PEER_HALF = "peer, full, float16, batch 8"
BEST_OF = (10,)
KNOCKOUT = {"schedule": "knockout"}
ADAPTIVE = {"schedule": "adaptive", "top_k": 1}
# For symmetric rankers such as pair-ranker-mini, whose logit is the same in the other order.
ONE_ORDER = {"orders": "one"}
GPU = ("cuda",)
KERNEL = "flashdeberta"

SETTINGS = (
    Setting("peer, full, batch 1", "peer", "full", options={"batch_size": 1}),
    Setting(REFERENCE, "ours", "full"),
    Setting("ours, full, bfloat16", "ours", "full", "bfloat16"),
    Setting(FULL_ONE_ORDER, "ours", "full", "float32", ONE_ORDER),
    Setting("ours, pointwise, float32", "ours", "pointwise"),
    Setting(SEPARATE, "ours", "separate"),
    Setting(SEPARATE_NARROW, "ours", "separate", "bfloat16"),
    Setting("ours, knockout, float32", "ours", "best", "float32", KNOCKOUT, BEST_OF),
    Setting("ours, adaptive, float32", "ours", "schedule", "float32", ADAPTIVE, BEST_OF),
    Setting("ours, knockout, bfloat16", "ours", "best", "bfloat16", KNOCKOUT, BEST_OF),
    Setting("ours, knockout, one order, bfloat16", "ours", "best", "bfloat16", {**KNOCKOUT, **ONE_ORDER}, BEST_OF),
    Setting("ours, adaptive, bfloat16", "ours", "schedule", "bfloat16", ADAPTIVE, BEST_OF),
    Setting("ours, adaptive, one order, bfloat16", "ours", "schedule", "bfloat16", {**ADAPTIVE, **ONE_ORDER}, BEST_OF),
    Setting("ours, full, float16", "ours", "full", "float16", devices=GPU),
    Setting("ours, full, float16, flashdeberta", "ours", "full", "float16", devices=GPU, extra=KERNEL),
    Setting("ours, knockout, float16", "ours", "best", "float16", KNOCKOUT, BEST_OF, GPU),
    Setting("ours, knockout, float16, flashdeberta", "ours", "best", "float16", KNOCKOUT, BEST_OF, GPU, KERNEL),
    Setting("ours, adaptive, float16, flashdeberta", "ours", "schedule", "float16", ADAPTIVE, BEST_OF, GPU, KERNEL),
    Setting("peer, bubble, batch 1", "peer", "bubble", options={"batch_size": 1}, sizes=BEST_OF),
    Setting("peer, bubble, batch 8", "peer", "bubble", options={"batch_size": 8}, sizes=BEST_OF),
    Setting(PEER_DEFAULT, "peer", "full", options={"batch_size": 8}),
    Setting(PEER_HALF, "peer", "full", "float16", {"batch_size": 8}, devices=GPU),
    Setting("peer, full, float16, batch 1", "peer", "full", "float16", {"batch_size": 1}, devices=GPU),
)

DTYPES = tuple(dict.fromkeys(setting.dtype for setting in SETTINGS))
PEER_DEFAULTS = (PEER_DEFAULT, PEER_HALF)
PEER_FULL = tuple(s.name for s in SETTINGS if s.side == "peer" and s.method == "full")
PEER_FULL_FLOAT32 = tuple(s.name for s in SETTINGS if s.name in PEER_FULL and s.dtype == "float32")
PEER_BUBBLE = tuple(s.name for s in SETTINGS if s.method == "bubble")
NARROW = tuple(s.name for s in SETTINGS if s.side == "ours" and s.method == "full" and s.dtype != "float32")
BEST = tuple(s.name for s in SETTINGS if s.method in ("best", "schedule"))
POINTWISE = tuple(s.name for s in SETTINGS if s.method == "pointwise")

AIMS = (
    Aim("full ranking, float32, against the peer's best", PEER_FULL_FLOAT32, (REFERENCE,), 1.3),
    Aim("full ranking, float32, against the peer's default batch of 8", (PEER_DEFAULT,), (REFERENCE,), 4),
    Aim("full ranking, half precision, against the peer's best", PEER_FULL, NARROW, 3, 0.99),
    Aim("full ranking, half precision, against the peer's default batch of 8", PEER_DEFAULTS, NARROW, 10, 0.99),
    Aim(
        "all pairs from separate encodings, against the peer's best", PEER_FULL_FLOAT32, (SEPARATE,), 30, None, BEST_OF
    ),
    Aim("the same, against its default", (PEER_DEFAULT,), (SEPARATE,), 100, None, BEST_OF),
    Aim("the same in bfloat16, against its best", PEER_FULL_FLOAT32, (SEPARATE_NARROW,), 55, None, BEST_OF),
    Aim("the same in bfloat16, against its default", (PEER_DEFAULT,), (SEPARATE_NARROW,), 180, None, BEST_OF),
    Aim("the same, against our full ranking in one order", (FULL_ONE_ORDER,), (SEPARATE,), 6, None, BEST_OF),
    Aim("the same, against pointwise scoring", POINTWISE, (SEPARATE,), 1 / 1.1, None, BEST_OF),
    Aim("best of 10, against the peer's full ranking at its best", PEER_FULL, BEST, 15, 0.97, BEST_OF),
    Aim("best of 10, against the peer's bubble mode at its best", PEER_BUBBLE, BEST, 3, 0.97, BEST_OF),
)
# Of the rate of bare matrix products, at the shapes and in the precision of a full ranking.
PRODUCT_SHARE = 0.7
