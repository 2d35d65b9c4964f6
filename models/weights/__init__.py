"""Where pretrained weights come from: files of pinned packages, checked by SHA-256, and readers."""
