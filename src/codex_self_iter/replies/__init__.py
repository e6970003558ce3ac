"""Replies of a person to the loops of this user, by ntfy or Telegram: a program of its own, fed by a
supervisor over standard input, that acts by the files of the state directories like any command."""
