"""codex-self-iter: keep a coding agent working in a repository until the work is proven complete.

The map (arrows point at what a package may import):

    cli -> supervisor -> {world, agents} -> core

    core/        decides. Pure: values in, values out; no I/O, clock, await or logging
    world/       acts. One file for each part of the world: processes, files, git, clock, service manager
    agents/      one file for each kind of coding agent: how it is called and how its output is read
    supervisor/  the one meeting place: event -> decide -> persist -> act
    settings.py  the border at which configuration becomes frozen values
    cli/         a thin file for each command
    testing.py   public fakes: a scripted process host, a virtual clock

Nothing is imported here: `status` must start in well under 100 ms.
"""

__version__ = "0.1.0"
