"""The real codex in a container, against a local model server: its login, its answer's file and its
sandbox are as documented."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fence_container.conftest import Place
from tests.support.model_server import ModelServer, answer, shell
from tests.support.tiny_image import IMAGE

pytestmark = [pytest.mark.root, pytest.mark.slow]
ROOT = Path(os.environ.get("CODEX_SELF_ITER_REAL_AGENTS") or "~/.cache/codex-self-iter/agents")
BLOCK = {
    "summary": "Made it.", "next_goal": "Go on.", "reason": "", "evidence": [], "stop": False,
    "completed": False,
}  # fmt: skip


def test_codex_works_inside_with_its_own_home(place: Place) -> None:
    found = sorted(ROOT.expanduser().glob("node_modules/@openai/codex-*/vendor/*/bin/codex"))
    if not found:
        pytest.skip("codex is not installed (scripts/install-real-agents.sh)")
    program, home = found[0], place.home / ".codex"
    home.mkdir()
    with ModelServer([shell("cat /proc/1/comm > made.txt"), answer(BLOCK)]) as server:
        (home / "config.toml").write_text(
            'model_provider = "local"\nmodel = "gpt-5.5"\ncheck_for_update_on_startup = false\n'
            f'[analytics]\nenabled = false\n[model_providers.local]\nname = "local"\nbase_url = "{server.url}/v1"\n'
            'wire_api = "responses"\nenv_key = "LOCAL_API_KEY"\nrequest_max_retries = 0\n'
        )
        place.environment["LOCAL_API_KEY"] = "local-key"
        (place.path / "codex-self-iter.toml").write_text(
            f'agent = "codex"\nagent_mode = "bypass"\n[fence]\nlevel = "container"\nimage = "{IMAGE}"\n'
            f'allow_read = ["{program.parent.parent}"]\n'
            f'[agents.codex]\nbinary = "{program}"\npass_env = ["LOCAL_API_KEY"]\n'
        )
        assert place.run("--max-iterations", "1") == 0, place.log()
    assert (place.path / "made.txt").read_text() == "sh\n"
    (line,) = place.journal()
    assert (line["verdict"], line["summary"]) == ("continue", "Made it."), place.log()
    run = place.state / "logs" / "runs" / "000001-executor"
    assert "Made it." in (run / "answer.txt").read_text()
    assert any((home / "sessions").rglob("*.jsonl"))
