"""What every program of the course does when something goes wrong in a shell, or somebody presses Ctrl-C.

Nothing is imported here that takes time: a program may ask for it before it knows what it has to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

#: Exit codes. NOTHING is a search that found nothing.
DONE, FAILED, USAGE, NOTHING, STOPPED = 0, 1, 2, 3, 130


def guarded(work: Callable[[], int | None], stopped: str | Callable[[], str] = "") -> int:
    """Do a program's work; what a person can do something about becomes one line, not a traceback.

    Args:
        work: the work; it returns the exit code, or None for 0.
        stopped: what Ctrl-C leaves behind, in a sentence: the reader goes by it. A function is asked when it happens.

    Returns:
        The exit code: what `work` returned, 1 for an error (its reason is on the error stream), 130 for Ctrl-C, 0 when
        nobody wants to read the rest.

    Raises:
        Exception: a mistake of ours, with its traceback.
    """
    try:
        code = work() or DONE
        sys.stdout.flush()  # what nobody reads shows now
        return code
    except KeyboardInterrupt:
        said = stopped if isinstance(stopped, str) else stopped()
        print(f"\nStopped. {said}".rstrip(), file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever read it, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        from solutions.errors import CourseError, in_a_shell

        if not isinstance(error, CourseError | OSError):
            raise
        print(in_a_shell(error), file=sys.stderr)
        return FAILED
