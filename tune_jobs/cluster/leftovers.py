"""What a cluster has left running in a cloud, where it costs money, although it was shut down."""

import json
import subprocess

from tune_jobs.cluster.aws import TAG, Account
from tune_jobs.cluster.reach import cluster_file

UNKNOWN = "whether machines are left is not known"


def left(file: str) -> list[str]:
    """The machines that carry a cluster's tag and still exist, and how to end them.

    Args:
        file: path of the cluster file.

    Returns:
        A line for each machine, and one with a command; or a line that says why this is unknown.
        Empty if no machine is left, or if the cluster is a list of machines.
    """
    look = {"aws": _aws, "gcp": _gcp}.get(cluster_file(file)["provider"].get("type", ""))
    if look is None:
        return []
    try:
        machines, command = look(Account(file))
    except Exception as error:
        return [f"{UNKNOWN}: {' '.join(str(error).split())[:200]}"]
    if not machines:
        return []
    said = [f"still {state}: {name} ({kind})" for name, kind, state in machines]
    return [*said, f"to end them: {command} {' '.join(name for name, *_ in machines)}"]


Machines = list[tuple[str, str, str]]  # name, type and state of each


def _aws(account: Account) -> tuple[Machines, str]:
    machines = [
        (one["InstanceId"], one["InstanceType"], one["State"]["Name"]) for one in account.left()
    ]
    return machines, f"aws ec2 terminate-instances --region {account.region} --instance-ids"


def _gcp(account: Account) -> tuple[Machines, str]:
    """Google's machines. A stopped one is left, too, because its disk costs money."""
    provider = account.config["provider"]
    where = [f"--project={provider['project_id']}"]
    name = account.config.get("cluster_name", "default")
    ask = ["gcloud", "compute", "instances", "list", *where, "--format=json"]
    ask.append(f"--filter=labels.{TAG}={name}")
    done = subprocess.run(
        ask, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise OSError(done.stderr.strip() or f"gcloud ended with {done.returncode}")
    machines = [
        (one["name"], one["machineType"].rpartition("/")[2], one["status"].lower())
        for one in json.loads(done.stdout)
        if one["status"] not in ("STOPPING", "DELETING")
    ]
    zone = f"--zone={provider['availability_zone']}"
    return machines, f"gcloud compute instances delete {' '.join([*where, zone])}"
