"""What a model's folder says about it to others, and its way to the Hugging Face hub. Needs no torch.

Imported from outside: card, lineage, provenance, push.
"""
