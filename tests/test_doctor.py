"""What is found before a cluster is started, in a made-up AWS account with one thing wrong."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws

from tune_jobs import cli
from tune_jobs.cluster import aws, doctor, leftovers, reach, rights
from tune_jobs.cluster.doctor import examine
from tune_jobs.errors import SweepError

REGION = "us-west-2"
TRUST = '{"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}'
PARAMETER = "/geosweep/image"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Place:
    """A cluster file, and an account in which it works; a test breaks one of them."""

    def __init__(self, folder: Path):
        self.file = folder / "cluster.yaml"
        self.key = folder / "key"
        self.quota: dict[str, float] = {}  # of cores, by code; 64 without an entry
        self.refused: set[tuple[str, str]] = set()  # of roles and users, and actions
        self.storage = "s3://results/sweeps"
        self.key.write_text("secret")
        node = {
            "ImageId": f"resolve:ssm:{PARAMETER}",
            "KeyName": "mine",
            "IamInstanceProfile": {"Name": "worker"},
            "InstanceMarketOptions": {"MarketType": "spot"},
        }
        head = {**node, "InstanceType": "m5.2xlarge", "IamInstanceProfile": {"Name": "head"}}
        del head["InstanceMarketOptions"]
        self.content = {
            "cluster_name": "geosweep",
            "max_workers": 6,
            "provider": {"type": "aws", "region": REGION},
            "auth": {"ssh_user": "ubuntu", "ssh_private_key": str(self.key)},
            "head_node_type": "head",
            "available_node_types": {
                "head": {"node_config": head},
                "gpu": {"max_workers": 4, "node_config": {**node, "InstanceType": "g4dn.xlarge"}},
            },
        }
        boto3.client("s3", REGION).create_bucket(
            Bucket="results", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self.ec2, iam = boto3.client("ec2", REGION), boto3.client("iam")
        self.ec2.create_key_pair(KeyName="mine")
        image = self.ec2.register_image(Name="ubuntu", RootDeviceName="/dev/sda1")["ImageId"]
        boto3.client("ssm", REGION).put_parameter(Name=PARAMETER, Value=image, Type="String")
        for name in ("head", "worker"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    def client(self, name: str, region: str | None = None):
        """Clients of moto, with stand-ins for what moto does not have."""
        if name == "service-quotas":
            return SimpleNamespace(get_service_quota=self.get_service_quota)
        real = boto3.client(name, region_name=region)
        if name == "iam":
            real.simulate_principal_policy = self.simulate
        if name == "ec2":
            real.run_instances = mock.Mock(wraps=real.run_instances, side_effect=self.launch)
        return real

    def launch(self, **order):
        assert order["DryRun"]
        assert order["SubnetId"]
        (given,) = order["TagSpecifications"]  # without them the launch is refused to everybody
        assert given == {
            "ResourceType": "instance",
            "Tags": [{"Key": aws.TAG, "Value": "geosweep"}],
        }
        code = "UnauthorizedOperation" if ("me", "launch") in self.refused else "DryRunOperation"
        raise ClientError({"Error": {"Code": code, "Message": "said AWS"}}, "RunInstances")

    def get_service_quota(self, ServiceCode: str, QuotaCode: str):
        if self.quota.get(QuotaCode) == -1:
            said = {"Code": "AccessDeniedException", "Message": "not you"}
            raise ClientError({"Error": said}, "GetServiceQuota")
        return {"Quota": {"Value": self.quota.get(QuotaCode, 64.0)}}

    def simulate(self, PolicySourceArn, ActionNames, ResourceArns, ContextEntries):
        who, (action,) = PolicySourceArn.rpartition("/")[2], ActionNames
        decided = "implicitDeny" if (who, action) in self.refused else "allowed"
        results = [{"EvalResourceName": arn, "EvalDecision": decided} for arn in ResourceArns]
        return {"EvaluationResults": results}

    def kind(self, name: str) -> dict:
        return self.content["available_node_types"][name]["node_config"]

    def write(self) -> str:
        self.content["setup_commands"] = [f"echo 'export GEOSWEEP_STORAGE={self.storage}' > x"]
        self.file.write_text(yaml.safe_dump(self.content))
        return str(self.file)

    def findings(self, mark: str) -> dict[str, str]:
        """The findings with this mark, by check; the fix behind the finding."""
        found = list(examine(self.write()))
        return {check: f"{f.found} -> {f.fix}" for check, f in found if f.mark == mark}


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a thousand images take seconds
    with mock_aws():
        place = Place(tmp_path)
        monkeypatch.setattr(aws.Account, "caller", "arn:aws:iam::123456789012:user/me")
        for module in (aws, doctor, rights):
            monkeypatch.setattr(module, "client", place.client)
        yield place


@pytest.mark.slow
def test_a_file_that_works_has_nothing_to_mend(place):
    assert place.findings(aws.WRONG) == {}
    assert place.findings(aws.NOTE) == {}
    assert place.findings(aws.OK).keys() == doctor.CHECKS["aws"].keys()


def placeholder(place):
    place.storage = "s3://BUCKET/sweeps"


def no_bucket(place):
    place.storage = "s3://elsewhere/sweeps"


def other_region(place):
    boto3.client("s3", "us-east-1").create_bucket(Bucket="far")
    place.storage = "s3://far/sweeps"


def no_region(place):
    place.content["provider"]["region"] = "us-west-9"


def no_zone(place):
    place.content["provider"]["availability_zone"] = "us-west-2a, us-east-1a"


def no_key(place):
    place.key.unlink()


def unnamed_key(place):
    del place.kind("gpu")["KeyName"]
    place.kind("gpu")["UserData"] = "#!/bin/sh\nshutdown -h +60\n"  # brings no key


def unknown_key(place):
    place.ec2.delete_key_pair(KeyName="mine")


def no_subnet(place):
    for subnet in place.ec2.describe_subnets()["Subnets"]:
        place.ec2.delete_subnet(SubnetId=subnet["SubnetId"])


def private_subnet(place):
    for subnet in place.ec2.describe_subnets()["Subnets"]:
        off = {"SubnetId": subnet["SubnetId"], "MapPublicIpOnLaunch": {"Value": False}}
        place.ec2.modify_subnet_attribute(**off)


def no_spot(place):
    place.quota["L-3819A6DF"] = 0.0


def small_head(place):
    place.quota["L-1216C47A"] = 7.0


def no_parameter(place):
    place.kind("gpu")["ImageId"] = "resolve:ssm:/geosweep/other"


def no_profile(place):
    place.kind("gpu")["IamInstanceProfile"] = {"Name": "nobody"}


def no_pass_role(place):
    place.refused.add(("me", "iam:PassRole"))


def head_no_pass_role(place):
    place.refused.add(("head", "iam:PassRole"))


def head_no_ssm(place):
    place.refused.add(("head", "ssm:GetParameters"))


def no_launch(place):
    place.refused.add(("me", "launch"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("breaks", "check", "says"),
    [
        (placeholder, "bucket", "placeholder"),
        (no_bucket, "bucket", "aws s3 mb s3://elsewhere --region us-west-2"),
        (other_region, "bucket", "in us-east-1, not us-west-2"),
        (no_region, "region", "us-west-9: no such region"),
        (no_zone, "region", "us-east-1a: not in us-west-2"),
        (no_key, "key", "no such file"),
        (unnamed_key, "key", "KeyName"),
        (unknown_key, "key", "mine: AWS has no such key"),
        (no_subnet, "subnet", "aws ec2 create-default-vpc --region us-west-2"),
        (private_subnet, "subnet", "no subnet that gives public addresses"),
        (no_spot, "quota", "G and VT, spot: 0 cores of 16"),
        (small_head, "quota", "standard, on demand: 7 cores of 8"),
        (no_parameter, "image", "/geosweep/other: not in us-west-2"),
        (no_profile, "role", "gpu: no instance profile nobody"),
        (no_pass_role, "role", "me: no iam:PassRole on arn:aws:iam::123456789012:role/head"),
        (head_no_pass_role, "role", "head: no iam:PassRole on "),
        (head_no_ssm, "role", "head: no ssm:GetParameters on arn:aws:ssm:us-west-2:"),
        (no_launch, "launch", "UnauthorizedOperation"),
    ],
)
def test_what_is_wrong_is_found_with_its_mend(place, breaks, check, says):
    breaks(place)
    found = place.findings(aws.WRONG)
    assert says in found[check]
    assert not found[check].endswith("-> ")
    follow = {"subnet": {"launch"}}  # what cannot work either
    assert found.keys() <= {check} | follow.get(check, set())


def test_some_of_the_cores_are_worth_a_note(place):
    place.quota["L-3819A6DF"] = 8.0
    assert place.findings(aws.WRONG) == {}
    assert "8 cores of 16" in place.findings(aws.NOTE)["quota"]


@pytest.mark.slow
def test_a_check_that_may_not_look_says_so(place):
    place.quota["L-1216C47A"] = -1
    assert place.findings(aws.WRONG) == {}
    assert "may not look" in place.findings(aws.NOTE)["quota"]


@pytest.mark.slow
def test_who_may_not_see_the_zones_is_helped_all_the_same(place, monkeypatch):
    """The group of clusters/aws-role.yaml may not."""

    def refuse():
        raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "x")

    monkeypatch.setattr(aws.Account, "ec2", place.client("ec2", REGION))
    monkeypatch.setattr(aws.Account.ec2, "describe_availability_zones", refuse)
    assert place.findings(aws.WRONG) == {}
    assert place.findings(aws.NOTE).keys() == {"region"}
    assert "launch" in place.findings(aws.OK)


def test_the_role_that_ray_makes_may_not_start_these_workers(place):
    del place.kind("head")["IamInstanceProfile"]
    found = [f.found for check, f in examine(place.write()) if check == "role"]
    assert any("iam:PassRole; the role that Ray makes lacks it" in line for line in found)
    assert any("ssm:GetParameters; the role that Ray makes lacks it" in line for line in found)


def test_without_credentials_nothing_else_is_looked_at(place, monkeypatch):
    def nobody(account):
        raise ClientError({"Error": {"Code": "InvalidClientTokenId", "Message": "who?"}}, "x")

    monkeypatch.setattr(aws.Account, "caller", property(nobody))
    lines = list(examine(place.write()))
    assert [check for check, _ in lines] == ["token", "credentials", "rest"]
    assert lines[1][1].fix == "aws configure"


@pytest.mark.long
@pytest.mark.parametrize(("breaks", "status"), [(lambda place: None, 0), (no_spot, 2)])
def test_the_command_prints_a_line_for_each_finding_and_ends_with_2_if_one_is_bad(
    place, capsys, breaks, status
):
    breaks(place)
    words = ["geosweep", "doctor", "--cluster", place.write()]
    with mock.patch.object(sys, "argv", words), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in {aws.OK, aws.WRONG, aws.NOTE} for line in lines)
    assert [line for line in lines if line.startswith("✗ quota")] == [
        line for line in lines if "0 cores" in line
    ]


def test_machines_that_are_left_are_named_with_the_command_that_ends_them(place):
    image = place.ec2.describe_images()["Images"][0]["ImageId"]
    ids = []
    for name in ("geosweep", "other"):
        tags = [{"ResourceType": "instance", "Tags": [{"Key": aws.TAG, "Value": name}]}]
        order = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "TagSpecifications": tags}
        ids += [node["InstanceId"] for node in place.ec2.run_instances(**order)["Instances"]]
    mine, other = ids
    said = leftovers.left(place.write())
    assert f"still running: {mine} (" in said[0]
    assert said[-1].endswith(
        f"aws ec2 terminate-instances --region us-west-2 --instance-ids {mine}"
    )
    assert other not in " ".join(said)
    place.ec2.terminate_instances(InstanceIds=[mine])
    assert leftovers.left(str(place.file)) == []


GCLOUD = """#!/bin/sh
case "$*" in
"compute instances list --project=mine --format=json --filter=labels.ray-cluster-name=geosweep")
    cat "$(dirname "$0")/machines" ;;
