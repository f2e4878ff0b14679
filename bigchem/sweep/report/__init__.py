"""An analysis as one HTML page, CSV, figures, TensorBoard.

Imported from outside: output_folder, tensorboard, write_report.
"""
