"""One list: what is withheld from agents is redacted, and the other way round."""

from __future__ import annotations

import re

import pytest

from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.core.secrets import FORMATS, NAMES, SECRETS, Format, Secrets, secret_file
from codex_self_iter.world.state.redact import REDACTED, Redactor, secret_values

VALUE = "correct-horse-7"
KEYS = (
    "sk-ant-abcdefgh",
    "sk-" + "aB3" * 16,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11ABCDE_" * 8,
    "glpat-" + "x1Y2z3A4-_" * 2,
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "aws_secret_access_key = " + "wJa1/K7+" * 5,
    "AWS_SECRET_ACCESS_KEY=" + "wJa1/K7+" * 5,
    '"SecretAccessKey": "' + "wJa1/K7+" * 5 + '"',
    "AIza" + "SyA1b2C3d" * 4,
    "xoxb-123456789012-abcdefABCDEF",
    "hf_" + "aBcDeFgH" * 4,
    "npm_" + "aBcDeFgH1" * 4,
    "pypi-" + "AgEIcHlwaS5vcmc" * 4,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----",
    "Authorization: Bearer abc123def456",
    "Authorization: BEARER abc123def456",
    "Authorization: Basic dXNlcjpwYXNz",
    "postgres://me:hunter2@db/x",
)
"""One of each format, in the table's order."""
SAMPLES = tuple(zip(FORMATS, KEYS, strict=True))


def word(name: str) -> str:
    """A variable's name that holds the word."""
    return f"MY_{name.replace('?', '')}"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_redacted_and_withheld(name: str) -> None:
    ours = {word(name): VALUE, "PLAIN": "words"}
    assert agent_environment(ours) == {"PLAIN": "words"}
    assert secret_values(ours) == [VALUE]
    assert agent_environment(ours, passed=[word(name)]) == ours


@pytest.mark.parametrize(
    ("form", "key"), SAMPLES, ids=lambda one: one[:12] if isinstance(one, str) else ""
)
def test_every_format_is_redacted_and_withheld(form: Format, key: str) -> None:
    ours = {"PLAIN": key, "OTHER": "words"}
    assert agent_environment(ours) == {"OTHER": "words"}
    assert REDACTED in Redactor().text(f"x {key} y")
    assert re.search(form.rough, key)
    assert agent_environment(ours, needed=["PLAIN"]) == ours


@pytest.mark.parametrize("name", NAMES)
def test_negative_control_a_name_left_out_is_noticed(name: str) -> None:
    less = Secrets({key: value for key, value in NAMES.items() if key != name}, FORMATS)
    place = f"{word(name)}_FILE"
    assert SECRETS.withheld(place)
    assert not less.withheld(place)


@pytest.mark.parametrize(
    ("form", "key"), SAMPLES, ids=lambda one: one[:12] if isinstance(one, str) else ""
)
def test_negative_control_a_format_left_out_is_noticed(form: object, key: str) -> None:
    less = Secrets(NAMES, [one for one in FORMATS if one is not form])
    assert list(SECRETS.spans(key))
    assert not list(less.spans(key))
    assert not less.withheld("PLAIN", key)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPASS_DIR", "north"), ("PATTERN", "a.*b"), ("KEYBOARD", "us-international"),
        ("TOKENIZERS_PARALLELISM", "whatever-value"), ("AUTHOR_NAME", "Somebody Real"),
        ("PWD", "/home/somebody-else"), ("MONKEY_HOME", "/no/such/place"),
        ("TOPIC", "the task-scheduler and npm_config, pypi-server, hf_home; Basic internationalization"),
    ],
)  # fmt: skip
def test_ordinary_words_are_neither(name: str, value: str) -> None:
    assert agent_environment({name: value}) == {name: value}
    assert secret_values({name: value}) == []
    assert Redactor().text(value) == value


def test_a_count_of_tokens_is_no_text_to_look_for() -> None:
    assert secret_values({"MODEL_MAX_OUTPUT_TOKENS": "a-lot-of-them"}) == []
    assert secret_values({"SERVICE_TOKENS": VALUE}) == [VALUE]


def test_what_looks_secret_and_is_needed_is_handed_on() -> None:
    ours = {"SSH_AUTH_SOCK": "/tmp/s", "GPG_KEY": "0xABCDEF", "https_proxy": "http://me:pw@proxy:1"}
    assert agent_environment(ours) == ours


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
RSA = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEpAIBAAKCAQEA0Z3VS5\n"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".env", ""),
        ("app/.env.production", ""),
        (".env.example.local", ""),
        ("keys/id_rsa", ""),
        ("id_ed25519", ""),
        (".netrc", ""),
        (".git-credentials", ""),
        ("home/.aws/credentials", ""),
        (".npmrc", "registry=x\n//registry.example/:_authToken=abc\n"),
        (".pypirc", "[pypi]\npassword = x\n"),
        ("server.pem", f"a comment\n{KEY}"),
        ("notes.txt", RSA),
        ("account.json", '{"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhki'),
    ],
)
def test_a_file_that_is_plainly_a_secret_is_known(path: str, text: str) -> None:
    assert secret_file(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".env.example", "A="),
        (".env.sample", ""),
        ("app/.env.template", ""),
        ("id_rsa.pub", "ssh-rsa AAAA"),
        ("credentials", ""),
        ("credentials.py", "import os"),
        (".npmrc", "//registry.example/:_authToken=${TOKEN}\n;_auth=x\n_auth=\nsave=x\n"),
        (".pypirc", "[pypi]\nusername = x\npassword =\n"),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\nMIIEpAIBAAKCAQEA0Z3VS5\n"),
        ("key.py", 'HEAD = "-----BEGIN PRIVATE KEY-----"\n'),
        ("doc.md", "-----BEGIN PRIVATE KEY-----\n…\n-----END PRIVATE KEY-----\n"),
        ("environment", "TOKEN"),
    ],
)
def test_a_file_that_only_looks_like_one_is_not(path: str, text: str) -> None:
    assert secret_file(path, text) == ""
