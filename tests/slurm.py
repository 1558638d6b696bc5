"""A Slurm of two nodes on this machine, for tests. Needs root, slurmctld, slurmd and munge.

Both nodes are this machine: a job sees its files and its one network. Slurm does not confine jobs
to their cores here (``task/none``), so two of them share all.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin"

CONF = """
ClusterName=test{port}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
JobRequeue=0
MpiDefault=none
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=4000
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""  # a requeued job may start after cred_expire seconds; by default that is two minutes


def missing() -> str | None:
    """Why there can be no Slurm here, if there cannot."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


class Cluster:
    """The daemons, from ``with`` to its end; they and their folder are private to the test.

    Args:
        folder: for their files.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        for name in ("state", "spool.n1", "spool.n2"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        ports = dict(zip(("port", "first", "second"), _free_ports(3), strict=True))
        host = socket.gethostname().partition(".")[0]
        conf = CONF.format(folder=self.folder, host=host, **ports)
        (self.folder / "slurm.conf").write_text(conf)
        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        places = [f"--{name}={self.folder}/munge.{end}" for name, end in munge.items()]
        try:
            self._start("munged", "--force", "--foreground", *places)
            self._wait(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            for node in ("n1", "n2"):
                self._start("slurmd", "-D", "-N", node)
            self._wait(lambda: self.call("sinfo", "-h", "-t", "idle", "-o", "%D") == "2")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        numbers = self.call("squeue", "--noheader", "--format=%i").split()
        if numbers:  # of a test that failed
            self.call("scancel", *numbers)
            until = time.monotonic() + 60
            while any(map(self.processes, numbers)) and time.monotonic() < until:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}{len(self._daemons)}.log").open("w") as log:
            daemon = subprocess.Popen(
                command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _wait(self, look, patience: float = 60) -> None:
        until = time.monotonic() + patience
        while not look():
            ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            if ended or time.monotonic() > until:
                logs = [log.read_text()[-2000:] for log in self.folder.glob("*.log")]
                raise TimeoutError("\n".join([f"ended: {ended}", *logs]))
            time.sleep(0.2)

    def call(self, *command: str) -> str:
        """What a command of Slurm says; empty if it fails."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()

    def processes(self, number: str) -> set[int]:
        """The processes of a job, also those that Slurm does not know."""
        mark, found = f"SLURM_JOB_ID={number}".encode(), set()
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.add(int(place.name))
            except OSError:  # it has just ended
                continue
        return found

    def ports(self, number: str) -> dict[int, str]:
        """The ports on which processes of a job listen, and at which addresses."""
        sockets = set()
        for process in self.processes(number):
            for file in Path(f"/proc/{process}/fd").glob("*"):
                try:
                    sockets.add(os.readlink(file))
                except OSError:
                    continue
        found = {}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:  # 0A is LISTEN
                    address, _, port = words[1].rpartition(":")
                    found[int(port, 16)] = address
        return found


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
