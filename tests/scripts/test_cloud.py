"""The scripts for AWS, against a local stand-in of its API (moto) that boto3 is asked about afterwards."""

import base64
import datetime
import os
import shlex
import subprocess

import boto3
import pytest
from cloud_scripts import ACCOUNT, IMAGE, REGION, REPOSITORY, at_home, start, user_of
from command_line import assert_one_line_error
from moto.server import ThreadedMotoServer
from moto.ssm.models import Parameter, ssm_backends

UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
PROJECT = {"Project": "sysds-resnet", "Name": "sysds-resnet"}
OPTIONS = ["--epochs", "3", "--out", "it's $(touch here)", "*"]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """The environment of a user of AWS, with a key pair, an instance profile and Ubuntu's image."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = user_of(f"http://{host}:{port}")
    now = datetime.datetime.now(datetime.timezone.utc)
    # names that begin with aws cannot be put there from outside
    parameter = Parameter(ACCOUNT, UBUNTU, IMAGE, "String", None, None, None, now, 1, "aws:ec2:image")
    ssm_backends[ACCOUNT][REGION]._parameters[UBUNTU].append(parameter)
    with at_home(environment):
        boto3.client("ec2").create_key_pair(KeyName="my key")
        boto3.client("iam").create_instance_profile(InstanceProfileName="training")
    yield environment
    server.stop()


@pytest.fixture(autouse=True)
def _user(cloud):
    with at_home(cloud):
        yield


def instances():
    reservations = boto3.client("ec2").describe_instances()["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def states():
    return {instance["InstanceId"]: instance["State"]["Name"] for instance in instances()}


def tags(thing):
    return {tag["Key"]: tag["Value"] for tag in thing["Tags"]}


@pytest.fixture(scope="module")
def launched(cloud):
    """What launch.sh printed, and the instance that it started; no test changes it."""
    storage = ["--data", "s3://bucket/imagenet/", "--results", "s3://bucket/runs"]
    storage += ["--instance-profile", "training"]
    place = ["--repo", REPOSITORY, "--ref", "v1.0", "--ssh-from", "203.0.113.7/32"]
    size = ["--type", "gpu", "--disk", 300, "--at-end", "terminate"]
    with at_home(cloud):
        outcome = start("launch", "--key-name", "my key", *storage, *place, *size, "--", *OPTIONS)
        assert (outcome.code, outcome.err) == (0, ""), outcome
        [instance] = [instance for instance in instances() if instance["KeyName"] == "my key"]
    return outcome.out, instance


@pytest.fixture(scope="module")
def user_data(cloud, launched):
    identity = launched[1]["InstanceId"]
    with at_home(cloud):
        answer = boto3.client("ec2").describe_instance_attribute(InstanceId=identity, Attribute="userData")
    return base64.b64decode(answer["UserData"]["Value"]).decode()


# An instance


def test_the_instance_is_of_the_image_type_and_key_that_were_asked_for(launched):
    _, instance = launched
    assert (instance["ImageId"], instance["InstanceType"]) == (IMAGE, "g6.4xlarge")
    assert instance["State"]["Name"] == "running" and tags(instance) == PROJECT
    assert instance["IamInstanceProfile"]["Arn"].endswith(":instance-profile/training")
    assert instance["MetadataOptions"]["HttpTokens"] == "required"


def test_its_disk_is_large_encrypted_tagged_and_goes_with_it(launched):
    [disk] = launched[1]["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/sda1" and disk["Ebs"]["DeleteOnTermination"]
    [volume] = boto3.client("ec2").describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (300, "gp3", True)
    assert tags(volume) == PROJECT


def test_it_terminates_when_it_shuts_down(launched):
    ec2, identity = boto3.client("ec2"), launched[1]["InstanceId"]
    answer = ec2.describe_instance_attribute(
        InstanceId=identity, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert answer["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_only_ssh_from_the_users_address_is_let_in(launched):
    [group] = launched[1]["SecurityGroups"]
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    [rule] = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert [addresses["CidrIp"] for addresses in rule["IpRanges"]] == ["203.0.113.7/32"]
    assert not rule["Ipv6Ranges"] and not rule["PrefixListIds"] and not rule["UserIdGroupPairs"]


def test_what_it_costs_and_how_to_stop_it_is_printed(launched):
    out, instance = launched
    assert f"ssh ubuntu@{instance['PublicIpAddress']} " in out
    assert f"stop.sh {instance['InstanceId']} " in out and "costs:    paid by the second until" in out


STAND_IN = """#!/usr/bin/env bash
printf '%s' "$(basename "$0")" >>"{calls}"
printf ' %q' "$@" >>"{calls}"
echo >>"{calls}"
if [ "$(basename "$0")" = sudo ]; then shift 4; exec "$@"; fi
"""


def boot(user_data, folder, broken=""):
    """Run user data in a folder, with programs that only write down how they were called."""
    calls, home, programs = folder / "calls", folder / "home", folder / "bin"
    programs.mkdir(parents=True)
    home.mkdir()
    for name in ("apt-get", "ubuntu-drivers", "modprobe", "python3", "pip", "aws", "git", "sudo", "shutdown"):
        text = STAND_IN.format(calls=calls, home=home)
        (programs / name).write_text(text + ("exit 1\n" if name == broken else ""))
        (programs / name).chmod(0o755)
    (home / "sysds_resnet" / "scripts").mkdir(parents=True)
    (home / "sysds_resnet" / "scripts" / "quickstart.sh").write_text(
        f"printf quickstart >>{shlex.quote(str(calls))}; printf ' %q' \"$@\" >>{shlex.quote(str(calls))}\n"
        f"echo >>{shlex.quote(str(calls))}; mkdir -p runs\n"
    )
    for place, stand_in in {
        "/home/ubuntu": home,
        "/var/log": folder,
        "/etc/apt/apt.conf.d": folder,
        "/opt/awscli": folder,
        "sleep 600": "sleep 1",
    }.items():
        user_data = user_data.replace(place, str(stand_in))
    assert not any(f"{place}/" in user_data for place in ("/var", "/etc", "/opt")), "of this machine"
    script = folder / "user-data"
    script.write_text(user_data)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(["bash", script], env={**os.environ, "PATH": path}, cwd=folder, text=True)
    code = process.wait(timeout=60)
    return code, [shlex.split(line) for line in calls.read_text().splitlines()]


def test_the_instance_clones_copies_its_data_trains_and_copies_the_results(user_data, tmp_path):
    assert user_data.startswith("#!/usr/bin/env bash\n") and len(user_data) <= 16384
    code, calls = boot(user_data, tmp_path)
    home = str(tmp_path / "home")
    assert code == 0, (tmp_path / "sysds-resnet.log").read_text()
    done = [call for call in calls if call[0] in ("git", "aws", "ubuntu-drivers", "quickstart", "shutdown")]
    source, target = f"{home}/sysds_resnet", "s3://bucket/runs"
    assert done == [
        ["ubuntu-drivers", "install", "--gpgpu"],
        ["git", "clone", "--depth", "1", "--branch", "v1.0", "--", REPOSITORY, source],
        ["aws", "s3", "sync", "--only-show-errors", "s3://bucket/imagenet", f"{home}/data"],
        ["quickstart", "--out", "runs/cloud", "--dataset", f"{home}/data", *OPTIONS],
        ["aws", "s3", "sync", "--only-show-errors", f"{source}/runs", target],
        [
            "aws",
            "s3",
            "cp",
            "--only-show-errors",
            f"{tmp_path}/sysds-resnet.log",
            f"{target}/sysds-resnet.log",
        ],
        ["shutdown", "-h", "now"],
    ]
    assert not list(tmp_path.rglob("here")), "an option was run"


def test_an_instance_that_fails_says_so_copies_its_log_and_shuts_down(user_data, tmp_path):
    code, calls = boot(user_data, tmp_path, broken="git")
    assert code == 1 and calls[-1] == ["shutdown", "-h", "now"]
    assert calls[-2][:3] == ["aws", "s3", "cp"]
    assert not any(call[0] == "quickstart" for call in calls)
    assert "ended with exit code 1" in (tmp_path / "sysds-resnet.log").read_text()


# A cluster, and the end of both


@pytest.fixture(scope="module")
def cluster(cloud, launched):
    with at_home(cloud):
        outcome = start("emr", "--key-name", "key", "--ssh-from", "203.0.113.7/32", "--workers", 3)
        assert (outcome.code, outcome.err) == (0, ""), outcome
        [found] = boto3.client("emr").list_clusters()["Clusters"]
        assert f"stop.sh {found['Id']}" in outcome.out
        return boto3.client("emr").describe_cluster(ClusterId=found["Id"])["Cluster"]


def test_the_cluster_has_spark_and_as_many_machines_as_asked_for(cluster):
    assert cluster["ReleaseLabel"] == "emr-7.10.0" and tags(cluster) == PROJECT
    assert {application["Name"] for application in cluster["Applications"]} == {"Hadoop", "Spark"}
    emr = boto3.client("emr")
    groups = emr.list_instance_groups(ClusterId=cluster["Id"])["InstanceGroups"]
    sizes = {g["InstanceGroupType"]: (g["RequestedInstanceCount"], g["InstanceType"]) for g in groups}
    assert sizes == {"MASTER": (1, "m5.4xlarge"), "CORE": (3, "m5.4xlarge")}
    assert cluster["ServiceRole"] == "EMR_DefaultRole"


def test_the_cluster_lets_in_ssh_by_the_same_group_as_the_instance(cluster, launched):
    [group] = launched[1]["SecurityGroups"]
    machines = cluster["Ec2InstanceAttributes"]
    assert machines["AdditionalMasterSecurityGroups"] == [group["GroupId"]]
    assert (machines["Ec2KeyName"], machines["IamInstanceProfile"]) == ("key", "EMR_EC2_DefaultRole")


def test_what_was_started_is_listed_and_stopped_and_nothing_else(launched, cluster):
    ec2, emr = boto3.client("ec2"), boto3.client("emr")
    [foreign] = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)["Instances"]
    ours = launched[1]["InstanceId"]
    listed = start("stop", "--list").out
    assert ours in listed and cluster["Id"] in listed and foreign["InstanceId"] not in listed

    outcome = start("stop", ours, foreign["InstanceId"])
    assert_one_line_error(outcome, foreign["InstanceId"], "found none with the tag Project=sysds-resnet")
    assert states()[ours] == "running"

    outcome = start("stop", ours, cluster["Id"])
    assert (outcome.code, outcome.err) == (0, "")
    assert states()[ours] == "stopped" and states()[foreign["InstanceId"]] == "running"
    ended = emr.describe_cluster(ClusterId=cluster["Id"])["Cluster"]
    assert ended["Status"]["State"] in ("TERMINATING", "TERMINATED")
    assert "disk is paid for until" in outcome.out


# Refusals


def test_what_aws_refuses_is_one_line(cloud):
    outcome = start("emr", "--key-name", "key", "--subnet", "subnet-0", "--ssh-from", "203.0.113.7/32")
    assert_one_line_error(outcome, "aws ec2 describe-subnets", "InvalidSubnetID.NotFound")


def test_a_group_that_lets_in_others_is_refused(cloud):
    ec2 = boto3.client("ec2")
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    name = "sysds-resnet-ssh-198-51-100-1-32"
    group = ec2.create_security_group(GroupName=name, Description="another", VpcId=vpc)["GroupId"]
    for addresses in ("198.51.100.1/32", "0.0.0.0/0"):
        ec2.authorize_security_group_ingress(
            GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=addresses
        )
    emr = boto3.client("emr")
    before = emr.list_clusters()["Clusters"]
    outcome = start("emr", "--key-name", "key", "--ssh-from", "198.51.100.1/32")
    assert_one_line_error(outcome, name, "0.0.0.0/0", "expected SSH from 198.51.100.1/32 alone")
    assert emr.list_clusters()["Clusters"] == before


def test_a_missing_region_is_named(cloud):
    outcome = start("stop", "--list", AWS_DEFAULT_REGION="")
    assert_one_line_error(outcome, "region: found none", "--region")
