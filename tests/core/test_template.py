"""The agent command template: any path survives exactly."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codex_self_iter.core.template import parse_template, render_template

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
