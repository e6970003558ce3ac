"""The workspace's content: git, commits, checkpoints, and a bounded scan where there is no git."""
