#!/usr/bin/env bash
# Starts a Spark cluster on Amazon EMR for spark-submit; docs/cloud.md says what for, --help has the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<END
usage: bash $0 --key-name NAME [options]

Starts an EMR cluster with Spark 3.5 and Java 17, as SystemDS 3.4 needs them, for --engine spark --master yarn and the
lines of python -m sysds_resnet.spark_command; docs/cloud.md says how this package gets there. Not tried on AWS.

  --key-name NAME         key pair for SSH, by its name in this region
  --release emr-7.X.0     EMR's release; by default emr-7.10.0, which has Spark 3.5.5
  --instance-type TYPE    of all machines; by default m5.4xlarge (16 vCPUs, 64 GiB)
  --workers N             machines beside the first; by default 2
  --idle MINUTES          without work after which the cluster ends; by default 60
  --logs s3://BUCKET/PATH where EMR copies its logs to; by default nowhere
  --service-role NAME, --instance-profile NAME
                          by default those that aws emr create-default-roles makes
  --ssh-from CIDR         who may log in to the first machine; by default only the address that you have now
  --subnet ID             where to start it; by default in the default VPC
  --region NAME           by default that of your AWS configuration
  --dry-run               print the commands with capitals for what AWS would answer, and run none
  --help                  print this
END
}

key="" release=emr-7.10.0 instance_type=m5.4xlarge workers=2 idle=60 logs=""
role=EMR_DefaultRole profile=EMR_EC2_DefaultRole source="" subnet=""
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit ;;
    --dry-run) dry_run=yes; shift; continue ;;
  esac
  value=$(value_of "$1" $# "${2:-}")
  case $1 in
    --key-name) key=$value ;;
    --release) release=$value ;;
    --instance-type) instance_type=$value ;;
    --workers) workers=$value ;;
    --idle) idle=$value ;;
    --logs) logs=$value ;;
    --service-role) role=$value ;;
    --instance-profile) profile=$value ;;
    --ssh-from) source=$value ;;
    --subnet) subnet=$value ;;
    --region) region=(--region "$value") ;;
    *) die "$1: found an option that there is not, expected one of --help; correct it" ;;
  esac
  shift 2
done

if [ -z "$key" ]; then usage >&2; exit 2; fi
[[ $release =~ ^emr-7\.[0-9]+\.[0-9]+$ ]] ||
  die "--release: found $release, expected emr-7.X.0, which have Spark 3.5; choose one"
check_name --key-name "$key"
check_name --instance-type "$instance_type"
check_name --instance-profile "$profile"
if [ -n "$subnet" ]; then check_name --subnet "$subnet"; fi
check_number --workers "$workers"
check_number --idle "$idle"
if [ -n "$logs" ]; then check_bucket --logs "$logs"; fi
check_aws

vpc=$(find_vpc "$subnet")
source=$(ssh_source "$source")
group=$(ssh_group "$vpc" "$source")
machines="InstanceProfile=$profile,KeyName=$key,AdditionalMasterSecurityGroups=$group"
if [ -n "$subnet" ]; then machines+=",SubnetId=$subnet"; fi
request=(--name "$PROJECT" --release-label "$release" --applications Name=Hadoop Name=Spark)
request+=(--instance-groups "InstanceGroupType=MASTER,InstanceCount=1,InstanceType=$instance_type"
  "InstanceGroupType=CORE,InstanceCount=$workers,InstanceType=$instance_type")
request+=(--ec2-attributes "$machines" --service-role "$role" --no-termination-protected)
request+=(--auto-termination-policy "IdleTimeout=$((60 * idle))" --tags "Project=$PROJECT" "Name=$PROJECT")
if [ -n "$logs" ]; then request+=(--log-uri "$logs"); fi
cluster=$(ask CLUSTER_ID emr create-cluster "${request[@]}" --query ClusterId)

echo "cluster: $cluster ($((workers + 1)) times $instance_type), ready in about ten minutes"
echo "log in:  aws emr ssh --cluster-id $cluster --key-pair-file FILE.pem    spark-submit is on its path"
echo "costs:   paid by the second, machines, disks and EMR, until you end it, or it was idle for $idle minutes"
echo "end it:  bash $(dirname "$0")/stop.sh $cluster"
if [ -n "$dry_run" ]; then echo "nothing was started"; fi
