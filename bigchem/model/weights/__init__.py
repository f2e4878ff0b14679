"""Weights of Hugging Face folders: read strictly, loaded, and written.

Imported from outside: files, hf_config, hub, pretrained.
"""
