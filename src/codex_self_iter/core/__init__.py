"""What decides. Pure: standard library values only; no I/O, clock, await or logging (a test
enforces it)."""
