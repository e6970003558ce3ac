"""What the page shows and does, from one request to the next."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.screens.page import contents, openapi, web_api
from codex_self_iter.screens.page.pages import environment as templates
from codex_self_iter.views.notice import page_key
from codex_self_iter.views.rows import COLUMNS
from codex_self_iter.world import installed
from tests.support.shown_loops import GATE, NOW, cases, on_disk, record
from tests.support.web import TOKEN, App

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(held: ExitStack, tmp_path: Path) -> App:
    return App(tmp_path, control=True, token=TOKEN)


def loop(held: ExitStack, tmp_path: Path, state: str = "running", records: int = 0) -> Path:
    """A loop on disk, with iterations 1 to `records` if that is given; its state directory."""
    case = cases(time.time())[state]
    made = Path(held.enter_context(on_disk(tmp_path, "app", case)).state_dir)
    if records:
        lines = (json.dumps(record(n, NOW + 60 * n)) + "\n" for n in range(1, records + 1))
        (made / "logs/iterations.jsonl").write_text("".join(lines))
    return made


async def path_of(app: App, name: str = "app") -> str:
    found = (await app.ask("/api/v1/loops")).json()["loops"]
    return next(f"/loop/{one['id']}" for one in found if one["name"] == name)


# -- all loops -------------------------------------------------------------------------------------


async def test_without_a_loop_it_says_how_to_start_one(app: App) -> None:
    await app.enter()
    assert 'codex-self-iter run "what is wanted"' in (await app.ask("/")).words


async def test_the_numbers_of_all_loops_are_for_who_is_in(
    held: ExitStack, tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = cases(time.time())
    for name in ("running", "stagnated"):
        held.enter_context(on_disk(tmp_path, name, every[name]))
    assert (await app.ask("/metrics")).status == 401
    await app.enter()
    answer = await app.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'csi_loop_state{loop="stagnated",state="stagnated"} 1.0' in answer.text
    assert 'csi_tokens_total{agent="codex",loop="running"} 1.234567e+06' in answer.text
    monkeypatch.setattr(installed, "_there", set[str]())  # what was found is not looked for again
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "prometheus" in name else find(name)
    )
    missing = await app.ask("/metrics")
    assert missing.status == 501
    assert "needs the extra [metrics]" in missing.text
    assert re.search(r"pip install .*prometheus-client", missing.text)


async def test_of_the_numbers_only_what_ended_long_ago_and_needs_nobody_is_left_out(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    recent, old = cases(time.time()), cases(time.time() - 2 * 86_400)
    for name, case in (
        ("recent", recent["completed"]), ("old", old["completed"]), ("bad", old["stagnated"]),
    ):  # fmt: skip
        held.enter_context(on_disk(tmp_path, name, case))
    await app.enter()
    text = (await app.ask("/metrics")).text
    assert [f'loop="{name}"' in text for name in ("recent", "old", "bad")] == [True, False, True]


async def test_a_message_leads_to_the_page_of_its_loop(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["completed"]))
    await app.enter()
    answer = await app.ask(f"/loop/{page_key(loop.state_dir)}")
    assert (answer.status, "one" in answer.words) == (200, True)


async def test_a_card_says_why_it_may_be_stuck_and_no_card_that_needs_a_person_is_green(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    every = cases(time.time())
    for name in ("asks", "errors", "running"):
        held.enter_context(on_disk(tmp_path, name, every[name]))
    await app.enter()
    text = (await app.ask("/")).text
    cards = {re.findall(r">([^<]+)</a>", one)[0]: one for one in text.split("<article")[1:]}
    assert "perhaps: 3 errors in a row" in cards["errors"]
    assert {name: re.findall(r'edge-(\w+)"', one) for name, one in cards.items()} == {
        "asks": ["red"],
        "errors": ["yellow"],
        "running": ["green"],
    }


async def test_a_status_that_anybody_wrote_is_no_error_of_the_page(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    """Python reads infinity, and writes what no other program reads."""
    state_dir = loop(held, tmp_path)
    status = json.loads((state_dir / "status.json").read_text())
    wild = status | {"usage": {"tokens": float("nan")}, "iteration": 1e999, "plan": [], "wait": 7}
    (state_dir / "status.json").write_text(json.dumps(wild).replace("Infinity", "1e999"))
    await app.enter()
    path = await path_of(app)
    assert (await app.ask(path)).status == 200
    told = (await app.ask(f"/api/v1/loops/{path.rpartition('/')[2]}")).json()
    assert (told["status"]["iteration"], told["status"]["usage"]) == (None, {"tokens": None})


async def test_what_is_wrong_is_said_once_on_the_page_of_a_loop(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    loop(held, tmp_path, "asks")
    await app.enter()
    text = (await app.ask(await path_of(app))).text
    now = text.partition('<div id="now"')[2].partition("</section>")[0]
    assert now.count("the agent stopped: which database?") == 1


async def test_of_a_long_plan_the_page_shows_what_is_around_the_next_item(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    """The page of a plan of 45,000 items took a browser 15 seconds, and a phone more."""
    state_dir = loop(held, tmp_path)
    lines = (f"- [{'x' if n < 20_000 else ' '}] item {n}\n" for n in range(40_000))
    (state_dir.parent / "plan.md").write_text("".join(lines))
    await app.enter()
    answer = await app.ask(await path_of(app))
    assert "item 20000 (next)" in " ".join(answer.words.split())
    assert answer.text.count('<li class="level-') == contents.PLAN_ITEMS
    for left_out in ("19900 more before:", "19700 more:"):
        assert left_out in answer.words
    assert "codex-self-iter plan show --workspace" in answer.words


async def test_every_loop_stands_in_its_column(held: ExitStack, tmp_path: Path, app: App) -> None:
    now = time.time()
    for name, case in cases(now).items():
        held.enter_context(on_disk(tmp_path, name, case))
    await app.enter()
    text = (await app.ask("/")).text
    columns = re.split(r'<h2 id="column-\d">', text)[1:]
    assert [c.partition(" ")[0].lower() for c in columns] == [c.partition(" ")[0] for c in COLUMNS]
    shown = {
        c: re.findall(r'href="/loop/[0-9a-f]+">([^<]+)<', text)
        for c, text in zip(COLUMNS, columns, strict=True)
    }
    assert set(shown["done"]) == {"completed", "stopped"}
    assert {
        "gone",
        "blocked",
        "stagnated",
        "crashed",
        "late",
        "asks",
        "torn",
        "newer",
        "login",
    } <= set(shown["needs you"])
    assert shown["proving"] == ["verifying"]
    assert {"limited", "backoff", "cooldown", "paused", "new"} <= set(shown["waiting"])
    assert "running" in shown["working"]
    needy = columns[0]
    assert needy.count("mend it:") >= len(shown["needs you"]) - 1
    assert sum(map(len, shown.values())) == len(cases(now))


async def test_a_card_is_made_anew_when_its_loop_has_changed_and_no_other(
    held: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a third of a millisecond, and each open page asks every two seconds."""
    monkeypatch.setattr(contents.Known, "FRESH_SEC", -1.0)
    status = Path(
        held.enter_context(on_disk(tmp_path, "one", cases(time.time())["running"])).state_dir,
        "status.json",
    )
    held.enter_context(on_disk(tmp_path, "two", cases(time.time())["running"]))
    known = contents.Known()

    def cards() -> dict[str, str]:
        every = [card for column in known.board()["columns"] for card in column["cards"]]
        return {"one" if ">one</a>" in card else "two": card for card in every}

    first = cards()
    status.write_text(json.dumps(json.loads(status.read_text()) | {"goal": "Something else"}))
    then = cards()
    assert "Something else" in then["one"]
    assert "Something else" not in first["one"]
    assert then["two"] is first["two"]


