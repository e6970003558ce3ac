"""The person's own words in the prompts: the files of `[prompt]`, read like plan and task.

A file that is lost or cannot be read while the loop runs takes nothing away: its last text stays in
force, and that is said."""

from __future__ import annotations

import os
from collections.abc import Mapping

from codex_self_iter.core.terms import Role
from codex_self_iter.settings.paths import MAX_TEXT_BYTES, text_path
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.documents import Document, quarantine


class OwnTexts:
    """The texts of one loop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._documents: dict[str, Document] = {}
        self.look()

    def look(self) -> bool:
        """Read what was changed; True while a file may still be being written."""
        ctx, now = self._ctx, self._ctx.shared.clock.monotonic()
        used = [self._document(file) for file in ctx.settings.prompt.files().values()]
        for document in used:
            document.poll(now)
        problems = {one.path: one.problem.partition(":")[0] for one in used if one.problem}
        if problems:
            text = f"{'; '.join(problems.values())}: prompts go on with the last text"
            ctx.warnings.tell("prompt files", text)
        else:
            ctx.warnings.clear("prompt files")
        return any(document.settling for document in used)

    def of(self, role: Role) -> Mapping[str, str]:
        """The texts for a prompt of this role, by key; "" for none."""
        files = self._ctx.settings.prompt.of(role.value)
        return {key: self._document(file).text if file else "" for key, file in files.items()}

    def _document(self, file: str) -> Document:
        """The document of a path as configured; it is read when it is first asked for."""
        path = str(text_path(self._ctx.settings, file))
        if path not in self._documents:
            what, aside = os.path.basename(path), quarantine(self._ctx.paths)
            made = Document(what, path, required=True, aside=aside, most=MAX_TEXT_BYTES)
            made.poll(self._ctx.shared.clock.monotonic(), at_once=True)
            self._documents[path] = made
        return self._documents[path]
