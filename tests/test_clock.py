from __future__ import annotations

import threading

import pytest

from tests import virtual_clock
from tests.virtual_clock import VirtualClock
from tinyunet_deploy.clock import SYSTEM_CLOCK


def test_the_system_clock_runs_and_its_timeouts_are_real() -> None:
    before_s = SYSTEM_CLOCK.now_s()
    changed = SYSTEM_CLOCK.condition()
    with changed:
        assert not changed.wait_for(lambda: False, timeout=0.02)
    assert SYSTEM_CLOCK.now_s() - before_s >= 0.02
    event = threading.Event()
    assert not SYSTEM_CLOCK.wait(event, 0.02)
    assert SYSTEM_CLOCK.now_s() - before_s >= 0.04
    event.set()
    assert SYSTEM_CLOCK.wait(event, 3600)


def test_virtual_time_passes_only_while_all_threads_wait() -> None:
    clock = VirtualClock(threads=2)
    log: list[tuple[str, float]] = []

    def work() -> None:
        clock.sleep(3600)
        log.append(("worker", clock.now_s()))
        clock.sleep(3600)
        with changed:
            done.append(True)
            changed.notify_all()

    changed, done = clock.condition(), []
    threading.Thread(target=work, daemon=True).start()
    clock.sleep(5000)
    log.append(("test", clock.now_s()))
    with changed:
        assert changed.wait_for(lambda: done, timeout=1e6)
    assert log == [("worker", 3600), ("test", 5000)]
    assert clock.now_s() == 7200


def test_a_virtual_timeout_ends_a_wait() -> None:
    clock = VirtualClock()
    changed = clock.condition()
    with changed:
        assert not changed.wait_for(lambda: False, timeout=86_400)
    assert clock.now_s() == 86_400
    event = threading.Event()
    assert not clock.wait(event, 600)
    assert clock.now_s() == 87_000
    event.set()
    assert clock.wait(event, 600)
    assert clock.now_s() == 87_000


def test_a_wait_for_what_never_happens_fails_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_clock, "STUCK_S", 0.05)
    changed = VirtualClock().condition()
    with changed, pytest.raises(AssertionError, match="never happens"):
        changed.wait_for(lambda: False)
