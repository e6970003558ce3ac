"""What acts: one file for each part of the world. Adapters never decide."""
