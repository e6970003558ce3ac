"""Agent adapters: one file for each kind of agent. Parsers are pure."""
