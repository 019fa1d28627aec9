#!/usr/bin/env bash
# Starts an instance on AWS that sets itself up and trains; docs/cloud.md says how, --help has the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<END
usage: bash $0 --key-name NAME [options] [-- options of python -m sysds_resnet.train]

Starts an instance with Ubuntu 24.04 that clones the repository and trains by scripts/quickstart.sh, as runs/cloud.

  --key-name NAME           key pair for SSH, by its name in this region
  --type cpu|gpu            m7a.4xlarge (16 cores with bf16, 64 GiB), or g6.4xlarge with the driver of its GPU; by
                            default cpu
  --instance-type TYPE      another type; x86-64, best with AVX512-BF16
  --disk GIB                size of its disk; by default 100
  --repo URL, --ref NAME    what to clone, and a branch or tag of it; by default this clone's origin
  --data s3://BUCKET/PATH   data set to copy to the instance, and to train on
  --results s3://BUCKET/PATH  where run folder and log are copied to, every ten minutes and at the end
  --instance-profile NAME   what lets the instance read and write there; needed for both
  --at-end keep|stop|terminate  what becomes of the instance after training or an error; by default keep
  --ssh-from CIDR           who may log in; by default only the address that you have now
  --subnet ID               where to start it; by default in the default VPC
  --region NAME             by default that of your AWS configuration
  --dry-run                 print the commands with capitals for what AWS would answer, and run none
  --help                    print this
END
}

key="" type=cpu instance_type="" disk=100 repository="" ref="" data="" results="" profile="" at_end=keep
source="" subnet="" options=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit ;;
    --dry-run) dry_run=yes; shift; continue ;;
    --) options=("${@:2}"); break ;;
  esac
  value=$(value_of "$1" $# "${2:-}")
  case $1 in
    --key-name) key=$value ;;
    --type) type=$value ;;
    --instance-type) instance_type=$value ;;
    --disk) disk=$value ;;
    --repo) repository=$value ;;
    --ref) ref=$value ;;
    --data) data=${value%/} ;;
    --results) results=${value%/} ;;
    --instance-profile) profile=$value ;;
    --at-end) at_end=$value ;;
    --ssh-from) source=$value ;;
    --subnet) subnet=$value ;;
    --region) region=(--region "$value") ;;
    *) die "$1: found an option that there is not, expected one of --help; correct it" ;;
  esac
  shift 2
done

if [ -z "$key" ]; then usage >&2; exit 2; fi
case $type in
  cpu) instance_type=${instance_type:-m7a.4xlarge} ;;
  gpu) instance_type=${instance_type:-g6.4xlarge} ;;
  *) die "--type: found $type, expected cpu or gpu; choose one" ;;
esac
check_number --disk "$disk"
[[ $at_end =~ ^(keep|stop|terminate)$ ]] || die "--at-end: found $at_end, expected keep, stop or terminate; choose one"
if [ -n "$data" ]; then check_bucket --data "$data"; fi
if [ -n "$results" ]; then check_bucket --results "$results"; fi
if [ -n "$data$results" ] && [ -z "$profile" ]; then
  die "--instance-profile: found none, expected one that may use the bucket; make it as docs/cloud.md says, and add it"
fi
if [ "$at_end" = terminate ] && [ -z "$results" ]; then
  die "--at-end: found terminate without --results, expected a place for the weights; add --results, or choose stop"
fi
if [ -n "$profile" ]; then check_name --instance-profile "$profile"; fi
repository=${repository:-$(git -C "$(dirname "$0")" config --get remote.origin.url || true)}
[[ $repository =~ ^https://[^@/]+/ ]] ||
  die "--repo: found none or one of another kind, expected https://HOST/PATH, open to all; add --repo URL"
[[ $ref != -* ]] || die "--ref: found $ref, expected a branch or tag; correct it"
check_aws

user_data=$(mktemp)
if [ -z "$dry_run" ]; then trap 'rm -f "$user_data"' EXIT; fi
{
  echo '#!/usr/bin/env bash'
  printf '%s=%q\n' TYPE "$type" REPOSITORY "$repository" REF "$ref" DATA "$data" RESULTS "$results" AT_END "$at_end"
  printf 'OPTIONS=('
  if [ ${#options[@]} -gt 0 ]; then printf ' %q' "${options[@]}"; fi
  echo ' )'
  cat "$(dirname "$0")/user-data.sh"
} >"$user_data"
[ "$(wc -c <"$user_data")" -le 16384 ] ||  # EC2's limit
  die "options: found $(wc -c <"$user_data") bytes with them, expected 16384; use a --config file in the repository"

image=$(ask IMAGE_ID ssm get-parameter --query Parameter.Value \
  --name /aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id)
vpc=$(find_vpc "$subnet")
source=$(ssh_source "$source")
group=$(ssh_group "$vpc" "$source")

tags="Tags=[{Key=Project,Value=$PROJECT},{Key=Name,Value=$PROJECT}]"
request=(--image-id "$image" --instance-type "$instance_type" --count 1 --key-name "$key")
request+=(--security-group-ids "$group" --user-data "file://$user_data" --metadata-options HttpTokens=required)
volume="VolumeSize=$disk,VolumeType=gp3,Encrypted=true,DeleteOnTermination=true"
request+=(--block-device-mappings "DeviceName=/dev/sda1,Ebs={$volume}")
request+=(--tag-specifications "ResourceType=instance,$tags" "ResourceType=volume,$tags")
if [ "$at_end" != keep ]; then request+=(--instance-initiated-shutdown-behavior "$at_end"); fi
if [ -n "$profile" ]; then request+=(--iam-instance-profile "Name=$profile"); fi
if [ -n "$subnet" ]; then request+=(--subnet-id "$subnet"); fi
instance=$(ask INSTANCE_ID ec2 run-instances "${request[@]}" --query 'Instances[0].InstanceId')
ask "" ec2 wait instance-running --instance-ids "$instance" >/dev/null
address=$(ask ADDRESS ec2 describe-instances --instance-ids "$instance" \
  --query 'Reservations[0].Instances[0].PublicIpAddress')

echo "instance: $instance ($instance_type), which sets itself up and trains"
echo "log in:   ssh ubuntu@$address    its log is /var/log/sysds-resnet.log"
case $at_end in
  keep) echo "costs:    paid by the second until you stop it, also after training; its disk until you terminate it" ;;
  stop) echo "costs:    paid by the second until training ends or fails; its disk until you terminate it" ;;
  terminate) echo "costs:    paid by the second until training ends or fails, when it is terminated with its disk" ;;
esac
echo "stop:     bash $(dirname "$0")/stop.sh $instance    (--terminate for good)"
if [ -n "$results" ]; then
  echo "results:  $results"
else
  echo "results:  /home/ubuntu/sysds_resnet/runs/cloud; copy them before you terminate the instance"
fi
if [ -n "$dry_run" ]; then echo "nothing was started; the user data would be $user_data"; fi
