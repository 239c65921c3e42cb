"""Loading full weights in a process that trains another model in parts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# With this, FSDP lets only the first process of a machine read weights, and expects to send them to the others.
FSDP_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
ZERO_INIT = "deepspeed.runtime.zero.partition_parameters"


@contextmanager
def whole_weights() -> Iterator[None]:
    """Load full weights in every process, even under ZeRO-3 or FSDP; a ranker that judges for a trainer needs them.

    While either is set up, transformers gives each process a part of every model it loads, or memory without values,
    for the trainer to put together, which it does not do for a ranker. What was set is set again afterwards.
    """
    from transformers.integrations import deepspeed

    partitioning = sys.modules.get(ZERO_INIT)
    # transformers has a function that unsets it, and none that gives it back.
    zero_config = deepspeed._hf_deepspeed_config_weak_ref
    fsdp_loading = os.environ.pop(FSDP_LOADING, None)
    deepspeed.unset_hf_deepspeed_config()
    if partitioning is not None:
        partitioning.shutdown_init_context()
    try:
        yield
    finally:
        if partitioning is not None:
            partitioning.restore_init_context()
        deepspeed._hf_deepspeed_config_weak_ref = zero_config
        if fsdp_loading is not None:
            os.environ[FSDP_LOADING] = fsdp_loading
