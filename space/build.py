"""Write the Space: `python space/build.py FOLDER` makes what its repository holds, and no copy of the library.

The folder gets `README.md` with the front matter, `requirements.txt` and `app.py`; upload it with
`hf upload ORG/NAME FOLDER --repo-type space`. Every version in it is that of this repository and its environment.
"""

import argparse
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import metadata_load

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"
TEXT = """
# LLM-Blender

Rank the answers of several language models, see why, and see the best ones fused into one: the page of
`blender-hf`, on the two small checkpoints that come with it. To offer larger ones,
change the command in `app.py` to `main(["--ranker", "org/pair-ranker", "--fuser", "org/gen-fuser"])`.

The endpoints `/rank`, `/compare`, `/blend` and `/batch` can be called with `gradio_client`, and are tools of an MCP
server.
"""


def front_matter() -> dict[str, object]:
    """Return what Spaces read of a README."""
    cards = sorted((ROOT / "model_cards").glob("*-mini.md"))
    bases = {(metadata_load(card) or {}).get("base_model") for card in cards} - {None}
    return {
        "title": "LLM-Blender",
        "emoji": "🍹",
        "colorFrom": "blue",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": PYTHON,
        "app_file": "app.py",
        "license": "apache-2.0",
        "models": sorted(bases),
        "short_description": "Rank and fuse the answers of language models",
    }


def requirements(library: str | None = None) -> str:
    """Return the requirements of the Space.

    Args:
        library: What pip is asked for instead of the release of this version, such as `blender-hf[mcp] @ git+https://...`.
    """
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return "\n".join([library or f"blender-hf[mcp]=={version('blender-hf')}", *pins]) + "\n"


def build(folder: Path, library: str | None = None) -> None:
    """Write the three files into a folder, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    matter = yaml.safe_dump(front_matter(), sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{matter}---\n{TEXT}", encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(library), encoding="utf-8")
    shutil.copyfile(ROOT / "app.py", folder / "app.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the Space into the folder that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--library", help="what pip is asked for instead of the release of this version")
    options = parser.parse_args(arguments)
    if options.folder.exists() and not options.folder.is_dir():
        parser.error(f"{options.folder} is a file; name a folder, or a path where nothing is")
    build(options.folder, options.library)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
