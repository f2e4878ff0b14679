"""An analysis as one HTML page, CSV, figures, TensorBoard.

Imported from outside: drawing, hover, output_folder, tensorboard, write_report.
"""
