# shellcheck shell=bash
# What a new instance does when it starts for the first time, as root, by cloud-init. launch.sh puts before it the
# values of TYPE, REPOSITORY, REF, DATA, RESULTS, AT_END and OPTIONS.
set -euo pipefail
exec >>/var/log/sysds-resnet.log 2>&1
export DEBIAN_FRONTEND=noninteractive HOME=/root
FOLDER=/home/ubuntu/sysds_resnet

as_ubuntu() { sudo -H -u ubuntu -- "$@"; }

upload() {
  if [ -z "$RESULTS" ]; then return; fi
  if [ -d "$FOLDER/runs" ]; then
    as_ubuntu /opt/awscli/bin/aws s3 sync --only-show-errors "$FOLDER/runs" "$RESULTS"
  fi
  /opt/awscli/bin/aws s3 cp --only-show-errors /var/log/sysds-resnet.log "$RESULTS/sysds-resnet.log"
}

finish() {
  local code=$?
  if [ -n "${uploads:-}" ]; then kill "$uploads" || true; fi
  echo "ended with exit code $code"
  upload || echo "the results could not be copied to $RESULTS"
  if [ "$AT_END" != keep ]; then shutdown -h now; fi
}
trap finish EXIT

echo 'DPkg::Lock::Timeout "600";' >/etc/apt/apt.conf.d/99-wait  # the system updates itself meanwhile
apt-get update -q
apt-get install -y -q git python3-venv
if [ "$TYPE" = gpu ]; then
  apt-get install -y -q ubuntu-drivers-common
  ubuntu-drivers install --gpgpu
  modprobe nvidia || echo "the driver of the GPU could not be loaded"
fi
if [ -n "$DATA$RESULTS" ]; then  # Ubuntu 24.04 has no package of it
  python3 -m venv /opt/awscli
  /opt/awscli/bin/pip install -q --disable-pip-version-check awscli
fi
as_ubuntu git clone --depth 1 ${REF:+--branch "$REF"} -- "$REPOSITORY" "$FOLDER"
if [ -n "$DATA" ]; then
  as_ubuntu /opt/awscli/bin/aws s3 sync --only-show-errors "$DATA" /home/ubuntu/data
  OPTIONS=(--dataset /home/ubuntu/data "${OPTIONS[@]}")
fi
while sleep 600; do upload || true; done &  # what there is, should the instance be lost
uploads=$!
cd "$FOLDER"
as_ubuntu bash scripts/quickstart.sh --out runs/cloud "${OPTIONS[@]}"
