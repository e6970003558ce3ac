"""codex-self-iter: keep a coding agent working in a repository until the work is proven complete.

The map (arrows point at what a package may import):

    cli -> supervisor -> {world, agents} -> core
    cli -> screens -> {views, agents, world} -> core

    core/        decides. Pure: values in, values out; no I/O, clock, await or logging
    world/       acts, in wings: process/, state/, git/; beside them clock, pool, service manager
    agents/      one file for each kind of coding agent: how it is called, how its output is read
    supervisor/  the one meeting place: event -> decide -> persist -> act
    lanes/       several items of a plan at once: a loop and a work tree for each, and how they land
    setup/       what a start finds or is told: agents, gates, a task in one sentence
    views/       pure: what people are shown, from status, journal and logs
    screens/     what people look at for long: reads a loop's files, writes what the commands write
    metrics/     the same as numbers, in the forms that machines read
    settings/    the border at which configuration becomes frozen values
    cli/         a thin file for each command; __main__.py enters here
    service/     units for systemd and launchd
    demo/        a sample workspace with an agent that needs no key
    acp_host/    a program that runs one turn of an agent over the Agent Client Protocol
    plan_shell/  a small agent of our own: it carries out the commands of a plan
    telling/     a program that sends one word to one target
    replies/     a program that hears what a person answers, and does it
    mcp/         the loops as tools for other programs: the commands, over JSON-RPC
    testing/     public fakes: a scripted process host, a virtual clock
    errors.py    every error class and exit code

Nothing is imported here: `status` must start in well under 100 ms."""

__version__ = "0.1.0"
