"""What people look at for long: where its loops and their files are read, and how they are steered.

A screen only reads the files of a loop and only writes what the commands write: both call the same
functions, which are here. Nothing is imported here: `status` comes through."""
