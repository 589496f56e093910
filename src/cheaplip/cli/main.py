"""main(): run a command and turn how it ended into an exit status."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import threading
import traceback
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, final

DONE, FAILED, BAD_INPUT, REFUTED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


@final
class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt it passes by whatever catches errors."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0 done; 2 bad input, told in one line on standard error; 3 a claim refuted; 130 and 143 stopped
        by Ctrl-C and SIGTERM; 1 anything else.

    Example:
        >>> main(["train", "--epochs", "0"])
        2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _print_anything()
    try:
        with _terminable():
            return _run(arguments)
    except KeyboardInterrupt:
        return _say(f"stopped by Ctrl-C; {_how_to_go_on(arguments)}", INTERRUPTED)
    except Terminated:
        return _say(f"stopped by SIGTERM; {_how_to_go_on(arguments)}", TERMINATED)
    except SystemExit as done:  # --help and --version
        return done.code if isinstance(done.code, int) else DONE
    except ArgumentError as error:
        from cheaplip.cli.parser import explain

        return _say(explain(error, arguments), BAD_INPUT)
    except ModuleNotFoundError as error:
        return _say(f'{error}, which the command needs: pip install "cheaplip[cli]"', BAD_INPUT)
    except BrokenPipeError:  # who reads the output has enough, as head does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for what Python flushes when it ends
        return DONE
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _say(str(error) or type(error).__name__, BAD_INPUT)
    except Exception as error:
        traceback.print_exc()
        return _say(f"unexpected {type(error).__name__}: {error}", FAILED)


def _run(arguments: list[str]) -> int:
    from cheaplip.cli import commands
    from cheaplip.cli.config import check_configs
    from cheaplip.cli.parser import make_parser

    check_configs(arguments)
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return DONE
    run: Any = getattr(commands, chosen.command)
    refuted: bool | None = run(chosen[chosen.command])
    return REFUTED if refuted else DONE


def _print_anything() -> None:
    """Let a stream that knows no λ, such as one of Windows, print a question mark instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say(message: str, status: int) -> int:
    rank = next((os.environ[name] for name in ("RANK", "LOCAL_RANK") if os.environ.get(name, "0") != "0"), None)
    speaker = "cheaplip" if rank is None else f"cheaplip, process {rank}"
    print(f"{speaker}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _how_to_go_on(arguments: list[str]) -> str:
    if arguments[:1] in (["reproduce"], ["sweep"]):
        return f"what is finished is kept: go on with {shlex.join(['cheaplip', *arguments])}"
    if arguments[:1] != ["train"]:
        return "nothing was written that is not whole: give the command again"
    again = [word for word in arguments if word != "--resume"]
    return f"what is done is saved: go on with {shlex.join(['cheaplip', *again, '--resume'])}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
