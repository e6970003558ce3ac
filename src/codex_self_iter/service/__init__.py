"""The supervisor as a service: what is rendered for systemd and launchd, and how it is checked.

`data/` holds the templates. The files under `deploy/` are the same with symbolic paths, for people
who install by hand; a test compares them."""
