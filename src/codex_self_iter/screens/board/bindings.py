"""The keys of the board: what they are called, what they do, where they count."""

from __future__ import annotations

from typing import NamedTuple

TABS = ("output", "plan", "diff", "gates", "prompt", "messages", "history", "plots")
"""What can be seen of a loop or an iteration, in the order of the keys 1 to 8."""


class Binding(NamedTuple):
    """One line of the help. `keys`: as the terminal calls them; `shown`: as people do; `does`: the
    name of the method that the board calls, without `do_`."""

    keys: tuple[str, ...]
    shown: str
    does: str
    words: str


BINDINGS = (
    Binding(("j", "down"), "j ↓", "down", "next loop or iteration; a line down in an iteration"),
    Binding(("k", "up"), "k ↑", "up", "the one before; a line up"),
    Binding(("g", "home"), "g", "first", "the first; in an iteration the beginning"),
    Binding(("G", "end"), "G", "last", "the last; in an iteration the end"),
    Binding(("enter", "right", "l"), "enter", "zoom", "closer: loops, a loop, an iteration"),
    Binding(("escape", "left", "h", "backspace"), "esc", "back", "back; closes help and search"),
    Binding(("tab",), "tab", "next_tab", "the next of output, plan, diff, gates, prompt, …"),
    Binding(("shift+tab",), "shift-tab", "last_tab", "the one before"),
    Binding(tuple("12345678"), "1 … 8", "tab", "that one"),
    Binding(("pagedown", "space", "ctrl+f", "ctrl+d"), "space", "page_down", "scroll a page down"),
    Binding(("pageup", "ctrl+b", "ctrl+u"), "pgup", "page_up", "scroll a page up"),
    Binding(("f",), "f", "follow", "follow the newest iteration, or stay with this one"),
    Binding(("<",), "<", "earlier", "older iterations than those that were read"),
    Binding(("/",), "/", "search", "search: loops in the list, else the text that is shown"),
    Binding(("n",), "n", "next_match", "the next match"),
    Binding(("N",), "N", "last_match", "the match before"),
    Binding(("d",), "d", "diff", "what the iteration changed"),
    Binding(("p",), "p", "pause", "pause after the iteration; resume when it is paused"),
    Binding((":",), ":", "steer", "a message for the next prompt"),
    Binding(("!",), "!", "steer_now", "at once, if need be ending the agent"),
    Binding(("S",), "S", "stop_after", "stop after this iteration"),
    Binding(("X",), "X", "stop", "stop now"),
    Binding(("r",), "r", "rewind", "take the work tree back to the iteration"),
    Binding(("ctrl+l",), "ctrl-l", "repaint", "draw the whole screen anew"),
    Binding(("?",), "?", "help", "this help"),
    Binding(("q", "ctrl+c", "ctrl+q"), "q", "quit", "leave the board; the loops go on"),
)
"""Every key that does something; any other one says that it does nothing."""

BY_KEY = {key: binding for binding in BINDINGS for key in binding.keys}
