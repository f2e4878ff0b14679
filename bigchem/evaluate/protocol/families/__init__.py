"""The metrics of each family of tasks: what their definition ids say and how they are computed.

Imported from outside: actions, captioning, generation, identifiers, labels, numbers, reactions, text.
"""
