"""How a command ends: its exit code, and one message instead of a traceback.

0 done; 2 bad input; 1 failed; 130 and 143 interrupted. `AVA_TRACEBACK=1` shows the traceback as well.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable

from ava.errors import InputError, Interrupted, TrainingFailed

SECONDS_FOR_RANK_0 = 5.0


def run_command(name: str, body: Callable[[], int]) -> int:
    """Run a command and turn what it raises into an exit code.

    Args:
        name: the command, as messages call it.
        body: the command; returns its exit code.

    Returns:
        The exit code.
    """
    try:
        return body()
    except (InputError, TrainingFailed) as error:
        _tell(f"{name}: {error}", error, everywhere=error.of_one_rank)
        if os.environ.get("RANK", "0") != "0" and not error.of_one_rank:
            # A launcher ends all ranks as soon as one has failed: let rank 0 speak first.
            time.sleep(SECONDS_FOR_RANK_0)
        return error.exit_code
    except Interrupted as error:
        _tell(f"{name}: {error}", error, everywhere=False)
        return error.exit_code
    except KeyboardInterrupt as error:
        _tell(f"{name}: interrupted", error, everywhere=False)
        return 130
    except BrokenPipeError:
        # Whoever read the output has left; without this, Python would complain once more as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        _tell(f"{name}: failed unexpectedly: {reason} (AVA_TRACEBACK=1 shows where)", error, everywhere=True)
        return 1


def leave(code: int) -> int:
    """End a rank of a launch at once; elsewhere give the code back.

    Gloo's threads now and then outlive their group, and abort an interpreter that ends in the ordinary way: a
    launcher would call a finished training failed.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _tell(message: str, error: BaseException, *, everywhere: bool) -> None:
    """Print a message, from rank 0 only unless each rank may have its own."""
    rank = os.environ.get("RANK", "0")
    if os.environ.get("AVA_TRACEBACK") == "1":
        traceback.print_exception(error)
    if rank == "0" or everywhere:
        text = message if rank == "0" else f"rank {rank}: {message}"
        print(text.encode(errors="replace").decode(), file=sys.stderr, flush=True)
