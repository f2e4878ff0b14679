"""Weights of Hugging Face folders: checked, loaded and written.

Imported from outside: files, hf_config, hub, pretrained.
"""
