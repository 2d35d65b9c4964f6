"""How a model is calibrated and scored: one file per kind of task."""
