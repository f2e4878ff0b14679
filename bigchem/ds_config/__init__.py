"""DeepSpeed's configuration: the file that a run names, checked key by key and completed by what the run configuration
owns, before anything is queued. Needs neither torch nor deepspeed, but for `by_deepspeed`.

key.py, keys.py and zero_keys.py say what is known of every key, checking.py compares, owned.py and
combinations.py look at the run; completing.py puts all of it together.
"""

from bigchem.ds_config.completing import Completed, completed, ds_config_for, offloads, zero_stage

__all__ = ["Completed", "completed", "ds_config_for", "offloads", "zero_stage"]
