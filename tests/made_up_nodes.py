"""A sweep on nodes that have their rights from a made-up metadata service alone.

As a program, in the environment of such a node, it runs a sweep of one trial on a Ray of two nodes,
and tries again when there is a node without rights.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SWEEP = "{dataset: digits, layers: fully_connected, epochs: 1, points: 20}"
SERVICE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"


class Metadata(BaseHTTPRequestHandler):
    """The metadata service of a node, version 2 only: it hands out the node's credentials."""

    key: dict[str, Any] | None = None
    keys = "/latest/meta-data/iam/security-credentials"

    def do_PUT(self) -> None:
        self.answer("a-token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        known = self.headers.get("X-aws-ec2-metadata-token") == "a-token"
        content = {self.keys: "geosweep"}
        if self.key:
            names = ("AccessKeyId", "SecretAccessKey", "Expiration")
            shown = {name: self.key[name] for name in names} | {"Token": self.key["SessionToken"]}
            shown |= {"Code": "Success", "Type": "AWS-HMAC"}
            content[f"{self.keys}/geosweep"] = json.dumps(shown, default=_date)
        self.answer(content.get(self.path.rstrip("/")) if known and self.key else None)

    def answer(self, text: str | None) -> None:
        self.send_response(200 if text else 404)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, format: str, *args: Any) -> None: ...


def _date(moment: Any) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def metadata(key: dict[str, Any] | None) -> Iterator[str]:
    """Address of a service that hands out credentials, or none."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Service", (Metadata,), {"key": key})) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{there.server_port}"
        there.shutdown()


def run(root: str, key: dict[str, Any]) -> dict[str, Any]:
    """What came of the sweep on nodes with these credentials, and why it did not run again."""
    kept = ("PATH", "PYTHONPATH", "HOME", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
    with (
        metadata(key) as there,
        metadata(None) as lacking,
        tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as short,  # for paths of sockets
    ):
        done = subprocess.run(
            [sys.executable, __file__, root, lacking],
            env={name: os.environ[name] for name in kept} | {SERVICE: there, "RAY_TMPDIR": short},
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


def main(root: str, lacking: str) -> None:
    """Print what came of the sweep, and why it does not run with a node that lacks rights."""
    import ray
    from ray.cluster_utils import Cluster
    from rich.console import Console

    from tune_jobs import service, sweep
    from tune_jobs.errors import SweepError

    file = Path(os.environ["HOME"], "tiny.yaml")
    file.write_text(SWEEP)
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=False)
    cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")

    def again(root: str) -> list[str]:
        request = service.check(sweep.read(str(file)), root, None, cluster.address)
        state = service.run(request, Console(file=io.StringIO(), width=120))
        return [row["status"] for row in state.rows.values()]

    done, refused = again(root), ""
    cluster.add_node(num_cpus=1, env_vars={SERVICE: lacking})
    cluster.wait_for_nodes()
    try:
        again(f"{root}-again")
    except SweepError as error:
        refused = str(error)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"done": done, "refused": refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
