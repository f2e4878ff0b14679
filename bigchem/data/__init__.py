"""From sources to a rank's share of a step: rows, tokens, shards, the order of examples, packed micro-batches.

Imported from outside: loader, packing, ragged, step_plan.
"""
