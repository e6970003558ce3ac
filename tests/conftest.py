"""What holds for every test of this process; programs that tests start are on their own."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from codex_self_iter.world.process.signals import HEARD
from tests.support.blocking import nothing_blocks
from tests.support.order import dealt, later_cases
from tests.support.wheel import VARIABLE, install

hypothesis.settings.register_profile(
    "tests",
    deadline=None,  # a busy machine is no fault of the code
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")

SLOW_SEC = 600
"""A test that is marked slow may take so long; what has a time-out of its own keeps it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--installed",
        action="store_true",
        help="tests from outside run a wheel in an environment of its own, not this checkout; "
        f"one that {VARIABLE} names, or one that is made",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before the workers start: what `--installed` promises, and signals that are heard.

    A shell starts what runs in its background with SIGINT and SIGQUIT ignored, nohup with
    SIGHUP, and programs inherit it."""
    wanted = config.getoption("--installed") and VARIABLE not in os.environ
    if wanted and not hasattr(config, "workerinput"):
        environment = tempfile.TemporaryDirectory(prefix="csi-wheel-")
        config.add_cleanup(environment.cleanup)
        os.environ[VARIABLE] = str(install(Path(environment.name)))
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL,
             signal.SIGHUP: signal.SIG_DFL}  # fmt: skip
    for number, handler in heard.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A supervisor that a test has killed for good cannot take away the link to its run's temporary
    directory; whatever else lies in the temporary directory is no business of ours."""
    ours = str(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    for link in Path(tempfile.gettempdir()).glob("csi-*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{ours}/"):
            link.unlink()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    for item in later_cases(items):
        item.add_marker(pytest.mark.slow)
    yield  # what is not chosen is taken out
    if workers := getattr(config, "workerinput", {}).get("workercount"):
        items[:] = dealt(items, workers)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SEC))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _the_event_loop_is_never_blocked() -> Iterator[None]:
    with nothing_blocks() as found:
        yield
    assert found == []


@pytest.fixture(autouse=True)
def _signals_are_as_they_were() -> Iterator[None]:
    """A supervisor that ends in this process ignores them, and so would all that starts later."""
    before = {number: signal.getsignal(number) for number in HEARD}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
