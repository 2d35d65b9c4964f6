"""What spoils real data: seeded, of a stated strength."""
