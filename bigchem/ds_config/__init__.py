"""DeepSpeed's configuration: read, checked key by key, completed by what the run configuration owns. No torch needed.

Imported from outside: this package, by_deepspeed.
"""

from bigchem.ds_config.completing import Completed, completed, ds_config_for, offloads, zero_stage

__all__ = ["Completed", "completed", "ds_config_for", "offloads", "zero_stage"]
