"""What is a secret: the one list of variables' names and of keys' formats. Pure.

What looks like a secret is withheld from agents and, wherever it is kept, replaced. Withholding may
err on the careful side: a variable is handed on by one line of `pass_env`. Spoilt text is spoilt,
so redaction asks for more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

NAMES: Mapping[str, str] = {
    "ACCESSKEY": "",
    "APIKEYS?": "APIKEY",
    "AUTH": "",
    "AUTHTOKEN": "",
    "BEARER": "",
    "CERT": "",
    "COOKIES?": "",
    "CREDENTIALS?": "CREDENTIAL",
    "CREDS": "",
    "DSN": "",
    "JWT": "",
    "KEYS?": r"KEYS?(?:_|\d|$)",
    "PASS": "",
    "PASSPHRASE": "PASSPHRASE",
    "PASSWD": "PASSWD",
    "PASSWORDS?": "PASSWORD",
    "PAT": "",
    "PWD": "",
    "SECRETKEY": "",
    "SECRETS?": "SECRET",
    "TOKENS?": r"TOKEN(?!IZ|S\b|S_)",
    "WEBHOOK": "",
}
"""Words of a variable's name that make it a secret's; beside each, how it is known inside a longer
word ("": only as a word by itself, or PATTERN and COMPASS would be secrets)."""
HARMLESS = frozenset({"PWD", "OLDPWD"})
NEEDED = HARMLESS | {
    "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "SSH_AUTH_SOCK", "GPG_KEY", "XAUTHORITY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
}  # fmt: skip
"""Handed on although they look secret: places and sockets, without which git and ssh do not work. A
proxy's address may hold a password, and without it nothing is reached."""
# What such a name ends in when its value only says where or what the secret is.
_PLACE = re.compile(r"_(?:SOCK|SOCKET|PATH|FILE|DIR|HOME|TYPE|METHOD|ID)$")
# A number of tokens is none: only what stands before it can make such a name a secret's.
_COUNT = re.compile(r"(?<![^_])((?:MAX|MIN|NUM)_(?:\w+_)?)TOKENS$")


class Format(NamedTuple):
    """A known format of keys.

    Attributes:
        needle: text to look for: a plain search is a hundred times faster than one large
            expression, which is tried at a needle only.
        offset: how far into the format the needle is.
        pattern: the format; what is in its group `label` is no secret. What it scans before it is
            sure is bounded, so that no text is slow.
        hint: less than that, which is enough to withhold a variable."""

    needle: str
    offset: int
    pattern: str
    hint: str = ""


