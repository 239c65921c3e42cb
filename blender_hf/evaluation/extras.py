"""What evaluation needs that the package does not bring by itself."""

from importlib.util import find_spec

from blender_hf.errors import BlenderError

# By the name under which a package is imported, the name under which it is installed.
PACKAGES = {"scipy": "scipy", "sklearn": "scikit-learn"}


def require_extras() -> None:
    """Check, before the long work begins, that the packages of the extra are there.

    Raises:
        BlenderError: If one is not; the message names it and the extra.
    """
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise BlenderError(f"evaluation needs {' and '.join(missing)}: pip install 'blender-hf[evaluate]'")
