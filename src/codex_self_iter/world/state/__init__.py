"""The state directory: its files, how they are made durable, read back, kept and locked."""
