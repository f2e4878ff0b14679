"""DeepSpeed configuration files: read, checked key by key, and completed from the run configuration. Needs no torch.

Imported from outside: this package, by_deepspeed.
"""

from bigchem.ds_config.completing import QUIET, Completed, completed, ds_config_for, offloads, refuse_on_cpu, zero_stage

__all__ = ["QUIET", "Completed", "completed", "ds_config_for", "offloads", "refuse_on_cpu", "zero_stage"]
