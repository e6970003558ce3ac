"""The agent command template: any path survives exactly."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codex_self_iter.core.template import for_a_shell, parse_template, render_template

paths = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",))
    | st.sampled_from(" '\"{}$\\\n\t*;é`"),
    min_size=1,
)


@given(paths, paths)
@example("/tmp/a b/'q'/\"d\"/{prompt_file}/$HOME/é\n", "{workspace}}}{{")
def test_every_path_survives_exactly(prompt: str, workspace: str) -> None:
    parts = parse_template('run --in="{workspace}" {prompt_file} "x {prompt_file} y"')
    assert render_template(parts, prompt, workspace) == (
        "run",
        f"--in={workspace}",
        prompt,
        f"x {prompt} y",
    )


@given(paths)
def test_literal_words_survive_when_braces_are_doubled(word: str) -> None:
    template = "run {prompt_file} " + shlex.quote(word.replace("{", "{{").replace("}", "}}"))
    assert render_template(parse_template(template), "P", "W") == ("run", "P", word)


@pytest.mark.parametrize("path", ["/a b", "/a'b'", '/"q"', "/a\\b", "/a\nb"])
def test_negative_control_substituting_before_splitting_breaks_the_path(path: str) -> None:
    naive = shlex.split("run {prompt_file}".replace("{prompt_file}", path))
    assert naive != ["run", path]
    assert render_template(parse_template("run {prompt_file}"), path, "W") == ("run", path)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "names no program"),
        ("   ", "names no program"),
        ('"" {prompt_file}', "names no program"),
        ("run", "must contain {prompt_file}"),
        ("run {workspace}", "must contain {prompt_file}"),
        ("run {{prompt_file}}", "must contain {prompt_file}"),
        ("run {prompt_file} {model}", "unknown field {model}"),
        ("run {prompt_file!r}", "unknown field {prompt_file!r}"),
        ("run {prompt_file:>9}", "unknown field"),
        ("run {} {prompt_file}", "unknown field {}"),
        ("run {prompt_file} {", "lone '{'"),
        ("run {prompt_file} }", "lone '}'"),
        ("run '{prompt_file}", "quote is never closed"),
        ("run {prompt_file} \\", "lone backslash"),
        ("run {prompt_file} \0", "NUL"),
    ],
)
def test_a_bad_template_is_refused_with_its_reason(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_template(template)


def test_comments_and_shell_syntax_are_plain_words() -> None:
    parts = parse_template("run {prompt_file} # $HOME `id` && x > y")
    assert render_template(parts, "p", "w") == (
        "run",
        "p",
        "#",
        "$HOME",
        "`id`",
        "&&",
        "x",
        ">",
        "y",
    )


@pytest.mark.parametrize(
    "template",
    [
        "sh -c 'exec qwen -y < \"$1\"' qwen {prompt_file}",
        "bash -lc '$(which x) | y < \"$1\"' x {prompt_file}",
        "a --where='x > 1' {prompt_file}",
        "a ';' '>' {prompt_file}",
        "aider --message-file {prompt_file}",
        "claude --append-system-prompt-file {prompt_file}",
        "my-agent {prompt_file} {workspace}",
        "scripts/invoke-codex-agent.sh {prompt_file} {workspace}",
        "opencode run --file {prompt_file} go",
    ],
)
def test_a_line_that_needs_no_shell_or_names_one_is_right(template: str) -> None:
    assert for_a_shell(template) == ""


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("qwen -y < {prompt_file}", "sh -c 'exec qwen -y < \"$1\"' qwen {prompt_file}"),
        ("qwen -y <{prompt_file}", "sh -c 'exec qwen -y <\"$1\"' qwen {prompt_file}"),
        (
            "agent {prompt_file} > out.txt",
            "sh -c 'exec agent \"$1\" > out.txt' agent {prompt_file}",
        ),
        ("agent {prompt_file} 2>&1", "so 2>&1 would be an argument"),
        (
            "agent {prompt_file} {workspace} | tee x",
            'sh -c \'agent "$1" "$2" | tee x\' agent {prompt_file} {workspace}',
        ),
        ("cd x && agent {prompt_file}", "so && would be an argument"),
        ("agent -p $(cat {prompt_file})", "so $(cat would be an argument"),
        ('agent -p "$(cat {prompt_file})"', "is not given to a shell"),
        ("agent -p `cat {prompt_file}`", "is not given to a shell"),
        ("a $HOME ; b {prompt_file}", "so ; would be an argument"),
        ("qwen -y {prompt_file}", "sh -c 'exec qwen -y < \"$1\"' qwen {prompt_file}"),
        (
            "/opt/bin/copilot -s {prompt_file} --allow-all-tools",
            "sh -c 'exec /opt/bin/copilot -s --allow-all-tools < \"$1\"' copilot {prompt_file}",
        ),
    ],
)
def test_what_only_a_shell_understands_is_refused_with_the_right_line(
    template: str, said: str
) -> None:
    flaw = for_a_shell(template)
    assert said in flaw
    right = flaw.rpartition("write: ")[2]
    assert for_a_shell(right) == ""
