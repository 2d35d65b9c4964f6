"""Which layer gets which format: measured, never guessed from a name."""
