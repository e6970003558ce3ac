"""The loops as tools for other programs: a server of the Model Context Protocol on stdin and stdout.

An implementation of our own: the protocol's part that offers tools is a few methods, the official
library brings 28 packages and imports for more than a second. Each tool is a command of ours, run as
a process: it can be ended when it takes too long, and whatever it does cannot spoil the stream."""
