"""plan-shell: the agent that comes with the package. It needs no key and no network.

One run works on one item of plan.md: it runs the shell commands in the fences under the first open
item, ticks the item when all of them succeed, and answers with a control block. It does nothing
that the plan does not say: it is as trustworthy as the plan it is given, so it is only used when it
is asked for by name.

    work.py      the plan's file and the commands: read, run, tick
    answer.py    the control block: what is said about it
    __main__.py  the command line"""
