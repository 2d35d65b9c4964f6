"""How to use ptqc from Python; every file here is run by tests/test_examples.py."""
