"""Tests of codex_self_iter.replies."""
