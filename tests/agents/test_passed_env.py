"""What an agent gets of our environment."""

from __future__ import annotations

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.core.secrets import SECRETS

SECRET = """
OPENAI_API_KEY GH_TOKEN GITHUB_TOKEN AWS_SECRET_ACCESS_KEY DB_PASSWORD PGPASSWORD NPM_AUTH_TOKEN STRIPE_KEY
MY_SECRET_2 SENTRY_DSN SMTP_PASS VAULT_CREDENTIALS SLACK_WEBHOOK_URL GITLAB_PAT apikey X_APIKEY
"""
HARMLESS = """
PATH HOME PWD OLDPWD LANG SSH_AUTH_SOCK GIT_ASKPASS KEYBOARD MONKEY_HOME TOKENIZERS_PARALLELISM COMPASS_DIR
XAUTHORITY GPG_KEY SSL_CERT_FILE HTTPS_PROXY https_proxy AUTHOR_NAME PATTERN
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_names_that_look_secret(name):
    assert SECRETS.withheld(name)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_names_that_do_not(name):
    assert not SECRETS.withheld(name, "http://user:pw@proxy:1" if "proxy" in name.lower() else "x")


@pytest.mark.parametrize(
    "value",
    [
        "sk-abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwx",
        "postgres://me:secret@db/x",
        "-----BEGIN RSA PRIVATE KEY-----\nx",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_values_that_look_secret(value):
    assert SECRETS.withheld("PLAIN", value)
    assert not SECRETS.withheld("PLAIN", "https://example.invalid/x")


OURS = {
    "PATH": "/bin",
    "HOME": "/h",
    "OPENAI_API_KEY": "o",
    "CODEX_API_KEY": "c",
    "ANTHROPIC_API_KEY": "a",
    "GEMINI_API_KEY": "g",
    "GH_TOKEN": "t",
    "CODEX_THREAD_ID": "around us",
    "CLAUDECODE": "1",
}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("codex", {"OPENAI_API_KEY", "CODEX_API_KEY"}),
        ("claude", {"ANTHROPIC_API_KEY"}),
        ("gemini", {"GEMINI_API_KEY"}),
        ("opencode", {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"}),
        ("plan-shell", set()),
        (
            "command",
            {"OPENAI_API_KEY", "CODEX_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GH_TOKEN"},
        ),
    ],
)
def test_each_agent_gets_its_own_keys_only(tmp_path, name, keys):
    config = AgentConfig(name, binary="/bin/sh", template="/bin/sh {prompt_file}")
    request = Request("", "/p", str(tmp_path), "", str(tmp_path), environment=OURS)
    env = catalog.get(name, config).prepare(request).env
    assert {key for key in env if key.endswith(("_KEY", "_TOKEN"))} == keys
    assert env["HOME"] == "/h"


@pytest.mark.parametrize("name", ["codex", "claude", "plan-shell"])
def test_an_agent_around_us_leaves_no_trace(tmp_path, name):
    request = Request("", "/p", str(tmp_path), "", str(tmp_path), environment=OURS)
    env = catalog.get(name, AgentConfig(name, binary="/bin/sh")).prepare(request).env
    assert "CODEX_THREAD_ID" not in env
    assert "CLAUDECODE" not in env


def test_pass_env_and_env_win(tmp_path):
    config = AgentConfig(
        "claude", binary="/bin/sh", pass_env=("GH_TOKEN",), env={"HOME": "/other", "X_KEY": "k"}
    )
    request = Request("", "/p", str(tmp_path), "", str(tmp_path), environment=OURS)
    env = catalog.get("claude", config).prepare(request).env
    assert (env["GH_TOKEN"], env["HOME"], env["X_KEY"]) == ("t", "/other", "k")
    assert "CODEX_API_KEY" not in env


def test_a_pattern_passes_a_family():
    env = agent_environment({"A_KEY": "1", "A_TOKEN": "2", "B_KEY": "3"}, passed=("A_*",))
    assert env == {"A_KEY": "1", "A_TOKEN": "2"}


def test_codex_keeps_the_keys_of_the_configured_providers(tmp_path):
    home = tmp_path / "codex"
    home.mkdir()
    (home / "config.toml").write_text(
        '[model_providers.mine]\nenv_key = "MINE_KEY"\nenv_http_headers = { "X" = "HEADER_TOKEN" }\n'
    )
    ours = OURS | {"MINE_KEY": "m", "HEADER_TOKEN": "h", "ARG_KEY": "a", "OTHER_KEY": "n"}
    args = ("-c", 'model_providers.x.env_key="ARG_KEY"')
    config = AgentConfig("codex", binary="/bin/sh", home=str(home), args=args)
    request = Request("", "/p", str(tmp_path), "", str(tmp_path), environment=ours)
    env = catalog.get("codex", config).prepare(request).env
    assert (env["MINE_KEY"], env["HEADER_TOKEN"], env["ARG_KEY"], env["CODEX_HOME"]) == (
        "m",
        "h",
        "a",
        str(home),
    )
    assert "OTHER_KEY" not in env


@pytest.mark.parametrize(
    "text", ["not toml [", "model_providers = 3", "[model_providers]\nx = 3\n"]
)
def test_a_broken_codex_configuration_breaks_nothing_here(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    config = AgentConfig("codex", binary="/bin/sh", home=str(tmp_path))
    catalog.get("codex", config).prepare(
        Request("", "/p", str(tmp_path), "", str(tmp_path), environment={})
    )
