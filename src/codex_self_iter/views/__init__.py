"""Pure functions from state, journal and events to what people read."""
