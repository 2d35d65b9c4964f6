"""Every figure that the documentation quotes, measured again beside the peers: see README.md."""
