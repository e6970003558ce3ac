"""The board: all loops in a terminal, and each in depth. It needs the extra `screens`."""