async def test_loops_of_one_name_are_told_apart(held: ExitStack, tmp_path: Path, app: App) -> None:
    for place in ("a", "b"):
        held.enter_context(on_disk(tmp_path / place, "twin", cases(time.time())["running"]))
    await app.enter()
    found = (await app.ask("/api/v1/loops")).json()["loops"]
    assert {one["name"] for one in found} == {"a/twin", "b/twin"}
    for one in found:
        assert (await app.ask(f"/loop/{one['id']}")).status == 200


# -- one loop --------------------------------------------------------------------------------------


async def test_a_loop_is_shown_in_depth(held: ExitStack, tmp_path: Path, app: App) -> None:
    state = loop(held, tmp_path)
    line = record(12, gates=[GATE], verdict="claim_rejected", commit="abc123")
    with (state / "logs/iterations.jsonl").open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    await app.enter()
    page = await app.ask(await path_of(app))
    for text in (
        "Make the parser accept comments", "Write the lexer", "Write the parser", "(next)", "Step 11 is done",
        "pytest -q", "1 failed", "claim_rejected", "Writes the parser", "000012-executor", "Nobody has written to it.",
    ):  # fmt: skip
        assert text in page.words, text
    assert "8 of 12" in page.words
    assert page.text.index(">12</a>") < page.text.index(">11</a>")


