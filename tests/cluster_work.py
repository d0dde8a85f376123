"""What test_machines.py lets a cluster do; light to import, since every worker that dies imports it again."""

import os
import signal
import time
from pathlib import Path


def slow_square(job: tuple[int, Path]) -> tuple[int, int]:
    """The square, slowly, and the parent of the process that made it: the worker's nanny. 13 is deadly."""
    number, _ = job
    if number == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.15)
    return number * number, os.getppid()


def deadly_work(job: object) -> object:
    """align's work on a photo, except that one of 666 bytes kills the process."""
    from stylebot import align as stage

    if job.item.path.stat().st_size == 666:
        os.kill(os.getpid(), signal.SIGSEGV)
    return stage._work(job)
