"""Rows, tokens, shards, the order of examples, and packed batches."""