_EDGE = r"(?<![A-Za-z0-9])"
_WORD = r"[A-Za-z0-9_-]"
_MIXED = rf"(?={_WORD}{{0,64}}[0-9A-Z])"
_JWT = rf"eyJ{_WORD}{{8,512}}\.{_WORD}{{8,8192}}\.{_WORD}*"
_PEM = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_PEM_END = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_PEM_BODY = rf"(?:(?:[^-]|-(?!----)){{0,16384}}{_PEM_END}|(?:[A-Za-z0-9+/=]{{16,}}|\s|\\[nr])*)"
_BEARER = r"(?:[A-Za-z0-9._~+/=-]{20,}|(?=[A-Za-z._~+/=-]{0,64}\d)[A-Za-z0-9._~+/=-]{8,})"
_USER = r"://)[^\s/:@\"'<>]{1,256}:[^\s/@\"'<>]{1,256}(?=@)"
# AWS's secret keys have no format of their own: only their name tells, as AWS's files and tools
# write it. JSON may stand inside JSON.
_AWS = r"""\\{0,3}["']?[ \t]{0,8}[=:][ \t]{0,8}\\{0,3}["']?)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"""
FORMATS = (
    Format("sk-", 0, rf"{_EDGE}sk-(?:ant|proj|svcacct|admin|live|test|or)-{_WORD}{{8,}}"),
    Format("sk-", 0, rf"{_EDGE}sk-{_MIXED}{_WORD}{{16,}}", rf"\bsk-{_WORD}{{16}}"),
    Format("gh", 0, rf"{_EDGE}gh[pousr]_[A-Za-z0-9]{{16,}}"),
    Format("github_pat_", 0, rf"{_EDGE}github_pat_[A-Za-z0-9_]{{16,}}", r"\bgithub_pat_"),
    Format("glpat-", 0, rf"{_EDGE}glpat-{_WORD}{{16,}}", r"\bglpat-"),
    Format("AKIA", 0, rf"{_EDGE}AKIA[A-Z0-9]{{16}}(?![A-Za-z0-9])", r"\bAKIA[0-9A-Z]{12}"),
    Format("ASIA", 0, rf"{_EDGE}ASIA[A-Z0-9]{{16}}(?![A-Za-z0-9])"),
    Format("ecret_access_key", 1, rf"(?P<label>[Ss]ecret_access_key{_AWS}"),
    Format("SECRET_ACCESS_KEY", 0, rf"(?P<label>SECRET_ACCESS_KEY{_AWS}"),
    Format("ecretAccessKey", 1, rf"(?P<label>[Ss]ecretAccessKey{_AWS}"),
    Format("AIza", 0, rf"{_EDGE}AIza{_WORD}{{30,}}", rf"\bAIza{_WORD}{{20}}"),
    Format("xox", 0, rf"{_EDGE}xox[abeprs]-[A-Za-z0-9-]{{10,}}", r"\bxox[abprs]-"),
    Format("hf_", 0, rf"{_EDGE}hf_[A-Za-z0-9]{{24,}}"),
    Format("npm_", 0, rf"{_EDGE}npm_[A-Za-z0-9]{{20,}}"),
    Format("pypi-", 0, rf"{_EDGE}pypi-{_MIXED}{_WORD}{{20,}}", rf"\bpypi-{_WORD}{{20}}"),
    Format("eyJ", 0, rf"{_EDGE}{_JWT}", rf"\beyJ{_WORD}{{16,}}\."),
    Format("-----BEGIN ", 0, rf"{_PEM}{_PEM_BODY}", "-----BEGIN [A-Z ]*PRIVATE KEY"),
    Format("earer", 1, rf"(?P<label>{_EDGE}[Bb]earer[ \t]+){_BEARER}"),
    Format("EARER", 1, rf"(?P<label>{_EDGE}BEARER[ \t]+){_BEARER}"),
    Format("asic ", 1, r"(?P<label>(?<=uthorization: )[Bb]asic[ \t]+)[A-Za-z0-9+/=]{8,}"),
    Format("://", 0, rf"(?P<label>{_USER}", r"://[^/\s:@]+:[^/\s@]+@"),
)  # fmt: skip


class Secrets:
    """The tables, made ready for searching."""

    def __init__(self, names: Mapping[str, str], formats: Iterable[Format]) -> None:
        formats = tuple(formats)
        self._word = re.compile(rf"(?:^|_)(?:{'|'.join(names)})(?:_|\d|$)")
        self._inside = re.compile("|".join(filter(None, names.values())))
        self._formats = [(one.needle, one.offset, re.compile(one.pattern)) for one in formats]
        self._hints = re.compile("|".join(one.hint for one in formats if one.hint))

    def names_value(self, name: str) -> bool:
        """True when a variable of this name holds a secret itself, not its place or a number."""
        name = name.upper()
        if name in HARMLESS or _PLACE.search(name):
            return False
        name = _COUNT.sub(r"\1", name)
        return bool(self._word.search(name) or self._inside.search(name))

    def withheld(self, name: str, value: str = "") -> bool:
        """True when agents do not get a variable unless they need it or it is passed on."""
        if name.upper() in NEEDED:
            return False
        if self._word.search(name.upper()) or self.names_value(name):
            return True
        return bool(self._hints.search(value)) or any(self.spans(value))

    def spans(self, text: str, start: int = 0) -> Iterator[tuple[int, int]]:
        """(start, end) of every key of a known format from `start` on; unsorted, may overlap."""
        for needle, offset, pattern in self._formats:
            position = text.find(needle, start)
            while position >= 0:
                found = pattern.match(text, position - offset) if position >= offset else None
                if found is None:
                    position = text.find(needle, position + len(needle))
                    continue
                labelled = "label" in pattern.groupindex
                yield found.end("label") if labelled else found.start(), found.end()
                position = text.find(needle, found.end())


SECRETS = Secrets(NAMES, FORMATS)