@pytest.mark.parametrize("state", list(cases()))
async def test_every_state_has_a_page(
    held: ExitStack, tmp_path: Path, app: App, state: str
) -> None:
    loop(held, tmp_path, state)
    await app.enter()
    path = await path_of(app)
    for more in ("", "/history", "/plots", "/settings", "/export"):
        answer = await app.ask(path + more)
        assert answer.status == 200, more
        assert "Undefined" not in answer.text
    case = cases()[state]
    if not case.orphan:
        assert case.state in (await app.ask(path)).words


async def test_an_iteration_is_shown_in_depth(held: ExitStack, tmp_path: Path, app: App) -> None:
    state = loop(held, tmp_path)
    line = record(12, gates=[GATE], files=["a.py"])
    with (state / "logs/iterations.jsonl").open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    (state / "logs/runs/000012-executor/answer.txt").write_text("What the agent answered")
    await app.enter()
    page = await app.ask(f"{await path_of(app)}/iteration/12")
    for text in (
        "What the agent answered",
        "The prompt",
        "1 failed",
        "a.py",
        "000012-executor",
        "$0.01",
        "1.0k",
    ):
        assert text in page.words, text
    assert (await app.ask(f"{await path_of(app)}/iteration/99")).status == 404


async def test_history_goes_back_to_the_first(held: ExitStack, tmp_path: Path, app: App) -> None:
    loop(held, tmp_path, records=250)
    await app.enter()
    path, seen = await path_of(app), []
    following = f"{path}/history"
    while following:
        page = await app.ask(following)
        seen += [int(n) for n in re.findall(r'aria-label="iteration (\d+)"', page.text)]
        older = re.search(r'href="([^"]+)">Older', page.text)
        following = older[1] if older else ""
    assert seen == list(range(250, 0, -1))


