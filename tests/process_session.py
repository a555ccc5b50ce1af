"""What each process of a test runs: several of jaxgen's commands, one after the other, as one program.

`process_session.py COMMANDS.json [--processes.…]`. A command that ends with an error in every process is noted, and the
next one runs. `{id}` in a command is the process's number. In the end, the files that were opened to write are printed.
"""

import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import jax  # noqa: E402
import numpy as np  # noqa: E402

import toy_echo  # noqa: E402
from jaxgen import cli, distributed  # noqa: E402
from jaxgen.config import MeshConfig  # noqa: E402
from jaxgen.metrics import readers  # noqa: E402
from jaxgen.sharding import make_mesh  # noqa: E402

OPENED = set()


def note(event, args):
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        OPENED.add(os.path.abspath(args[0]))


def read_images(args):
    """`read NAME OUT`: what a reader that ships says of 8 pictures, while all devices form the mesh."""
    reader = readers.load(args[0])
    with jax.set_mesh(make_mesh(MeshConfig())):
        features, labels = reader.read(np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), np.uint8))
    np.savez(args[1], features=features, labels=labels)


COMMANDS = cli.COMMANDS | {"read": read_images}


def session(args):
    for name, *command in json.loads(Path(args[0]).read_text()):
        own = distributed.global_state.process_id
        try:
            COMMANDS[name]([*(arg.replace("{id}", str(own)) for arg in command), *args[1:]])
        except ValueError as error:
            print(f"refused: {error}", flush=True)
    return 0


if __name__ == "__main__":
    toy_echo.register()
    sys.addaudithook(note)
    code = cli.run_command(session, sys.argv[1:])
    print("opened:", json.dumps(sorted(OPENED)), flush=True)
    sys.exit(code)
