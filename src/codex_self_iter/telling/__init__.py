"""The program that sends one word to one target. Needs the extra [notify]."""
