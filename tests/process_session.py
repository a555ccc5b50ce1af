"""What each process of a test runs: several of jaxgen's commands, one after the other, as one program.

`process_session.py COMMANDS.json [--processes.…]`; a command that ends with an error in every process is noted, and the next one
runs. `{id}` in a command is the process's number. Writes to standard output, in the end, which files it opened to write.
"""

import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import toy_echo
from jaxgen import cli, distributed

OPENED = set()


def note(event, args):
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        OPENED.add(os.path.abspath(args[0]))


def session(args):
    for name, *command in json.loads(Path(args[0]).read_text()):
        own = distributed.global_state.process_id
        try:
            cli.COMMANDS[name]([*(arg.replace("{id}", str(own)) for arg in command), *args[1:]])
        except ValueError as error:
            print(f"refused: {error}", flush=True)
    return 0


if __name__ == "__main__":
    toy_echo.register()
    sys.addaudithook(note)
    code = cli.run_command(session, sys.argv[1:])
    print("opened:", json.dumps(sorted(OPENED)), flush=True)
    sys.exit(code)
