"""Registration of our models and our task with transformers, as soon as it is used and not before.

Registering imports torch, which takes seconds that `import blender_hf` need not spend. So it waits for the modules of
transformers that look our classes up.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO = "transformers.models.auto"
# A module of ours that registers when it is imported, and what must be loaded for that to be needed.
REGISTERING = {
    "blender_hf.modeling": tuple(f"{AUTO}.{name}_auto" for name in ("configuration", "modeling", "processing")),
    "blender_hf.pipeline": ("transformers.pipelines",),
}


def register() -> None:
    """Register now what transformers can look up already, and the rest when it can."""
    if not _register_loaded():
        sys.meta_path.insert(0, _Watcher())


def _register_loaded() -> bool:
    """Import what registers with the loaded modules of transformers; return whether that is everything."""
    due = [name for name, users in REGISTERING.items() if any(user in sys.modules for user in users)]
    for name in due:
        import_module(name)
    return len(due) == len(REGISTERING)


class _Watcher(MetaPathFinder):
    """Registers after imports of transformers, and goes when everything is registered.

    Only after the outermost import, for within it modules of transformers or of ours are incomplete.
    """

    def __init__(self) -> None:
        self._imports = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as the other finders do, and watch its execution if it is of transformers or ours."""
        if fullname.partition(".")[0] not in ("transformers", "blender_hf"):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            # On the loader itself, which modules keep, and through which libraries read sources and resources.
            spec.loader.exec_module = self._watched(spec.loader.exec_module)  # type: ignore[assignment]
        return spec

    def _watched(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def run(module: ModuleType) -> None:
            depth = getattr(self._imports, "depth", 0)
            self._imports.depth = depth + 1
            try:
                execute(module)
            finally:
                self._imports.depth = depth
            if depth == 0 and self in sys.meta_path and _register_loaded():
                with suppress(ValueError):  # another thread was quicker
                    sys.meta_path.remove(self)

        return run
