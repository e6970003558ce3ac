"""Lanes in the world: a work tree and a loop for each, and the queue that lands them.

`core.lane_machine` decides; here it is done. What a lane's agent does is a loop like any other."""
