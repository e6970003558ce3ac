"""Where replies come from: a topic of an ntfy server, or a bot of Telegram.

A channel is asked for what came after a mark, waits for a while if nothing did, and can be told
something. No text of a failure has a secret in it."""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

import requests
import urllib3

from codex_self_iter.core.foreign import as_dict, as_int, as_list, as_text
from codex_self_iter.core.reply import Heard, digest
from codex_self_iter.core.text import clean

CONNECT_SEC, SILENT_SEC = 10.0, 90.0
"""For a connection, and for the next sign of life: ntfy sends one each 45 seconds."""
POLL_SEC = 50
"""How long Telegram holds a request for updates."""
BETWEEN_SEC = 15.0
"""A topic whose stream is held back on its way is asked so often."""
BUSY, BUSY_SEC = (429, 503), 2.0
"""HTTP statuses that ask to come again, and the wait where they do not say when."""
MOST_BYTES, MOST_TEXT = 4_000_000, 3_500
"""Of one answer of a server, and of what is said to a person."""
_BOT = re.compile(r"/\w+@(\w+)")
"""A command in a group, for one of its bots."""
TELEGRAM = "https://api.telegram.org"


class ChannelError(Exception):
    """Why a channel could not be asked or told. `after_sec`: not to be asked again before."""

    def __init__(self, text: str, after_sec: float = 0.0) -> None:
        super().__init__(text)
        self.after_sec = after_sec


class SilentError(ChannelError):
    """Nothing came for longer than it may take."""


class Told(NamedTuple):
    """A reply, the channel's mark after it, and where an answer to it goes."""

    heard: Heard
    mark: str
    to: tuple[Any, ...] = ()


class Channel:
    """One of them.

    Attributes:
        key: the same for the same topic or bot, however it is written.
        shown: what logs call it.
        login: what may change while it is the same."""

    key: str
    shown: str
    login = ""

    def first(self) -> str:
        """The mark of a channel that was never asked."""
        raise NotImplementedError

    def begin(self, mark: str) -> None:
        """Have it answer once, before it is waited for what came after this mark. Raises ChannelError."""
        raise NotImplementedError

    def wait(self, mark: str) -> tuple[list[Told], str]:
        """What came after this mark, and the next one. Raises ChannelError."""
        raise NotImplementedError

    def say(self, text: str, to: tuple[Any, ...]) -> None:
        """Answer; `to` is what came with the reply. Raises ChannelError."""
        raise NotImplementedError

    def proof(self, allowed: str) -> str:
        """The digest of somebody who is allowed. Raises ValueError for what proves nothing."""
        return digest(allowed.strip())

    def close(self) -> None:
        """Give back what is open."""


