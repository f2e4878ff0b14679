"""ZeRO checkpoint -> Hugging Face folder, streamed, with its loss checked against the engine's.

Imported from outside: this package, choose.
"""

from bigchem.export.choose import find_checkpoints
from bigchem.export.consolidate import Exported, export, is_newest, model_folder

__all__ = ["Exported", "export", "find_checkpoints", "is_newest", "model_folder"]
