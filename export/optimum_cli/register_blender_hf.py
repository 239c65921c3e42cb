"""Lets `optimum-cli export onnx` know our models.

`optimum-cli` imports every module that lies in `optimum.commands.register`; this one is installed there.
"""

import sys

# Other commands need not wait for torch.
if "export" in sys.argv:
    from blender_hf.export.optimum_configs import register

    register()

REGISTER_COMMANDS: list[type] = []  # our models, but no command of our own
