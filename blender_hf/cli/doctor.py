"""The command `doctor`: what is installed, what works, and what could be added.

It imports none of the libraries that it reports on: another process does, so that it works where they are broken.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blender_hf
from blender_hf.errors import BlenderError

from .command import Command, Options, option

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "blender-hf"
# What each extra is for; those for developers, and `all`, bring the others.
EXTRAS = {
    "sentencepiece": "tokenizers that are stored as a SentencePiece model: DeBERTa-v3, T5",
    "train": "training rankers and fusers",
    "lora": "training adapters",
    "trl": "rewards and judges for the trainers of TRL",
    "evaluate": "`blender-hf evaluate`, and the aggregation bradley_terry",
    "generate": "candidates by language models on a server, with huggingface_hub before 1.0",
    "reranker": "rerankers of sentence-transformers of several modules",
    "gguf": "language models in GGUF files",
    "label": "preference data from and to Parquet and the Hub",
    "ray": "the same on a cluster",
    "space": "the page, app.py",
    "mcp": "the page as a tool for language models",
    "flashdeberta": "a faster attention of DeBERTa on CUDA in half precision",
    "onnxruntime": "running exported models",
    "onnx": "exporting models on transformers 4.57, and running them",
    "onnx-gpu": "the same with CUDA",
    "onnx-export": "exporting rankers on transformers 5",
}
# Run in a process of its own: a line of JSON for each import, then one about the machine.
PROBE = """
import importlib, json, sys

def tell(**found):
    print("\\n" + json.dumps(found), flush=True)

for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        tell(module=name, problem=None)
    except BaseException as error:
        tell(module=name, problem=f"{type(error).__name__}: {error}")
try:
    from huggingface_hub import constants
    tell(cache=constants.HF_HUB_CACHE, offline=constants.HF_HUB_OFFLINE)
except BaseException:
    pass
