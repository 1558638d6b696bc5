"""Checks of the doctor: how much an account may have, and who in it may do what."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tune_jobs.cluster.aws import FORBIDDEN, NOTE, OK, TAG, WRONG, Account, Finding, client, usable

IMAGE = "resolve:ssm:"  # before the name of a parameter that holds the id of an image
RAYS = "ray-autoscaler-v1"  # the role that Ray makes for a head whose file names none
PASSED = [  # what a role is passed to, on which permissions often depend
    {
        "ContextKeyName": "iam:PassedToService",
        "ContextKeyType": "string",
        "ContextKeyValues": ["ec2.amazonaws.com"],
    }
]
FAMILIES = {  # Families of instances, and the codes of their quotas on demand and spot.
    "standard": (r"[acdhimrtz]\d", "L-1216C47A", "L-34B43A08"),
    "G and VT": (r"(g|vt|gr)\d", "L-DB2E81BA", "L-3819A6DF"),
    "P": (r"p[234]", "L-417A185B", "L-7212CCBC"),
    "P5": (r"p5", "L-417A185B", "L-C4BD4855"),
}


def quotas(account: Account) -> Iterator[Finding]:
    """May the account run as many cores as the file asks for?"""
    quota = client("service-quotas", account.region)
    types = sorted({config.get("InstanceType", "") for config in account.kinds.values()})
    described = account.ec2.describe_instance_types(InstanceTypes=types)["InstanceTypes"]
    cores = {kind["InstanceType"]: kind["VCpuInfo"]["DefaultVCpus"] for kind in described}
    all_, one = Counter(), {}
    for name, config in account.kinds.items():
        kind, spot = config["InstanceType"], "InstanceMarketOptions" in config
        family = next((f for f, (words, *_) in FAMILIES.items() if re.match(words, kind)), None)
        if family is None:
            yield Finding(NOTE, f"{kind}: this check does not know its quota", "look it up")
            continue
        code = FAMILIES[family][2 if spot else 1]
        what = (code, f"{family}, {'spot' if spot else 'on demand'}")
        all_[what] += cores[kind] * account.most(name)
        one[what] = max(one.get(what, 0), cores[kind])
    for (code, what), wanted in all_.items():
        have = int(quota.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
        fix = f"aws service-quotas request-service-quota-increase --region {account.region} "
        fix += f"--service-code ec2 --quota-code {code} --desired-value {wanted}"
        mark = OK if have >= wanted else WRONG if have < one[code, what] else NOTE
        yield Finding(mark, f"{what}: {have} cores of {wanted}", fix)


def image(account: Account) -> Iterator[Finding]:
    """Does the image exist?"""
    from botocore.exceptions import ClientError

    for name in sorted({config.get("ImageId", "") for config in account.kinds.values()}):
        if not name.startswith(IMAGE):
            continue
        try:
            asked = [name.removeprefix(IMAGE)]
            there = client("ssm", account.region).get_parameters(Names=asked)["Parameters"]
        except ClientError as error:
            if not FORBIDDEN.search(error.response["Error"]["Code"]):
                raise
            fix = f"allow ssm:GetParameters to {account.caller}"
            yield Finding(WRONG, f"{name}: may not be read", fix)
            continue
        if there:
            yield Finding(OK, f"{there[0]['Value']}, {name}")
        else:
            fix = "another ImageId: in the file, such as ami-..."
            yield Finding(WRONG, f"{name}: not in {account.region}", fix)


def profile(account: Account, name: str) -> str:
    """Name of the instance profile of a type of node; empty if it has none."""
    given = account.kinds[name].get("IamInstanceProfile", {})
    found = given.get("Name") or str(given.get("Arn", "")).rpartition("/")[2]
    return found or (RAYS if name == account.head else "")


def roles(account: Account) -> Iterator[Finding]:
    """May this user start the head, may the head start workers, and has each node a role?"""
    from botocore.exceptions import ClientError

    arns: dict[str, str] = {}
    for name in account.kinds:
        wanted = profile(account, name)
        try:
            found = account.iam.get_instance_profile(InstanceProfileName=wanted) if wanted else {}
            (role,) = found.get("InstanceProfile", {}).get("Roles") or [{"Arn": ""}]
            arns[name] = role["Arn"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            arns[name] = ""
            if wanted != RAYS:
                fix = "make it with clusters/aws-role.yaml, or name another in IamInstanceProfile:"
                yield Finding(WRONG, f"{name}: no instance profile {wanted}", fix)
        if not wanted:
            mark = WRONG if account.storage.startswith("s3://") else NOTE
            fix = "IamInstanceProfile: in its node_config, unless results are on a mounted path"
            yield Finding(mark, f"{name}: no role, so it cannot write to a bucket", fix)
    head, workers = arns.get(account.head, ""), {n: a for n, a in arns.items() if n != account.head}
    passed = sorted(set(filter(None, workers.values())))
    yield from allowed(account, account.caller, "iam:PassRole", [head] if head else [])
    parameters = {parameter(account, c) for n, c in account.kinds.items() if n != account.head}
    read = sorted(filter(None, parameters))
    for action, resources in (("iam:PassRole", passed), ("ssm:GetParameters", read)):
        if head:
            yield from allowed(account, head, action, resources)
        elif resources and profile(account, account.head) == RAYS:
            fix = f"make the role {RAYS} by hand, or name another with IamInstanceProfile:"
            yield Finding(WRONG, f"the head needs {action}; the role that Ray makes lacks it", fix)


def parameter(account: Account, config: dict[str, Any]) -> str:
    """ARN of the parameter that holds the image of a type of node; empty if there is none."""
    if not (name := config.get("ImageId", "")).startswith(IMAGE):
        return ""
    name = name.removeprefix(IMAGE)
    owner = "" if name.startswith("/aws/") else account.caller.split(":")[4]
    return f"arn:aws:ssm:{account.region}:{owner}:parameter/{name.lstrip('/')}"


def allowed(account: Account, who: str, action: str, resources: list[str]) -> Iterator[Finding]:
    """Ask AWS whether a user or role may do something with each of some resources."""
    if not resources or who.endswith(":root"):  # nobody refuses the owner of the account
        return
    results = account.iam.simulate_principal_policy(
        PolicySourceArn=who, ActionNames=[action], ResourceArns=resources, ContextEntries=PASSED
    )["EvaluationResults"]
    name = who.rpartition("/")[2]
    refused = [r["EvalResourceName"] for r in results if r["EvalDecision"] != "allowed"]
    if refused:
        on = ", ".join(refused)
        yield Finding(WRONG, f"{name}: no {action} on {on}", f"allow {action} on {on} to {who}")
    else:
        yield Finding(OK, f"{name}: {action}")


def launch(account: Account) -> Iterator[Finding]:
    """Would AWS accept the order of each type of node? It is asked without an order (DryRun)."""
    from botocore.exceptions import ClientError

    own = {"Key": TAG, "Value": account.config.get("cluster_name", "default")}
    tags = [{"ResourceType": "instance", "Tags": [own]}]
    for name, config in account.kinds.items():
        order = {k: v for k, v in config.items() if k not in ("SubnetIds", "TagSpecifications")}
        if "NetworkInterfaces" not in order and (subnet := next(iter(usable(account, name)), None)):
            order["SubnetId"] = subnet
        order["TagSpecifications"] = tags  # which the permissions of clusters/aws-role.yaml ask for
        try:
            account.ec2.run_instances(DryRun=True, MinCount=1, MaxCount=1, **order)
        except ClientError as error:
            said = error.response["Error"]
            if said["Code"] == "DryRunOperation":
                yield Finding(OK, f"{name}: {config.get('InstanceType')}")
            else:
                fix = f"node_config: of {name} in the file, or the permissions of {account.caller}"
                yield Finding(WRONG, f"{name}: {said['Code']}: {said['Message'][:200]}", fix)
