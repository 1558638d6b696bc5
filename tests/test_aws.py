"""ray_cluster.yaml and clusters/aws-role.yaml on a made-up AWS: which machines, with whose rights.

Parts of AWS that moto lacks are written here as AWS's Service Authorization Reference has them: the
resources and conditions of EC2's actions, and the rights that RunInstances needs on the way.
"""

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from aws_template import policy, resources

ROOT = Path(__file__).parents[1]
FILE, TEMPLATE = ROOT / "ray_cluster.yaml", ROOT / "clusters/aws-role.yaml"

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),  # half a minute of computing, more on a busy machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def stack():
    """The template's resources."""
    return resources(str(TEMPLATE))


@pytest.fixture(scope="module")
def made(shared):
    """What a made-up AWS has and was asked for, with a head and a node of each type."""
    return json.loads((shared("aws", ask_made_up_aws) / "made.json").read_text())


def ask_made_up_aws(home: Path) -> None:
    """Write what a made-up AWS has and was asked for to ``made.json``."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_DEFAULT_REGION": "us-west-2",
        "PYTHONWARNINGS": "ignore",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",  # a thousand images take seconds
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("made_up_aws.py")), str(FILE), str(TEMPLATE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    (home / "made.json").write_text(done.stdout.splitlines()[-1])


def test_aws_is_asked_for_the_machines_that_the_file_names(made):
    kinds = {
        node["Tags"]["ray-user-node-type"]: (node["InstanceType"], node.get("InstanceLifecycle"))
        for node in made["nodes"]
    }
    assert kinds == {
        "head": ("m7i.2xlarge", None),
        "gpu": ("g6.xlarge", "spot"),
        "cpu": ("c7i.4xlarge", "spot"),
    }


def test_nodes_on_aws_say_whose_they_are_and_their_disks_go_with_them(made):
    for node in made["nodes"]:
        assert node["Tags"]["ray-cluster-name"] == "geosweep"
        kind = "head" if node["Tags"]["ray-user-node-type"] == "head" else "worker"
        assert node["Tags"]["ray-node-type"] == kind
        (disk,) = node["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"]
    disks = [(disk["Size"], disk["VolumeType"]) for disk in made["disks"]]
    assert disks == [(100, "gp3")] * 3


def test_on_aws_nothing_but_ssh_is_open_to_the_world(made):
    (group,) = made["groups"]
    assert group["GroupName"] == "geosweep"
    for node in made["nodes"]:
        assert [g["GroupId"] for g in node["SecurityGroups"]] == [group["GroupId"]]
    world = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in world] == [
        ("tcp", 22, 22)
    ]
    (inside,) = [rule for rule in group["IpPermissions"] if rule not in world]
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]]


def test_nodes_on_aws_are_terminated_not_stopped(made):
    assert made["left"] == []


def test_every_node_on_aws_has_the_role_and_workers_are_started_by_it(made, stack):
    profile = stack["Profile"]["InstanceProfileName"]
    assert stack["Profile"]["Roles"] == ["Role"]
    for node in made["nodes"]:
        assert node["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/{profile}")
    launches = [who for who, action, _ in made["requests"] if action == "ec2:RunInstances"]
    assert launches == ["person", "node", "node", "node"]


def test_a_node_reaches_the_folder_of_a_sweep(made):
    assert made["stored"] == ""


def test_a_sweep_runs_on_nodes_that_have_their_rights_from_the_metadata_service_alone(made):
    assert made["sweep"]["done"] == ["done"]
    assert {"trials", "epochs", "tracks"} <= set(made["sweep"]["fetched"])


def test_a_node_without_rights_is_named_with_the_permission_that_it_lacks(made):
    refused = made["sweep"]["refused"]
    assert "not the same folder on every node" in refused
    assert refused.count("ACCESS_DENIED") == 1
    assert "IamInstanceProfile" in refused


def test_a_second_laptop_with_a_copy_of_the_key_leaves_the_head_alone(made):
    first, copied, lacking = made["heads"]
    assert first == copied
    assert first != lacking  # `ray up` would replace the head


OWN = {"aws:ResourceTag/ray-cluster-name": "geosweep"}
EC2 = "arn:aws:ec2:us-west-2:123456789012"
ROLE = "arn:aws:iam::123456789012:role"
LAUNCHED_FROM = ("key-pair", "network-interface", "security-group", "subnet", "volume")


def rights(action: str, asked: dict[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """What AWS checks for a request: actions, each with a resource and circumstances."""
    if action.startswith("ec2:Describe"):
        return [(action, "*", {})]
    if action == "ec2:CreateKeyPair":
        return [(action, f"{EC2}:key-pair/{asked['KeyName']}", {})]
    if action == "ec2:AuthorizeSecurityGroupIngress":
        return [(action, f"{EC2}:security-group/{asked['GroupId']}", OWN)]
    if action == "ec2:TerminateInstances":
        return [(action, f"{EC2}:instance/{asked['InstanceId.1']}", OWN)]
    if action == "ec2:CreateTags":
        return [(action, f"{EC2}:instance/{asked['ResourceId.1']}", OWN)]
    given = {
        f"aws:RequestTag/{asked[key]}": asked[key.removesuffix("Key") + "Value"]
        for key in asked
        if key.startswith("TagSpecification.1.Tag.") and key.endswith(".Key")
    }
    tag = {"ec2:CreateAction": action.removeprefix("ec2:")}
    if action == "ec2:CreateSecurityGroup":
        group = f"{EC2}:security-group/sg-new"
        network = (action, f"{EC2}:vpc/{asked['VpcId']}", {})
        return [(action, group, given), network, ("ec2:CreateTags", group, tag | given)]
    assert action == "ec2:RunInstances", f"{action}: unknown to this test"
    image = asked["ImageId"].removeprefix("resolve:ssm:")
    needed = [
        (action, f"{EC2}:instance/i-new", given),
        ("ec2:CreateTags", f"{EC2}:instance/i-new", tag | given),
        (action, "arn:aws:ec2:us-west-2::image/ami-new", {}),
        *((action, f"{EC2}:{kind}/new", {}) for kind in LAUNCHED_FROM),
        ("ssm:GetParameters", f"arn:aws:ssm:us-west-2::parameter{image}", {}),
        (
            "iam:PassRole",
            f"{ROLE}/{asked['IamInstanceProfile.Name']}",
            {"iam:PassedToService": "ec2.amazonaws.com"},
        ),
    ]
    if asked.get("InstanceMarketOptions.MarketType") == "spot":
        spot = f"{ROLE}/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
        service = {"iam:AWSServiceName": "spot.amazonaws.com"}
        needed.append(("iam:CreateServiceLinkedRole", spot, service))
        needed.append((action, f"{EC2}:spot-instances-request/sir-new", {}))
    return needed


def allows(statement: dict[str, Any], right: tuple[str, str, dict[str, str]]) -> bool:
    """Whether a statement allows an action on a resource in these circumstances."""
    action, resource, circumstances = right
    conditions = statement.get("Condition", {"StringEquals": {}})
    assert list(conditions) == ["StringEquals"]
    wanted = conditions["StringEquals"].items()
    return (
        action in statement["Action"]
        and any(fnmatchcase(resource, pattern) for pattern in statement["Resource"])
        and all(circumstances.get(key) == value for key, value in wanted)
    )


def granted(stack, who: str) -> list[dict[str, Any]]:
    """The statements that hold for a node or a person."""
    names = stack[{"node": "Role", "person": "People"}[who]]["ManagedPolicyArns"]
    return [statement for name in names for statement in policy(stack, name)]


def needed(made) -> list[tuple[str, tuple[str, str, dict[str, str]]]]:
    """All rights that a cluster and a sweep on it need: who, and which."""
    found = [
        (who, right)
        for who, action, asked in made["requests"]
        if not action.startswith("s3:")
        for right in rights(action, asked)
    ]
    bucket = "arn:aws:s3:::made-up-bucket"
    stored = {(who, a) for who, a, _ in made["requests"] if a.startswith("s3:")}
    for who, action in stored:
        resource = bucket if action == "s3:ListBucket" else f"{bucket}/sweeps/x"
        found.append((who, (action, resource, {})))
    return found


def test_the_role_and_the_group_allow_all_that_ray_and_sweeps_do(made, stack):
    for who, right in needed(made):
        assert any(allows(statement, right) for statement in granted(stack, who)), (who, right)


SPARE = {  # not seen here
    "s3:ListBucketMultipartUploads": "large files that were cut off",
    "s3:AbortMultipartUpload": "large files that were cut off",
    "s3:ListMultipartUploadParts": "large files that were cut off",
    "ssm:GetParameter": "how AWS looks up one image is not documented for certain",
    "snapshot/*": "an image may be launched from one",
}


def each_permission() -> list[tuple[str, str, str]]:
    """Statement, action and resource of every permission in the template."""
    stack = resources(str(TEMPLATE))
    names = stack["People"]["ManagedPolicyArns"]
    return [
        (statement["Sid"], action, resource)
        for name in names
        for statement in policy(stack, name)
        for action in statement["Action"]
        for resource in statement["Resource"]
    ]


def without(statement: dict[str, Any], action: str, resource: str) -> list[dict[str, Any]]:
    """What a statement allows without one action on one resource."""
    actions = [a for a in statement["Action"] if a != action]
    others = [r for r in statement["Resource"] if r != resource]
    return [statement | {"Action": actions}, statement | {"Action": [action], "Resource": others}]


@pytest.mark.parametrize(
    ("sid", "action", "resource"),
    each_permission(),
    ids=lambda word: word.rpartition(":")[2] if word.startswith("arn:") else word,
)
def test_without_a_permission_something_is_refused(made, stack, sid, action, resource):
    left = {
        who: [
            part
            for statement in granted(stack, who)
            for part in (
                without(statement, action, resource) if statement["Sid"] == sid else [statement]
            )
        ]
        for who in ("node", "person")
    }
    enough = all(any(allows(s, right) for s in left[who]) for who, right in needed(made))
    assert enough == (action in SPARE or resource.rpartition(":")[2] in SPARE)


def test_what_seems_spare_is_in_the_template():
    given = {word for _, action, at in each_permission() for word in (action, at.split(":")[-1])}
    assert given >= SPARE.keys()


def test_aws_refuses_the_cluster_without_any_one_of_its_actions(made):
    able = {action for action, refused in made["refused"].items() if not refused}
    assert able == {"ec2:DescribeInstanceTypes"}  # `ray up` only warns, as the file says it, too
    assert len(made["refused"]) > 12


@pytest.mark.parametrize(
    "right",
    [
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", {}),
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", {next(iter(OWN)): "other"}),
        ("ec2:CreateTags", f"{EC2}:instance/i-1", {}),
        ("ec2:RunInstances", f"{EC2}:instance/i-1", {}),
        ("iam:PassRole", f"{ROLE}/admin", {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("iam:PassRole", f"{ROLE}/geosweep", {"iam:PassedToService": "lambda.amazonaws.com"}),
        ("iam:CreateServiceLinkedRole", f"{ROLE}/aws-service-role/x.amazonaws.com/X", {}),
        ("ssm:GetParameters", "arn:aws:ssm:us-west-2:123456789012:parameter/secret", {}),
        ("s3:GetObject", "arn:aws:s3:::another-bucket/x", {}),
        ("s3:ListBucket", "arn:aws:s3:::made-up-bucket-2", {}),
    ],
    ids=lambda right: " ".join([right[0], right[1].rpartition(":")[2], *right[2].values()]),
)
def test_what_belongs_to_others_is_refused(stack, right):
    for who in ("node", "person"):
        assert not any(allows(statement, right) for statement in granted(stack, who))


def test_the_template_is_one_that_cloudformation_takes():
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), TEMPLATE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_document_names_every_permission_of_people(stack):
    document = (ROOT / "docs/aws.md").read_text()
    for _, action, _ in each_permission():
        assert f"`{action}`" in document
