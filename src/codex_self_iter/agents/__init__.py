"""Agent adapters: one file for each kind of agent. Parsers are pure.

base.py         what an adapter is: AgentConfig, Request, Invocation, Probe, Agent
stream.py       what agents say, in one vocabulary: Event, Parsed, `fold`
classify.py     why a run failed (pure): tables, then `classify`
reset_time.py   when a limit ends, from prose (pure)
pricing.py      tokens to money, from the configured table (pure)
passed_env.py   which variables an agent gets (pure)
cli_agent.py    what the adapters of event-streaming CLIs share
run_files.py    bounded reading of a run's directory
probe.py        finding a binary; "installed, which version, logged in?"
codex.py claude.py gemini.py opencode.py command.py plan_shell.py    the adapters
acp.py          all agents over the Agent Client Protocol; what is particular is core/acp_agents.py
rollout.py      codex's own record of a thread: error class, reset time, tokens of a killed run
catalog.py      names to adapters; what is installed here; whose stream an event belongs to

A new agent is one row in core/acp_agents.py; one that needs an adapter of its own is one file here
and its name in core/agent_names.py."""
