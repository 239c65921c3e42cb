"""An actor's work with deaths in it. It imports little, for every actor imports it."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from blender_hf.labelling.parts import Part, PartMaker, RawPart
from blender_hf.labelling.settings import LabelSettings

# The part at which an actor kills itself, and that at which one takes its machine with it.
ACTOR_DIES_AT = 2
MACHINE_DIES_AT = 4


@dataclass(frozen=True)
class DyingMaker:
    """Makes parts like any other, but dies at some of them, once: by SIGKILL, as the kernel kills for memory.

    Args:
        notes: Folder in which it notes who made what, and who died.
    """

    notes: Path

    def __call__(self, settings: LabelSettings, conversational: bool) -> "DyingPartMaker":
        return DyingPartMaker(PartMaker(settings, conversational), self.notes)


@dataclass(frozen=True)
class DyingPartMaker:
    maker: PartMaker
    notes: Path

    def make(self, raw: RawPart) -> Part:
        (self.notes / f"part-{raw.index}-{os.getpid()}").touch()
        deaths = {ACTOR_DIES_AT: os.getpid(), MACHINE_DIES_AT: os.getppid()}
        if raw.index in deaths and not (self.notes / f"death-{raw.index}").exists():
            (self.notes / f"death-{raw.index}").touch()
            os.kill(deaths[raw.index], signal.SIGKILL)
        return self.maker.make(raw)