async def test_a_big_output_is_read_window_by_window(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    state = loop(held, tmp_path)
    log = state / "logs/runs/000012-executor/stdout.log"
    with log.open("w") as file:
        file.write("the first line\n")
        file.truncate(200 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write("\nthe last line\n")
    await app.enter()
    path = f"{await path_of(app)}/output/000012-executor"
    began = time.monotonic()
    page = await app.ask(path)
    assert "the last line" in page.words
    assert "the first line" in (await app.ask(f"{path}?after=0")).words
    assert "the last line" in (await app.ask(await path_of(app))).words
    assert len(page.text) < 2_000_000
    assert time.monotonic() - began < 10
    before = re.search(r'href="[^"]*\?before=(\d+)"', page.text)
    assert before
    assert f"to {before[1]} of" in (await app.ask(f"{path}?before={before[1]}")).words


async def test_plots_are_drawn(held: ExitStack, tmp_path: Path, app: App) -> None:
    state = loop(held, tmp_path)
    with (state / "logs/iterations.jsonl").open("a") as journal:
        journal.writelines(json.dumps(record(n, gates=[GATE])) + "\n" for n in (12, 13))
    await app.enter()
    text = (await app.ask(f"{await path_of(app)}/plots")).text
    assert text.count("<svg") == 5
    assert "tokens a day: 5.0k in all" in text
    assert 'aria-label="pytest -q: 3 runs, 3 failed' in text


async def test_settings_hide_secrets_and_say_what_is_wrong(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    loop(held, tmp_path)
    config = tmp_path / "app/codex-self-iter.toml"
    config.write_text('max_iterations = 77\n[agents.codex.env]\nMY_API_KEY = "sk-very-secret"\n')
    await app.enter()
    path = f"{await path_of(app)}/settings"
    page = await app.ask(path)
    assert re.search(r"max_iterations\s+77", page.words)
    assert "***" in page.words
    assert "very-secret" not in page.text
    config.write_text("max_iteration = 77\n")
    assert "did you mean" in (await app.ask(path)).words


async def test_a_newer_state_directory_is_not_misread(
    held: ExitStack, tmp_path: Path, app: App
) -> None:
    loop(held, tmp_path, "newer")
    await app.enter()
    assert "newer form" in (await app.ask(await path_of(app))).words


# -- controls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "file", "content"),
    [
        ("pause", "PAUSE", "after the run"),
        ("stop", "STOP", "now"),
        ("stop-after-iteration", "STOP", "after-iteration"),
        ("steer", "inbox/*[0-9a-f].md", "Look at\nthe tests"),
        ("steer-now", "inbox/*.now.md", "Look at\nthe tests"),
    ],
)
async def test_controls_write_what_the_commands_write(
    held: ExitStack, tmp_path: Path, app: App, verb: str, file: str, content: str
) -> None:
    state = loop(held, tmp_path)
    await app.enter()
    path = await path_of(app)
    word = (await app.ask(path)).csrf
    form = {"verb": verb, "text": "Look at\r\nthe tests", "csrf": word}
    answer = await app.ask(f"{path}/steer", form=form)
    assert answer.status == 200
    assert "The supervisor of app" in answer.words
    (written,) = state.glob(file)
    assert written.read_bytes().decode().strip() == content
    if verb == "pause":
        assert (await app.ask(f"{path}/steer", form={"verb": "resume", "csrf": word})).status == 200
        assert not written.exists()
    if verb.startswith("steer"):
        assert "Look at" in (await app.ask(path)).words  # among the messages


@pytest.mark.parametrize("form", [{"verb": "steer", "text": " "}, {"verb": "rm -rf"}, {}])
async def test_a_control_that_is_none_changes_nothing(
    held: ExitStack, tmp_path: Path, app: App, form: dict[str, str]
) -> None:
    state = loop(held, tmp_path)
    before = sorted(state.rglob("*"))
    await app.enter()
    path = await path_of(app)
    answer = await app.ask(f"{path}/steer", form=form | {"csrf": (await app.ask(path)).csrf})
    assert answer.status == contents.PLAN_ITEMS
    assert sorted(state.rglob("*")) == before


async def test_a_link_for_another_device_opens_there(
    app: App, held: ExitStack, tmp_path: Path
) -> None:
    await app.enter()
    form = {"csrf": (await app.ask("/")).csrf}
    said = await app.ask("/link", form=form)
    link = re.search(r"http://[^<]+(/enter\?key=[\w-]+)", said.text)
    assert link
    mine, app.cookies = app.cookies, {}
    assert (await app.ask(link[1])).status == 200
    assert (await app.ask("/")).status == 200
    assert app.cookies != mine


async def test_leaving_takes_the_cookie(app: App) -> None:
    await app.enter()
    answer = await app.ask("/leave", form={"csrf": (await app.ask("/")).csrf})
    assert "Max-Age=0" in answer.headers["set-cookie"]


# -- the API ---------------------------------------------------------------------------------------


def flaws(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """Where a value is not what a schema says; only the words that the description uses."""
    if "$ref" in schema:
        return flaws(value, openapi.SCHEMAS[schema["$ref"].rpartition("/")[2]], at)
    assert set(schema) <= {"type", "properties", "required", "items", "enum", "description"}, at
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
             "number": (int, float), "null": type(None)}  # fmt: skip
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    fits = any(
        isinstance(value, kinds[n]) and (n == "boolean" or not isinstance(value, bool))
        for n in names
    )
    if not fits:
        return [f"{at}: {value!r} is no {schema['type']}"]
    found = [f"{at}: {value!r}"] if value not in schema.get("enum", [value]) else []
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        found += [f"{at}.{key} is missing" for key in schema["required"] if key not in value]
        found += [f"{at}.{key} is not described" for key in value if key not in known]
        found += [
            f for k, v in value.items() if k in known for f in flaws(v, known[k], f"{at}.{k}")
        ]
    if isinstance(value, list):
        found += [
            f for n, one in enumerate(value) for f in flaws(one, schema["items"], f"{at}[{n}]")
        ]
    return found


def test_negative_control_a_wrong_answer_is_seen() -> None:
    schema = openapi.SCHEMAS["Diff"]
    assert flaws({"iteration": 1, "diff": ""}, schema) == []
    for wrong in (
        {"iteration": "1", "diff": ""},
        {"iteration": 1},
        {"iteration": 1, "diff": "", "x": 1},
        [],
    ):
        assert flaws(wrong, schema)


async def test_every_answer_is_what_the_description_says(held: ExitStack, tmp_path: Path) -> None:
    for name, case in cases(time.time()).items():
        held.enter_context(on_disk(tmp_path, name, case))
    loop(held, tmp_path)
    state = tmp_path / "app/.codex-self-iter"
    with (state / "logs/iterations.jsonl").open("a") as journal:
        journal.write(
            json.dumps(record(12, gates=[GATE], wait={"kind": "limit", "reason": "x"})) + "\n"
        )
    app = App(tmp_path, control=True, token=TOKEN)
    bearer = {"authorization": f"Bearer {TOKEN}"}
    described = (await app.ask("/api/v1/openapi.json", headers=bearer)).json()
    assert described == json.loads(json.dumps(openapi.description()))
    loops = (await app.ask("/api/v1/loops", headers=bearer)).json()["loops"]
    key = next(one["id"] for one in loops if one["name"] == "app")
    tried = 0
    for path, methods in described["paths"].items():
        for method, said in methods.items():
            schema = next(iter(said["responses"]["200"]["content"].values()))["schema"]
            if path.endswith(("/events", "/diff")):
                continue  # a stream; a workspace without git (the real loop's test asks for it)
            keys = [one["id"] for one in loops] if path.endswith("{key}") else [key]
            for one in keys:
                asked = (
                    path.replace("{key}", one)
                    .replace("{number}", "12")
                    .replace("{run}", "000012-executor")
                )
                body = (
                    json.dumps({"verb": "steer", "text": "x"}).encode() if method == "post" else b""
                )
                sent = bearer | ({"content-type": "application/json"} if body else {})
                answer = await app.ask(asked, method=method.upper(), headers=sent, body=body)
                assert answer.status == 200, (asked, answer.text)
                assert flaws(answer.json(), schema) == [], asked
                tried += 1
    assert tried > len(cases())
    for wrong in (f"/api/v1/loops/{key}/iterations/99", f"/api/v1/loops/{key}/output/x", "/api/v1/loops/x", "/api/v1/x",
                  f"/api/v1/loops/{key}/iterations?limit=0", f"/api/v1/loops/{key}/iterations/12/diff"):  # fmt: skip
        answer = await app.ask(wrong, headers=bearer)
        assert answer.status in (400, 404), wrong
        assert flaws(answer.json(), openapi.SCHEMAS["Error"]) == [], wrong
    assert flaws((await app.ask("/api/v1/loops")).json(), openapi.SCHEMAS["Error"]) == []


def test_the_description_has_every_address_and_verb() -> None:
    routes = web_api.routes(contents.Known(), lambda _: None)
    served = {re.sub(r":\w+", "", one.path) for one in routes} - {"/api/v1/openapi.json"}
    assert served == set(openapi.description()["paths"])
    assert tuple(web_api.VERBS) == openapi.VERBS


async def test_the_api_pages_through_iterations(held: ExitStack, tmp_path: Path, app: App) -> None:
    loop(held, tmp_path, records=25)
    await app.enter()
    base = f"/api/v1{(await path_of(app)).replace('/loop/', '/loops/')}/iterations?limit=10"
    found, older = [], ""
    while older is not None:
        page = (await app.ask(base + (f"&before={older}" if older else ""))).json()
        found = [one["number"] for one in page["iterations"]] + found
        older = page["older"]
    assert found == list(range(1, 26))


# -- what templates may say ------------------------------------------------------------------------


def test_negative_control_templates_escape_and_clean() -> None:
    told = templates().from_string("{{ text }}").render(text="<b>\x1b[31m&")
    assert told == "&lt;b&gt;&amp;"
