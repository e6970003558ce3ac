"""What acts: one file for each part of the world. Adapters never decide.

Three wings, process/, state/ and git/, which know next to nothing of each other; what stands beside
them is small and may be used by all of them."""
