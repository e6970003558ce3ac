"""One run of an agent that speaks the Agent Client Protocol (ACP), as a program of its own.

    codex-self-iter-acp [--mode safe|bypass] … -- COMMAND

The prompt on stdin, events as JSON lines on stdout, the agent's stderr passed through. So the
supervisor runs it like any other CLI: containment, caps, time-outs and adoption know nothing of
the protocol.

    wire.py          JSON-RPC 2.0 over the agent's stdin and stdout: lines, bounded
    session.py       from the agent's start to a session in its mode
    permissions.py   what an agent may do when it asks (pure)
    said.py          the agent's updates as whole messages and tool calls (pure)
    usage.py         what its counts of tokens and money mean, as one sum (pure)
    control.py       the control file: steer, cancel
    turn.py          one run: start, prompt, permissions, steering, end
    __main__.py      the command line

Standard library only and no threads: it starts in a moment and is idle while the agent thinks.
The client is our own because the SDK of the protocol takes 1.3 s and 42 MB to import."""
