"""A run's records: metrics.jsonl, TensorBoard, Weights & Biases, profiles, the ledger of examples.

Imported from outside: ledger, profiler, scores, tensorboard, tracker.
"""