*) echo "unknown: $*" >&2; exit 1 ;;
esac
"""


def test_machines_that_are_left_on_google_cloud_are_named_too(tmp_path, monkeypatch):
    file, gcloud, machines = (tmp_path / name for name in ("gcp.yaml", "gcloud", "machines"))
    file.write_text(
        "cluster_name: geosweep\n"
        "provider: {type: gcp, project_id: mine, availability_zone: us-central1-a}\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (said,) = leftovers.left(str(file))
    assert said.startswith("whether machines are left is not known: ")
    gcloud.write_text(GCLOUD)
    gcloud.chmod(0o755)
    kind = "https://compute.example/zones/us-central1-a/machineTypes/g2-standard-4"
    states = [("a", "TERMINATED"), ("b", "STOPPING"), ("c", "RUNNING")]
    found = [{"name": name, "status": state, "machineType": kind} for name, state in states]
    machines.write_text(json.dumps(found))
    command = "gcloud compute instances delete --project=mine --zone=us-central1-a"
    assert leftovers.left(str(file)) == [
        "still terminated: a (g2-standard-4)",
        "still running: c (g2-standard-4)",
        f"to end them: {command} a c",
    ]
    machines.write_text("[]")
    assert leftovers.left(str(file)) == []


@pytest.mark.parametrize(
    ("missed", "left", "status"),
    [
        ([], [], 0),
        ([], ["still running: i-1 (g6.xlarge)"], 1),
        (["10.0.0.12: Connection refused"], [], 1),
        (None, ["still running: i-1 (g6.xlarge)"], 2),
    ],
)
def test_down_ends_with_0_only_if_nothing_is_left(
    tmp_path, capsys, monkeypatch, missed, left, status
):
    def down(cluster):
        if missed is None:
            raise SweepError("ray down: no credentials")
        return missed

    monkeypatch.setattr(reach, "down", down)
    monkeypatch.setattr(leftovers, "left", lambda cluster: left)
    words = ["geosweep", "down", "--cluster", str(tmp_path / "cluster.yaml")]
    with mock.patch.object(sys, "argv", words), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    said = capsys.readouterr()
    assert said.out == ("down\n" if status == 0 else "")  # the last word, if it is true
    for line in [*(missed or []), *left]:
        assert line in said.err


def test_a_list_of_machines_is_asked_only_for_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    file = tmp_path / "cluster.yaml"
    file.write_text("provider: {type: local}")
    assert [(check, f.mark) for check, f in examine(str(file))] == [("token", aws.OK)]
    assert leftovers.left(str(file)) == []
