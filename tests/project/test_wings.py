"""The wings of the world know each other only where it is written down here."""

from __future__ import annotations

import ast

import pytest

from tests.project.test_purity import PACKAGE

WORLD = "codex_self_iter.world"
WINGS = {"process", "state", "git"}
CROSSINGS = {
    ("bounded", "process.proctable"),
    ("git.held_index", "process.proctable"),
    ("git.held_index", "state.holder"),
    ("port_ranges", "state.holder"),
    ("git.ledger", "state.root"),
    ("process.host", "state.durable"),
    ("process.host", "state.holder"),
    ("process.proctable", "state.holder"),
    ("process.traces", "state.holder"),
    ("process.watched", "state.durable"),
    ("registry", "state.durable"),
    ("registry", "state.holder"),
}
"""(module, what it imports of another wing): whole writes and guarded reads, the boot's name."""


def crossings(module: str, source: str) -> set[tuple[str, str]]:
    """What a module of a wing imports of another one; a shared part may import no wing at all."""
    home = module.partition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = node.module in {f"{WORLD}.{wing}" for wing in WINGS}  # its names are modules
            names |= {
                f"{node.module}.{one.name}" if whole else str(node.module) for one in node.names
            }
    inner = {name.removeprefix(f"{WORLD}.") for name in names if name.startswith(f"{WORLD}.")}
    return {(module, name) for name in inner if name.partition(".")[0] in WINGS - {home}}


def test_wings_import_each_other_only_where_it_is_listed() -> None:
    world = PACKAGE / "world"
    found = set()
    for path in world.rglob("*.py"):
        module = ".".join(path.relative_to(world).with_suffix("").parts)
        found |= crossings(module, path.read_text())
    assert found == CROSSINGS


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("git.run", "from codex_self_iter.world.process.host import Host"),
        ("git.run", "import codex_self_iter.world.process.host"),
        ("state.store", "def f():\n    from codex_self_iter.world.git.run import Git"),
        ("process.host", "from codex_self_iter.world.state.store import StateDirectory"),
        ("pool", "from codex_self_iter.world.process.host import Host"),
    ],
)
def test_negative_control_a_planted_crossing_is_found(module: str, planted: str) -> None:
    assert crossings(module, planted) - CROSSINGS


def test_what_is_shared_or_at_home_is_let_through() -> None:
    source = "from codex_self_iter.world.pause import pause\nfrom codex_self_iter.world.git.run import Git"
    assert crossings("git.index", source) == set()
