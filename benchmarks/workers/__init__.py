"""One small script per quantizer, run in that quantizer's own environment: see protocol.py."""
