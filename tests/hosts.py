"""Machines for a cluster, made of namespaces of this one: each has a network, processes, a home,
/tmp/ray and /dev/shm of its own, and an SSH server. Needs root, openssh-server, iproute2, rsync."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync", "ip", "ss", "unshare", "nsenter")

SSHD = """
ListenAddress {address}
HostKey {place}/host_key
AuthorizedKeysFile {place}/authorized_keys
PidFile none
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
LogLevel ERROR
"""

INIT = """
set -e
mount --make-rprivate /
hostname {name}
mkdir -p /run/sshd /tmp/ray
mount --bind {place}/passwd /etc/passwd
mount --bind {place}/ray /tmp/ray
mount -t tmpfs tmpfs /dev/shm
mount -t proc proc /proc
exec /usr/sbin/sshd -D -e -f {place}/sshd_config
"""


def missing() -> str | None:
    """Why hosts cannot be made here, if they cannot."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(Path(tool).name for tool in lacking)}"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()}"


@dataclass
class Host:
    """One machine: its name, its address, the folder of what makes it."""

    name: str
    address: str
    place: Path
    process: subprocess.Popen  # unshare, whose only child is the SSH server
    init: int = 0  # id of the SSH server, as this machine counts

    @property
    def home(self) -> Path:
        """Its home folder."""
        return self.place / "home"

    def run(self, *command: str) -> str:
        """What a command says in there."""
        inside = ["nsenter", f"--target={self.init}", "--all", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=60).stdout

    def processes(self, name: str = "") -> dict[int, str]:
        """Command lines by id, as the host counts them, of those that have ``name`` in theirs."""
        found = [
            line.split(maxsplit=1) for line in self.run("ps", "-wweo", "pid=,args=").splitlines()
        ]
        return {int(pid): args for pid, args in found if name in args and "ps -wweo" not in args}

    def lock_out(self) -> None:
        """Let nobody in by SSH any more, until :meth:`let_in`."""
        (self.place / "authorized_keys").rename(self.place / "keys_aside")

    def let_in(self) -> None:
        """Let the key in again."""
        (self.place / "keys_aside").rename(self.place / "authorized_keys")

    def kill(self, pid: int) -> None:
        """End one of its processes at once."""
        self.run("kill", "-9", str(pid))


class Hosts:
    """Hosts on a bridge of their own, from ``with`` to its end.

    Args:
        folder: for their homes and keys.
        names: of the hosts; on this machine names of devices start with ``gs<process id>``.
    """

    def __init__(self, folder: Path, names: list[str]):
        self.folder, self._names = folder, names
        self._tag = f"gs{os.getpid() % 10**6}"
        self.network = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 256}"
        self.here = f"{self.network}.1"  # this machine, as the hosts see it
        self.key = folder / "key"
        self.hosts: list[Host] = []

    def __enter__(self) -> "Hosts":
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True
            )
            bridge = f"{self._tag}br"
            _ip(f"link add {bridge} type bridge")
            _ip(f"addr add {self.here}/24 dev {bridge}")
            _ip(f"link set {bridge} up")
            for number, name in enumerate(self._names):
                self.hosts.append(self._make(number, name))
            for host in self.hosts:
                self._wait(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        for host in self.hosts:  # the end of a host's first process is the end of all of them
            if host.init:
                os.kill(host.init, signal.SIGKILL)
            host.process.kill()
            host.process.wait(timeout=30)
        for number in range(len(self._names)):
            _ip(f"netns del {self._tag}n{number}", check=False)
        _ip(f"link del {self._tag}br", check=False)

    def _make(self, number: int, name: str) -> Host:
        place, address = self.folder / name, f"{self.network}.{11 + number}"
        for folder in ("home", "ray"):
            (place / folder).mkdir(parents=True)
        shutil.copy(self.key.with_suffix(".pub"), place / "authorized_keys")
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "host_key"], check=True
        )
        others = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in others if not line.startswith("root:")]
        root = f"root:x:0:0:root:{place}/home:/bin/bash"
        (place / "passwd").write_text("\n".join([root, *others]) + "\n")
        (place / "sshd_config").write_text(SSHD.format(address=address, place=place))
        netns, veth = f"{self._tag}n{number}", f"{self._tag}v{number}"
        _ip(f"netns add {netns}")
        _ip(f"link add {veth} type veth peer name eth0 netns {netns}")
        _ip(f"link set {veth} master {self._tag}br up")
        _ip(f"-n {netns} addr add {address}/24 dev eth0")
        _ip(f"-n {netns} link set eth0 up")
        _ip(f"-n {netns} link set lo up")
        _ip(f"-n {netns} route add default via {self.here}")  # leads nowhere; Ray looks for one
        inside = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        inside += ["bash", "-c", INIT.format(place=place, name=name)]
        with (place / "sshd.log").open("w") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", netns, *inside],
                env={"PATH": os.environ["PATH"], "HOME": str(place / "home")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Host(name, address, place, process)

    def _wait(self, host: Host, patience: float = 20) -> None:
        """Until its SSH server listens; notes the id of its first process."""
        until = time.monotonic() + patience
        children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")
        while time.monotonic() < until:
            if host.process.poll() is None and (ids := children.read_text().split()):
                host.init = int(ids[0])
                if ":22 " in host.run("ss", "-ltn"):
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{host.name}: {(self.folder / host.name / 'sshd.log').read_text()}")


def _ip(words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words.split()], check=check, capture_output=not check)
