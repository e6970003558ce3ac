"""What is a secret: the one list of names of variables and files, and of keys' formats. Pure.

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
    """A known format of keys. No text is slow: what is found not to be a key is gone over once.

    Attributes:
        needle: what it begins with, literally: what a text is searched for.
        pattern: the format from the needle on. What is in its group `label` is no secret, and where
            its group `none` is found there is none.
        rough: where this is not found, the format is not either. Of what engines have in common
            that read a text once. Two leave letters out, for speed: with these a run of one letter
            looks like the beginning of something to the engine, at each place.
        hint: less than the format, which is enough to withhold a variable."""

    needle: str
    pattern: str
    rough: str
    hint: str = ""


def _alone(needle: str) -> str:
    """The needle, not as the end of a word."""
    return rf"{needle}(?<![A-Za-z0-9]{needle})"


_WORD = r"[A-Za-z0-9_-]"
_NONE = rf"(?P<none>{_WORD}*+)"  # as little as what it begins with are the later needles in it
_MIXED = r"(?=[a-z_-]*+[0-9A-Z])"
_JWT = rf"{_WORD}{{8,}}+\.{_WORD}{{8,}}+\.{_WORD}*+"
_PEM = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_PEM_END = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_PEM_TO_END = rf"(?>(?:[^-]|-(?!----)){{0,16384}}){_PEM_END}"
_PEM_BODY = rf"(?:{_PEM_TO_END}|(?>(?:[A-Za-z0-9+/=]{{16,}}+|\s|\\[nr])*))"
_SIGN = r"[A-Za-z0-9._~+/=-]"
_BEARER = rf"(?:{_SIGN}{{20,}}+|(?=[A-Za-z._~+/=-]{{0,64}}+\d){_SIGN}{{8,}}+)"
_USER = r"(?P<label>://)[^\s/:@\"'<>]{1,256}+:[^\s/@\"'<>]{1,256}+(?=@)"
# AWS's secret keys have no format of their own: only their name tells, as AWS's files and tools
# write it. JSON may stand inside JSON.
_IS = r"""\\{0,3}["']?[ \t]{0,8}[=:][ \t]{0,8}\\{0,3}["']?"""
_AWS = rf"{_IS})[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+=])"
FORMATS = (
    Format("sk-", rf"{_alone('sk-')}(?:ant|proj|svcacct|admin|live|test|or)-{_WORD}{{8,}}",
        rf"sk-{_WORD}{{11}}"),
    Format("sk-", rf"{_alone('sk-')}(?:{_MIXED}{_WORD}{{16,}}+|{_NONE})",
        rf"sk-{_WORD}{{16}}", rf"\bsk-{_WORD}{{16}}"),
    Format("gh", rf"{_alone('gh')}[pousr]_[A-Za-z0-9]{{16,}}", r"h[pousr]_[A-Za-z0-9]{16}"),
    Format("github_pat_", rf"{_alone('github_pat_')}[A-Za-z0-9_]{{16,}}", "github_pat_",
        r"\bgithub_pat_"),
    Format("glpat-", rf"{_alone('glpat-')}{_WORD}{{16,}}", "glpat-", r"\bglpat-"),
    Format("AKIA", rf"{_alone('AKIA')}[A-Z0-9]{{16}}(?![A-Za-z0-9])", "AKIA[A-Z0-9]{16}",
        r"\bAKIA[0-9A-Z]{12}"),
    Format("ASIA", rf"{_alone('ASIA')}[A-Z0-9]{{16}}(?![A-Za-z0-9])", "ASIA[A-Z0-9]{16}"),
    Format("ecret_access_key", rf"(?P<label>ecret_access_key(?<=[Ss]ecret_access_key){_AWS}",
        f"ecret_access_key{_IS}[A-Za-z0-9/+]{{40}}"),
    Format("SECRET_ACCESS_KEY", rf"(?P<label>SECRET_ACCESS_KEY{_AWS}",
        f"SECRET_ACCESS_KEY{_IS}[A-Za-z0-9/+]{{40}}"),
    Format("ecretAccessKey", rf"(?P<label>ecretAccessKey(?<=[Ss]ecretAccessKey){_AWS}",
        f"ecretAccessKey{_IS}[A-Za-z0-9/+]{{40}}"),
    Format("AIza", rf"{_alone('AIza')}{_WORD}{{30,}}", rf"AIza{_WORD}{{30}}",
        rf"\bAIza{_WORD}{{20}}"),
    Format("xox", rf"{_alone('xox')}[abeprs]-[A-Za-z0-9-]{{10,}}", "xox[abeprs]-[A-Za-z0-9-]{10}",
        r"\bxox[abprs]-"),
    Format("hf_", rf"{_alone('hf_')}[A-Za-z0-9]{{24,}}", "hf_[A-Za-z0-9]{24}"),
    Format("npm_", rf"{_alone('npm_')}[A-Za-z0-9]{{20,}}", "npm_[A-Za-z0-9]{20}"),
    Format("pypi-", rf"{_alone('pypi-')}(?:{_MIXED}{_WORD}{{20,}}+|{_NONE})",
        rf"pi-{_WORD}{{20}}", rf"\bpypi-{_WORD}{{20}}"),
    Format("eyJ", rf"{_alone('eyJ')}(?:{_JWT}|{_NONE})",
        rf"eyJ{_WORD}{{8}}{_WORD}*\.{_WORD}{{8}}{_WORD}*\.", rf"\beyJ{_WORD}{{16,}}\."),
    Format("-----BEGIN ", rf"{_PEM}{_PEM_BODY}", "-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----",
        "-----BEGIN [A-Z ]*PRIVATE KEY"),
    Format("earer", rf"(?P<label>earer(?<=[Bb]earer)(?<![A-Za-z0-9].earer)[ \t]++){_BEARER}",
        rf"earer[ \t]+{_SIGN}{{8}}"),
    Format("EARER", rf"(?P<label>EARER(?<=BEARER)(?<![A-Za-z0-9].EARER)[ \t]++){_BEARER}",
        rf"EARER[ \t]+{_SIGN}{{8}}"),
    Format("asic ", r"(?P<label>asic (?<=uthorization: [Bb]asic )[ \t]*+)[A-Za-z0-9+/=]{8,}",
        "uthorization: [Bb]asic "),
    Format("://", _USER, r"://[^/:@\"'<> \t\n]+:[^/@\"'<> \t\n]+@", r"://[^/\s:@]+:[^/\s@]+@"),
)  # fmt: skip


_FILE = re.compile(
    r"\.env|\.env\..*(?<!\.example)(?<!\.sample)(?<!\.template)|id_(?:rsa|dsa|ecdsa|ed25519)"
    r"|\.netrc|_netrc|\.pgpass|\.git-credentials"
)
"""Names of files that hold secrets and nothing else. Beside `.env` lies an example without any."""
_SETTINGS = {
    ".npmrc": re.compile(r"(?m)^[^#;\n]*_(?:authToken|auth|password)[ \t]*=[ \t]*+(?!\$\{)\S"),
    ".pypirc": re.compile(r"(?m)^[ \t]*password[ \t]*[=:][ \t]*\S"),
}
"""Names of files that hold a secret when this is in them."""
_BEGIN = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_KEY_FILE = re.compile(
    rf"(?m)^{_BEGIN}\r?\n(?:[\w-]+: .*\r?\n)*\s*[A-Za-z0-9+/=]{{16}}"
    rf"|\"private_key\"\s*:\s*\"{_BEGIN}\\n[A-Za-z0-9+/=]{{16}}"
)


def secret_file(path: str, head: str) -> str:
    """What makes a file plainly a secret, by its name or how its text begins; "" when nothing does.

    A text that only speaks of keys (a header in the middle of a line, without a body) is none."""
    directory, _, name = path.rpartition("/")
    aws = name == "credentials" and directory.endswith(".aws")
    if aws or _FILE.fullmatch(name):
        return "looks like a secret by its name"
    if name in _SETTINGS and _SETTINGS[name].search(head):
        return "has a password or token in it"
    return "has a private key in it" if _KEY_FILE.search(head) else ""


class Secrets:
    """The tables, made ready for searching."""

    def __init__(self, names: Mapping[str, str], formats: Iterable[Format]) -> None:
        formats = tuple(formats)
        self._word = re.compile(rf"(?:^|_)(?:{'|'.join(names)})(?:_|\d|$)")
        self._inside = re.compile("|".join(filter(None, names.values())))
        self._formats = [(one.needle, re.compile(one.pattern)) for one in formats]
        self.rough = "|".join(one.rough for one in formats)
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
        for needle, pattern in self._formats:
            first = text.find(needle, start)
            if first < 0:  # found ten times as fast as by the expression
                continue
            groups = pattern.groupindex
            for found in pattern.finditer(text, first):
                if "none" not in groups or found.start("none") < 0:
                    yield found.end("label") if "label" in groups else found.start(), found.end()


SECRETS = Secrets(NAMES, FORMATS)
