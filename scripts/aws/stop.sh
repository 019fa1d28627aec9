#!/usr/bin/env bash
# Stops or terminates what launch.sh and emr.sh have started; --help has the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<END
usage: bash $0 [--terminate] [--region NAME] [--dry-run] ID [ID ...]
       bash $0 --list [--region NAME] [--dry-run]

Stops instances (i-...), and terminates clusters (j-...), which cannot be stopped; only those with the tag
Project=$PROJECT.

  --terminate    delete the instances and their disks, for good
  --list         print what there is: instances with type, state and address, and clusters
  --region NAME  by default that of your AWS configuration
  --dry-run      print the commands, and run none
  --help         print this
END
}

list="" action=stop ids=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit ;;
    --dry-run) dry_run=yes ;;
    --list) list=yes ;;
    --terminate) action=terminate ;;
    --region)
      value=$(value_of "$1" $# "${2:-}")
      region=(--region "$value")
      shift ;;
    i-* | j-*) ids+=("$1") ;;
    *) die "$1: found neither an option nor an id, expected i-... or j-...; see --list" ;;
  esac
  shift
done
if [ -z "$list" ] && [ ${#ids[@]} -eq 0 ]; then usage >&2; exit 2; fi
check_aws

if [ -n "$list" ]; then
  ask "" ec2 describe-instances --filters "Name=tag:Project,Values=$PROJECT" \
    Name=instance-state-name,Values=pending,running,stopping,stopped \
    --query 'Reservations[].Instances[].[InstanceId,InstanceType,State.Name,PublicIpAddress]'
  ask "" emr list-clusters --active --query "Clusters[?Name=='$PROJECT'].[Id,Status.State]"
  exit
fi

for id in "${ids[@]}"; do  # all of them before the first is stopped
  case $id in
    i-*) found=$(ask "$PROJECT" ec2 describe-tags --filters "Name=resource-id,Values=$id" Name=key,Values=Project \
      --query 'Tags[0].Value') ;;
    j-*) found=$(ask "$PROJECT" emr describe-cluster --cluster-id "$id" \
      --query "Cluster.Tags[?Key=='Project'].Value | [0]") ;;
  esac
  [ "$found" = "$PROJECT" ] ||
    die "$id: found none with the tag Project=$PROJECT here, expected one; see --list, or give its --region"
done
for id in "${ids[@]}"; do
  case $id-$action in
    j-*)
      ask "" emr terminate-clusters --cluster-ids "$id" >/dev/null
      costs="terminating; what it has written to S3 is paid for on" ;;
    i-*-stop)
      ask "" ec2 stop-instances --instance-ids "$id" >/dev/null
      costs="stopping; its disk is paid for until you terminate it" ;;
    i-*-terminate)
      ask "" ec2 terminate-instances --instance-ids "$id" >/dev/null
      costs="terminating with its disk; nothing of it is paid for any more" ;;
  esac
  if [ -z "$dry_run" ]; then echo "$id: $costs"; fi
done
