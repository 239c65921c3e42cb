"""`python -m blender_hf` is the command `blender-hf`, as for `accelerate launch -m blender_hf train ...`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
