"""What a cluster file says about AWS, and what AWS says about the cluster."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scoring.places import argument
from tune_jobs.cluster import ray_file
from tune_jobs.cluster.reach import STORAGE, cluster_file
from tune_jobs.errors import SweepError

TAG = "ray-cluster-name"  # which Ray gives to every machine of a cluster
FORBIDDEN = re.compile(r"AccessDenied|UnauthorizedOperation|NotAuthorized|^403$")
OK, WRONG, NOTE = "✓", "✗", "!"  # marks of findings
ALIVE = ["pending", "running", "stopping", "stopped"]  # what may cost money


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: a mark, what was found, and what to do if it is not well."""

    mark: str
    found: str
    fix: str = ""


def client(name: str, region: str | None = None) -> Any:
    """A boto3 client that gives up soon.

    Raises:
        SweepError: boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise SweepError(
            "boto3 is missing, which talks to AWS: python -m pip install boto3"
        ) from error
    settings = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 2})
    return boto3.client(name, region_name=region, config=settings)


@dataclass(frozen=True)
class Account:
    """A cluster file for AWS, and the account that would run it.

    Attributes:
        file: path of the cluster file.
    """

    file: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of the cluster file."""
        return cluster_file(self.file)

    def variable(self, name: str) -> str:
        """An environment variable that the commands of the file set; empty if they do not."""
        return ray_file.variable(f"--cluster {argument(self.file)}", self.config, name)

    @property
    def storage(self) -> str:
        """Where sweeps are stored; empty if the file does not say."""
        return self.variable(STORAGE)

    @property
    def region(self) -> str:
        """The region of the cluster."""
        return str(self.config["provider"].get("region", ""))

    @property
    def head(self) -> str:
        """Name of the type of the head."""
        return str(self.config.get("head_node_type", ""))

    @property
    def kinds(self) -> dict[str, dict[str, Any]]:
        """What AWS is asked for, for each type of node."""
        kinds = self.config.get("available_node_types", {})
        return {name: kind.get("node_config", {}) for name, kind in kinds.items()}

    def most(self, name: str) -> int:
        """How many nodes of a type there may be."""
        if name == self.head:
            return 1
        total = int(self.config.get("max_workers", 2))
        return min(total, int(self.config["available_node_types"][name].get("max_workers", total)))

    @cached_property
    def ec2(self) -> Any:
        """The client of EC2 in the cluster's region."""
        return client("ec2", self.region)

    @cached_property
    def iam(self) -> Any:
        """The client of IAM, which has no regions."""
        return client("iam", self.region)

    @cached_property
    def caller(self) -> str:
        """ARN of the user or role whose credentials this machine has."""
        arn = client("sts", self.region).get_caller_identity()["Arn"]
        if ":assumed-role/" in arn:  # of a session; permissions are those of its role
            arn = arn.replace(":sts:", ":iam:").replace(":assumed-role/", ":role/")
            arn = arn.rpartition("/")[0]
        return arn

    def left(self) -> list[dict[str, Any]]:
        """The machines that carry the cluster's tag and have not been terminated."""
        filters = [
            {"Name": f"tag:{TAG}", "Values": [self.config.get("cluster_name", "default")]},
            {"Name": "instance-state-name", "Values": ALIVE},
        ]
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=filters)
        found = [reservation for page in pages for reservation in page["Reservations"]]
        return [machine for reservation in found for machine in reservation["Instances"]]


def usable(account: Account, name: str) -> list[str]:
    """The subnets that Ray would choose from for a type of node."""
    provider, wanted = account.config["provider"], account.kinds[name].get("SubnetIds")
    zones = [z.strip() for z in provider.get("availability_zone", "").split(",") if z.strip()]
    return [
        subnet["SubnetId"]
        for subnet in account.ec2.describe_subnets()["Subnets"]
        if subnet["State"] == "available"
        and (provider.get("use_internal_ips") or subnet["MapPublicIpOnLaunch"])
        and (not zones or subnet["AvailabilityZone"] in zones)
        and (not wanted or subnet["SubnetId"] in wanted)
    ]
