"""Processes that die cost their item only; results and errors arrive."""

import os
import signal

import pytest

from stylebot.errors import StylebotError
from stylebot.workers import Crash, each, workers


def work(item: int) -> int:
    if item == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 99:
        raise StylebotError("ninety-nine is wrong")
    return item * item


def test_a_dying_process_costs_its_item_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEBOT_WORKERS", "2")
    results = dict(each(work, [3, 13, 5, 7, 13, 8], "squares"))
    assert {i: r for i, r in results.items() if not isinstance(r, Crash)} == {0: 9, 2: 25, 3: 49, 5: 64}
    assert "SIGSEGV" in results[1].how and "SIGSEGV" in results[4].how


def test_errors_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEBOT_WORKERS", "2")
    with pytest.raises(StylebotError, match="ninety-nine"):
        list(each(work, [1, 99, 2], "squares"))


def test_nothing_to_do() -> None:
    assert list(each(work, [], "squares")) == []


def test_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLEBOT_WORKERS", raising=False)
    assert workers() >= 2
    monkeypatch.setenv("STYLEBOT_WORKERS", "5")
    assert workers() == 5
    monkeypatch.setenv("STYLEBOT_WORKERS", "none")
    with pytest.raises(StylebotError, match="STYLEBOT_WORKERS"):
        workers()
