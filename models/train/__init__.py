"""Scripts that train the reference models no package has: `python -m models.train.<model>`."""
