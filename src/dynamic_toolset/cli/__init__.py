"""The command line: one module for each command, imported when it is called (start-up time is part of the product)."""

import os
import signal
import sys

from dynamic_toolset.cli import streams


def main() -> None:
    """Run the command that ``sys.argv`` names.

    Exit status: 0 done, 1 it did not work, 2 the call was wrong, 130 interrupted from the keyboard. A command may say
    something more precise: ``diff`` ends as diff(1) does.
    """
    if sys.argv[1:2] == ["run"]:
        # Until the service has something to finish. By default a signal would be the end with another status than 0,
        # and as process 1 of a container it would not be heard at all.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    streams.prepare()
    failed = 2 if sys.argv[1:2] == ["diff"] else 1

    import click

    from dynamic_toolset.cli.app import app

    try:
        sys.exit(app(standalone_mode=False))
    except click.Abort:  # what click makes of Ctrl-C
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        from dynamic_toolset.cli.failures import EXPECTED, complain

        if streams.is_full(error):
            streams.give_up(error.strerror, failed)
        if not isinstance(error, EXPECTED):
            raise
        complain(error)
        sys.exit(1)
    finally:
        streams.flush(failed)
