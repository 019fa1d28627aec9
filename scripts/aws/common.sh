# shellcheck shell=bash
# Functions for the scripts of this folder, to be sourced. They read and set: dry_run, region.

PROJECT=sysds-resnet  # value of the tag Project, and how names begin
dry_run=""
region=()
shopt -s inherit_errexit  # what fails within $(...) ends the script
exec 3>&1  # where commands are printed, also from within $(...)

die() {
  echo "error: $1" >&2
  exit 2
}

# The value of an option. $1: the option, $2: how many arguments there are with it, $3: the value.
value_of() {
  if [ "$2" -lt 2 ] || [[ $3 == --* ]]; then die "$1: found nothing, expected a value; add it"; fi
  printf %s "$3"
}

# Names that go into the short forms of aws's options, where commas and the like mean something.
check_name() {
  [[ $2 =~ ^[A-Za-z0-9._/@+-]+$ ]] || die "$1: found $2, expected letters, digits and . _ / @ + -; choose another"
}

check_bucket() {
  [[ $2 =~ ^s3://[a-z0-9][a-z0-9.-]+(/.*)?$ ]] ||
    die "$1: found $2, expected s3://BUCKET or s3://BUCKET/FOLDER; correct it"
}

check_number() {
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || die "$1: found $2, expected a number from 1; correct it"
}

check_aws() {
  if [ -n "$dry_run" ]; then return; fi
  command -v aws >/dev/null || die "aws: found no such command, expected AWS's command line; run pip install awscli"
  if [ -n "${region[*]}${AWS_REGION:-}${AWS_DEFAULT_REGION:-}" ]; then return; fi
  aws configure get region >/dev/null ||
    die "region: found none, expected one such as eu-central-1; give --region, or run aws configure"
}

# Runs aws and prints its answer as text, or ends with its error in one line; in a dry run prints the command
# instead, and answers $1.
ask() {
  local answer=$1 error line
  shift
  set -- aws "$@" "${region[@]}" --output text
  if [ -z "$dry_run" ]; then
    { error=$("$@" 2>&1 >&4); } 4>&1 || die "$1 $2 $3:$(tr -s '\n' ' ' <<<" $error")"
    return
  fi
  printf -v line '%q ' "$@"
  echo "${line% }" >&3
  echo "$answer"
}

# The network that a subnet is in, or the default one. $1: the subnet, or nothing.
find_vpc() {
  local vpc
  if [ -n "$1" ]; then
    ask VPC_ID ec2 describe-subnets --subnet-ids "$1" --query 'Subnets[0].VpcId'
    return
  fi
  vpc=$(ask VPC_ID ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId')
  if [ "$vpc" = None ]; then die "network: found no default VPC in this region, expected one; give --subnet"; fi
  echo "$vpc"
}

# The addresses that may log in: $1, or if that is empty this machine's, as Amazon sees it.
ssh_source() {
  local source=$1
  if [ -z "$source" ] && [ -n "$dry_run" ]; then
    echo YOUR_ADDRESS/32
    return
  fi
  if [ -z "$source" ]; then
    source=$(curl -fsS --max-time 20 https://checkip.amazonaws.com)/32 ||
      die "address: found no answer from checkip.amazonaws.com, expected this machine's address; give --ssh-from"
  fi
  [[ $source =~ ^([0-9]{1,3}\.){3}[0-9]{1,3}/([1-9]|[12][0-9]|3[0-2])$ ]] ||
    die "--ssh-from: found $source, expected addresses such as 203.0.113.7/32, and not all there are; correct it"
  echo "$source"
}

# The id of a security group that lets in SSH from $2 and nothing else, in the network $1; made if it is not there.
ssh_group() {
  local name="$PROJECT-ssh-${2//[.\/]/-}" group found words
  found=$(ask "" ec2 describe-security-groups --filters "Name=group-name,Values=$name" "Name=vpc-id,Values=$1" \
    --query 'SecurityGroups[].[GroupId, IpPermissions[].[FromPort, ToPort, IpRanges[].CidrIp]]')
  read -r -d "" -a words <<<"$found" || true  # its end
  group=${words[0]:-}
  if [ -z "$group" ]; then
    group=$(ask GROUP_ID ec2 create-security-group --group-name "$name" --description "SSH from $2" --vpc-id "$1" \
      --tag-specifications "ResourceType=security-group,Tags=[{Key=Project,Value=$PROJECT}]" --query GroupId)
  fi
  case ${words[*]:1} in
    "22 22 $2") ;;
    "")
      ask "" ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 --cidr "$2" \
        --query Return >/dev/null ;;
    *) die "$name: found the rules ${words[*]:1}, expected SSH from $2 alone; delete that security group" ;;
  esac
  echo "$group"
}