def channel(url: str) -> Channel:
    """The channel that a URL names. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme == "tgram":
        return Telegram(rest.split("/")[0])
    if scheme in ("ntfy", "ntfys"):
        return Ntfy(url)
    raise ValueError("replies come by ntfy://, ntfys:// or tgram:// only")


@contextlib.contextmanager
def _asking(name: str) -> Iterator[None]:
    """Failures of the network in words without URLs: a token may be a part of one."""
    try:
        yield
    except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise SilentError(f"{name} does not answer") from error
    except requests.Timeout as error:
        raise ChannelError(f"{name} does not answer") from error
    except requests.exceptions.SSLError as error:
        raise ChannelError(f"{name} has no certificate that is trusted") from error
    except requests.exceptions.ProxyError as error:
        raise ChannelError(f"{name}: the proxy refuses") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ChannelError(f"{name} cannot be reached, or ended the connection") from error


def _session() -> requests.Session:
    """What is read piece by piece is not unpacked, and must not grow when it is."""
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    return session


def _bounded(response: requests.Response) -> Any:
    """An answer as JSON; None for what is none, or too much."""
    data = response.raw.read(MOST_BYTES + 1, decode_content=True)
    if len(data) > MOST_BYTES:
        return None
    return _parsed(data)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _rest(status: int, said: object) -> float:
    """Seconds for which a server that answers so wants to be left alone."""
    return max(_seconds(said), BUSY_SEC) if status in BUSY else 0.0


def _seconds(text: object) -> float:
    try:
        return min(max(0.0, float(str(text))), 3600.0)
    except ValueError:
        return 0.0


class Ntfy(Channel):
    """A topic. Whoever writes there proves with the first word of a message that he is allowed; a
    message with a title is no reply."""

    def __init__(self, url: str) -> None:
        """`ntfy[s]://[TOKEN@|USER:PASSWORD@]HOST[:PORT]/TOPIC`. Raises ValueError."""
        parts = urllib.parse.urlsplit(url)
        topic = parts.path.strip("/")
        if not parts.hostname or not topic or "/" in topic or parts.query:
            raise ValueError("a topic is written ntfys://HOST/TOPIC or ntfys://TOKEN@HOST/TOPIC")
        scheme = "http" if parts.scheme == "ntfy" else "https"
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._base = f"{scheme}://{host}{port}/{topic}"
        self._session = _session()
        self.login = parts.netloc
        user, password = (
            urllib.parse.unquote(text or "") for text in (parts.username, parts.password)
        )
        if password:
            self._session.auth = (user, password)
        elif user:
            self._session.headers["Authorization"] = f"Bearer {user}"
        self.key = digest(self._base)
        self.shown = f"ntfy at {parts.hostname}"
        self._stream: requests.Response | None = None
        self._rest = b""
        self._polls = self._heard = False
        """Whether it is asked now and then, for its stream is held back on its way; whether anything came
        by the stream that is open."""

    def proof(self, allowed: str) -> str:
        if len(allowed.split()) != 1 or len(allowed) < 8:
            raise ValueError("a word that is allowed has 8 characters or more, and no blank")
        return digest(allowed.casefold())  # a phone begins with a capital

    def first(self) -> str:
        return str(int(time.time()))

    def begin(self, mark: str) -> None:
        try:
            with _asking(self.shown):
                self._stream = self._stream or self._open(mark)
        except SilentError:
            self._ask(mark)  # raises what is wrong with it, if anything is
            self._polls = True

    def wait(self, mark: str) -> tuple[list[Told], str]:
        if self._polls:
            time.sleep(BETWEEN_SEC)
            return self._poll(mark)
        try:
            with _asking(self.shown):
                stream = self._stream = self._stream or self._open(mark)
                data = stream.raw.read1(65536)
        except SilentError:
            held_back = not self._heard
            self.close()
            if held_back:  # a server says something at once: a proxy may keep it to itself
                return self._poll(mark)
            raise
        except ChannelError:
            self.close()
            raise
        self._heard = True
        if not data:
            self.close()  # the server has ended it, as it may: the next look goes on
            time.sleep(1.0)
            return [], mark
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_BYTES:
            self.close()
            raise ChannelError(f"{self.shown} sends what is no message")
        return self._taken(lines, mark)

    def _poll(self, mark: str) -> tuple[list[Told], str]:
        """What is there now; the stream is tried again after a failure."""
        self._polls = False
        found = self._taken(self._ask(mark).split(b"\n"), mark)
        self._polls = True
        return found

    def _ask(self, mark: str) -> bytes:
        with _asking(self.shown), self._get({"since": mark, "poll": "1"}, CONNECT_SEC) as response:
            data = response.raw.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ChannelError(f"{self.shown} sends what is no message")
        return bytes(data)

    def _taken(self, lines: list[bytes], mark: str) -> tuple[list[Told], str]:
        found = []
        for line in lines:
            message = as_dict(_parsed(line))
            if message.get("event") != "message" or not as_text(message.get("id")):
                continue
            mark = as_text(message.get("id"))
            if not message.get("title"):  # what loops and this program say has one
                found.append(self._told(message))
        return found, mark

    def _open(self, mark: str) -> requests.Response:
        self._rest, self._heard = b"", False
        return self._get({"since": mark}, SILENT_SEC)

    def _get(self, params: dict[str, str], silent_sec: float) -> requests.Response:
        response = self._session.get(
            f"{self._base}/json",
            params=params,
            stream=True,
            timeout=(CONNECT_SEC, silent_sec),
            allow_redirects=False,
        )
        self._judge(response)
        return response

    def _judge(self, response: requests.Response) -> None:
        """Raises ChannelError, and closes it, where it is no good answer."""
        status = response.status_code
        if status != 200:
            response.close()
            after = _rest(status, response.headers.get("retry-after"))
            raise ChannelError(f"{self.shown} answers {status}", after)

    @staticmethod
    def _told(message: dict[str, Any]) -> Told:
        word, _, text = as_text(message.get("message")).strip().partition(" ")
        if "\n" in word:
            word, _, text = word.partition("\n")
        at = float(as_int(message.get("time")))
        key = as_text(message.get("id"))
        return Told(Heard(key, "", digest(word.casefold()), text, at), key)

    def say(self, text: str, to: tuple[Any, ...]) -> None:  # noqa: ARG002  (a topic is one place)
        with _asking(self.shown):
            response = self._session.post(
                self._base,
                data=text[:MOST_TEXT].encode(),
                headers={"Title": "codex-self-iter"},
                timeout=CONNECT_SEC,
                allow_redirects=False,
                stream=True,  # what it says to it is not read
            )
            response.close()
        self._judge(response)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._rest = None, b""


class Telegram(Channel):
    """A bot. Who writes to it is known by the number that Telegram gives a user."""

    def __init__(self, token: str) -> None:
        """Raises ValueError for what is no token."""
        number, _, secret = token.partition(":")
        if not (number.isdigit() and secret):
            raise ValueError("a bot is written tgram://TOKEN, with the token that BotFather gave")
        self._base = f"{TELEGRAM}/bot{token}"
        self._session = _session()
        self.key = digest(f"telegram {token}")
        self.shown = f"Telegram's bot {number}"
        self._name: str | None = None

    def proof(self, allowed: str) -> str:
        if not allowed.strip().isdigit():
            raise ValueError("who is allowed at Telegram is named by the number of the user")
        return super().proof(allowed)

    def first(self) -> str:
        return "0"

    def begin(self, mark: str) -> None:  # noqa: ARG002  (what it is called is the same at any)
        if self._name is None:
            me = as_dict(self._ask("getMe", {}, CONNECT_SEC))
            self._name = as_text(me.get("username")).lower()

    def wait(self, mark: str) -> tuple[list[Told], str]:
        self.begin(mark)
        asked = {"timeout": POLL_SEC, "offset": int(mark), "allowed_updates": ["message"]}
        updates = self._ask("getUpdates", asked, POLL_SEC + CONNECT_SEC)
        found = []
        for update in map(as_dict, as_list(updates)):
            number = as_int(update.get("update_id"))
            mark = str(number + 1)  # after a week without any they begin anew, also lower
            message = as_dict(update.get("message"))
            sender, chat = as_dict(message.get("from")), as_dict(message.get("chat"))
            who = as_int(sender.get("id"))
            about = as_text(as_dict(message.get("reply_to_message")).get("text"))
            # whoever writes for a whole group or channel is not known to be this user
            known = who and not sender.get("is_bot") and "sender_chat" not in message
            heard = Heard(
                key=str(number),
                sender=str(who or "?"),
                proof=digest(str(who)) if known else "",
                text=as_text(message.get("text")) or as_text(message.get("caption")),
                at=float(as_int(message.get("date"))),
                about=about,
            )
            to = chat.get("id"), message.get("message_id")
            addressed = _BOT.match(heard.text)
            if not (addressed and self._name) or addressed[1].lower() == self._name:
                found.append(Told(heard, mark, to))
        return found, mark

    def say(self, text: str, to: tuple[Any, ...]) -> None:
        chat, message = to
        answered = {"message_id": message, "allow_sending_without_reply": True}
        asked = {"chat_id": chat, "text": text[:MOST_TEXT], "reply_parameters": answered}
        self._ask("sendMessage", asked, CONNECT_SEC)

    def _ask(self, method: str, asked: dict[str, Any], timeout: float) -> Any:
        with _asking(self.shown):
            response = self._session.post(
                f"{self._base}/{method}",
                json=asked,
                timeout=(CONNECT_SEC, timeout),
                allow_redirects=False,
                stream=True,
            )
            with response:
                answer = as_dict(_bounded(response))
        if response.status_code == 200 and answer.get("ok") is True:
            return answer.get("result")
        if response.status_code == 409:
            raise ChannelError(
                f"{self.shown} is asked by another program, too, or has a webhook", 30.0
            )
        if response.status_code in (401, 404):
            raise ChannelError(f"{self.shown} is not known: is the token right?")
        after = as_dict(answer.get("parameters")).get("retry_after") or 0
        said = clean(as_text(answer.get("description")), 100)
        code = response.status_code
        raise ChannelError(
            f"{self.shown} answers {code}{': ' * bool(said)}{said}", _rest(code, after)
        )
