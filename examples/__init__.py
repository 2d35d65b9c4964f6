"""Small programs over the library: each runs in continuous integration."""
