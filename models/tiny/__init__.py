"""Seeded small networks with the structures that real models have, for fast tests.

Each module has `load(seed=0)`, `example()`, `calibration(n)`, `evaluation(n)`, `DYNAMIC` and
`OUTPUTS`, as the modules one level up.
"""