try:
    import torch
    devices = {"cpu": f"threads: {torch.get_num_threads()}"}
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        devices[f"cuda:{number}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    tell(devices=devices)
except BaseException:
    pass
"""
# What imports of the libraries all that ranking and fusing need: importing transformers alone imports nearly nothing.
OWN_MODULE = "blender_hf.blender"
# `import torch` takes seconds, and minutes from a cold network disk.
PATIENCE = 300
MIB = 2**20


def run(options: Options) -> None:
    """Print what is installed; fails if something that is always needed is missing or broken."""
    found = diagnosis()
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n" if options.json else as_text(found))
    for name, about in found["libraries"].items():
        if about["problem"]:
            raise BlenderError(
                f"{name}: {about['problem']}; reinstall it: pip install --force-reinstall '{about['needed']}'"
            )
    if found["problem"]:
        raise BlenderError(f"{PACKAGE} can't be imported: {found['problem']}; reinstall it with its libraries")


def diagnosis() -> dict[str, Any]:
    """Return what is installed, in the form that `--json` prints."""
    wanted = list(requirements())
    probed = _probed([*(_module(one.name) for one in wanted), OWN_MODULE])
    return {
        "version": blender_hf.__version__,
        "problem": probed["problems"][OWN_MODULE],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "folder": str(files("blender_hf")),
        "libraries": {
            one.name: {
                "needed": str(one),
                "version": installed(one.name),
                "problem": problem_with(one) or probed["problems"][_module(one.name)],
            }
            for one in wanted
        },
        "extras": {extra: _extra(extra) for extra in EXTRAS},
        **{name: probed[name] for name in ("devices", "cache", "offline")},
        "bundled": dict(_bundled()),
    }


def requirements(extra: str = "") -> "Iterator[Requirement]":
    """Yield what the package always needs, or what an extra adds to that, with the extras in it."""
    from packaging.requirements import Requirement

    try:
        lines = requires(PACKAGE) or ()
    except PackageNotFoundError:
        raise BlenderError(f"{PACKAGE} is not installed here, only found as a folder: pip install -e .") from None
    for one in map(Requirement, lines):
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        if always == bool(extra) or not (one.marker is None or one.marker.evaluate({"extra": extra})):
            continue
        if one.name == PACKAGE:
            for inner in sorted(one.extras):
                yield from requirements(inner)
        else:
            one.marker = None
            yield one


def installed(name: str) -> str | None:
    """Return the installed version of a distribution; None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def problem_with(requirement: "Requirement") -> str | None:
    """Return why what is installed does not meet a requirement; None if it does."""
    found = installed(requirement.name)
    if found is None:
        return "not installed"
    return None if requirement.specifier.contains(found, prereleases=True) else f"{found} is another version"


def _extra(name: str) -> dict[str, Any]:
    missing = [str(one) for one in requirements(name) if problem_with(one)]
    install = f"pip install '{PACKAGE}[{name}]'" if missing else None
    return {"for": EXTRAS[name], "missing": missing, "install": install}


def _module(distribution: str) -> str:
    return distribution.replace("-", "_")


def _probed(modules: list[str]) -> dict[str, Any]:
    """Import modules in another process; return what is wrong with each, and what they say of the machine."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *modules], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        output, end = done.stdout, f"the import ended the process with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        output, end = said.decode() if isinstance(said, bytes) else said, f"no end of the import in {PATIENCE} s"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    problems = {line["module"]: line["problem"] for line in lines if "module" in line}
    # A crash or a halt is the fault of the first module that was not reported on; the others were not tried.
    silent = [module for module in modules if module not in problems]
    problems |= dict.fromkeys(silent[1:], "not tried, for another did not return") | dict.fromkeys(silent[:1], end)
    about: dict[str, Any] = {"devices": {}, "cache": None, "offline": None}
    for line in lines:
        about |= {name: line[name] for name in about if name in line}
    return {"problems": problems, **about}


def _bundled() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each checkpoint that comes with the package."""
    for folder in sorted(Path(str(files("blender_hf"))).joinpath("bundled").iterdir()):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield folder.name, {"model": config["architectures"][0], "bytes": size}


def as_text(found: Mapping[str, Any]) -> str:
    """Return the diagnosis for people."""
    lines = [
        f"{PACKAGE} {found['version']} in {found['folder']}: {found['problem'] or 'works'}",
        f"Python {found['python']} on {found['platform']}",
        "",
        "Libraries",
    ]
    lines += [
        f"  {name:<16} {about['version'] or '-':<14} {about['problem'] or 'works'}"
        for name, about in found["libraries"].items()
    ]
    lines += ["", "Extras"]
    for name, about in found["extras"].items():
        lines.append(f"  {name:<14} {'missing' if about['missing'] else 'installed':<10} for {about['for']}")
        if about["missing"]:
            lines.append(f"{'':<28}{about['install']}  ({', '.join(about['missing'])})")
    lines += ["", "Devices"]
    lines += [f"  {name:<14} {about}" for name, about in found["devices"].items()] or ["  unknown, for torch is broken"]
    offline = ", offline (HF_HUB_OFFLINE)" if found["offline"] else ""
    lines += ["", "Cache of the Hub", f"  {found['cache'] or 'unknown, for huggingface_hub is broken'}{offline}"]
    lines += ["", "Bundled models"]
    lines += [
        f"  {name:<18} {about['bytes'] / MIB:>5.1f} MiB  {about['model']}" for name, about in found["bundled"].items()
    ]
    return "\n".join(lines) + "\n"


COMMAND = Command(
    name="doctor",
    help="Tell what is installed, what works, and what could be added",
    about="""Print the versions of the libraries and whether they can be imported, the extras that are installed or
    missing and what each is for, the devices, the cache and the bundled models. It fails if a library that is always
    needed is missing or broken.""",
    options=(option("--json", "print JSON instead"),),
    run=run,
    epilog="Example: blender-hf doctor --json",
)
