"""The packed T5: presets, operation counts, attention, and the module itself."""
