# SPDX-License-Identifier: Apache-2.0
"""Calls in several processes."""

import functools
import multiprocessing
import os
import signal
import time

import pytest

from ctpprep.io.processes import LEAST_CALLS, call_side_by_side

PARENT = os.getpid()


def describe(number):
    return number, os.getpid()


def killed_in_a_fork(number):
    if os.getpid() != PARENT:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_many_calls_are_shared_and_keep_their_order():
    calls = [functools.partial(describe, number) for number in range(3 * LEAST_CALLS)]
    numbers, processes = zip(*call_side_by_side(calls, 2), strict=True)
    assert numbers == tuple(range(3 * LEAST_CALLS))
    assert len({*processes, os.getpid()}) == 3


def test_few_calls_start_no_process():
    assert call_side_by_side([functools.partial(describe, 1)], 8) == [(1, os.getpid())]


def test_the_calls_of_a_killed_process_are_repeated():
    calls = [functools.partial(killed_in_a_fork, number) for number in range(2 * LEAST_CALLS)]
    assert call_side_by_side(calls, 2) == list(range(2 * LEAST_CALLS))


def wait_long(number):
    time.sleep(600)


def fail(number):
    raise ValueError(number)


def test_a_failed_call_is_raised_and_ends_the_others():
    calls = [functools.partial(fail, 1), functools.partial(wait_long, 2)]
    with pytest.raises(ValueError, match='1'):
        call_side_by_side(calls, 2, least_calls=1)
    assert not multiprocessing.active_children()
