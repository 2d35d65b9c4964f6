"""Real data for the reference models: seeded, calibration and evaluation parts disjoint."""
