"""Marks of goals and of plan items: short, the same for what says the same, and no secret's copy.

Light to import: `plan show` reads them."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Fold case, white space and punctuation, so that "Fix  tests!" equals "fix tests"."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub(" ", folded).strip()


def mark(text: str) -> str:
    """Tells texts apart that are not the same after `normalise`, and says nothing of them: a secret
    in one would be no longer known for one, once it is folded."""
    return hashlib.sha256(normalise(text).encode("utf-8", "replace")).hexdigest()[:16]
