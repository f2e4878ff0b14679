"""Our attention inside transformers' own T5: users call `register` (docs/model.md).

Imported from outside: nothing.
"""

from bigchem.model.in_transformers.attention import register

__all__ = ["register"]
