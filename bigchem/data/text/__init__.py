"""Text to token ids and back without loss.

Imported from outside: tally, tokenizer.
"""
