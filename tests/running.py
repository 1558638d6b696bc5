"""What tests run beside themselves: a server in a thread, a command as a user gives it."""

import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseServer

ROOT = Path(__file__).parents[1]


@contextmanager
def served(server: BaseServer) -> Iterator[None]:
    """While the context is open, the server answers."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def said_by(command: Sequence[str | Path], environment: Mapping[str, str], status: int = 0) -> str:
    """What a command says, with an environment of its own; it should end with an exit status."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout
