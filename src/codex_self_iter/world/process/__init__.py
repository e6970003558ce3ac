"""Processes: starting, watching, ending and finding them, so that nothing outlives its iteration.

host.py        starts, finds and ends runs; spawner.py, launcher.py: how they are started;
               bare.py: what works in the launcher's bare interpreter, too
keeper.py      the thread that watches living runs; watched.py, monitor.py, output.py: what it
               looks at and what it makes of it
traces.py      what an earlier supervisor left; left.py: whether there is anything, at little cost
proctable.py   the machine's processes; kill.py: ending them for certain; cgroup.py: one more ring
tool.py        short commands such as git"""
