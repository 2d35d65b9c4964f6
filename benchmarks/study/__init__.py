"""Studies: models x recipes x conditions x seeds, each cell measured once as it is executed.

`studies.toml` says which cells a study has; `tasks/` how a model is calibrated and scored; `run.py`
measures the cells that have no row yet; `report.py` makes docs/results.md of all rows.
"""
