"""The nodes of a Slurm job as one Ray, which ends with the driver.

The driver has started Ray on its own node, which is the head. ``srun`` starts this module on each
other node, where it joins the head. All ports are chosen by the system, so jobs that share a node
do not collide. (``ray symmetric-run`` of Ray 2.60 refuses a node where anybody runs Ray, and ends
with ``ray stop``, which also ends other jobs of the same user there.)

Nodes leave when their standard input ends. The driver holds it open until it dies.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from scoring.cores import cores
from tune_jobs import processes, signals
from tune_jobs.errors import SweepError

PATIENCE = 180.0  # seconds for all nodes to join, from a cold shared disk
LEAVING = 20.0  # seconds for all nodes to leave
LAST = 5.0  # seconds for Ray to end on a node
RANDOM = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]


@contextmanager
def joined(say: Callable[[str], None]) -> Iterator[None]:
    """Add the other nodes of this Slurm job to the Ray that this process has started.

    Args:
        say: called with a sentence about the nodes.

    Raises:
        SweepError: this is no Slurm job, or some nodes do not join; the message says why.
    """
    here = os.environ.get("SLURMD_NODENAME")
    if here is None:
        raise SweepError("--address slurm: this is no Slurm job; geosweep submit --slurm makes one")
    others = [name for name in _hosts() if name != here]
    if not others:
        yield
        return
    count, address = len(others), ray.get_runtime_context().gcs_address
    command = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
    command += [f"--cpus-per-task={os.environ.get('SLURM_CPUS_PER_TASK', 1)}"]
    command += [f"--nodelist={','.join(others)}", "--input=all", "--kill-on-bad-exit=0"]
    command += processes.python("-m", "tune_jobs.cluster.allocation", address)
    srun = subprocess.Popen(
        command, env=os.environ | processes.environment(), stdin=subprocess.PIPE
    )
    assert srun.stdin is not None
    try:
        _wait(srun, 1 + count)
        say(f"Slurm job {os.environ['SLURM_JOB_ID']}: {1 + count} nodes")
        yield
    finally:
        srun.stdin.close()
        try:
            srun.wait(LEAVING)
        except subprocess.TimeoutExpired:
            srun.terminate()  # which kills what is left there
            srun.wait()


def _hosts() -> list[str]:
    """The names of the nodes of this job."""
    done = subprocess.run(["scontrol", "show", "hostnames"], capture_output=True, text=True)
    if done.returncode:
        raise SweepError(f"scontrol show hostnames: {done.stderr.strip()}")
    return done.stdout.split()


def _wait(srun: subprocess.Popen, count: int) -> None:
    until = time.monotonic() + PATIENCE
    while (there := sum(node["Alive"] for node in ray.nodes())) < count:
        if srun.poll() is not None or time.monotonic() > until:
            raise SweepError(
                f"only {there} of {count} nodes of the Slurm job run Ray; the lines above say why"
            )
        time.sleep(0.2)


def join(address: str) -> int:
    """Run Ray on this node, as part of the cluster of a head, until standard input ends.

    Args:
        address: HOST:PORT of the head's scheduler.

    Returns:
        The exit status.
    """
    with signals.as_interrupt(), processes.scratch() as folder:
        command = processes.python("-m", "ray.scripts.scripts", "start", f"--address={address}")
        command += [f"--num-cpus={cores()}", f"--temp-dir={folder}", "--block", *RANDOM]
        node = subprocess.Popen(
            command,
            env=os.environ | processes.environment() | processes.LEAN,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            while node.poll() is None:
                ready, _, _ = select.select([sys.stdin], [], [], 0.5)
                if ready and not os.read(sys.stdin.fileno(), 1):
                    return 0
        except KeyboardInterrupt:  # scancel
            return 0
        finally:
            # Ray may hang when it is told to end twice, as Slurm does. Left alone it would stay.
            with signals.ignored():
                said = _end(node)
        print(f"{os.uname().nodename}: Ray ended: {said[-2000:]}", flush=True)
        return 1


def _end(node: subprocess.Popen[str]) -> str:
    """End Ray on this node, and return what it has printed."""
    node.terminate()
    try:
        return node.communicate(timeout=LAST)[0]
    except subprocess.TimeoutExpired:
        node.kill()
        return node.communicate()[0]


if __name__ == "__main__":
    sys.exit(join(sys.argv[1]))
