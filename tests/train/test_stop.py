"""Tests of signals: noted, raised immediately if allowed, withdrawn, and handlers restored."""

from __future__ import annotations

import os
import signal

import pytest

from detzoo.train.stop import StopNow, StopRequest


def test_a_signal_is_noted_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_ctrl_c_interrupts():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_work_that_can_be_dropped_is_dropped_at_once_and_not_begun_again():
    with StopRequest() as stop:
        with pytest.raises(StopNow), stop.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopNow), stop.interruptible():
            raise AssertionError("work was begun after a signal")
    assert not isinstance(StopNow(), Exception)


def test_signals_are_taken_back_from_who_took_them():
    with StopRequest() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.listen_again()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
