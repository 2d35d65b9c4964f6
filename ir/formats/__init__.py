"""What codes mean: pure encode and decode, one file per kind of element."""
