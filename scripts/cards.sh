# shellcheck shell=bash
# Function for the scripts *card.sh and *cards.sh, to be sourced: training as on so many cards.

# Trains by torchvision's first recipe. $1: cards, $2: fp32 or amp, then the script's options (usage_of_cards).
train_on_cards() {
  local cards=$1 precision=$2 data="" share=256 dry_run="" root python line
  shift 2
  local passed=()
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage_of_cards "$cards" "$precision"; return ;;
      --dry-run) dry_run=yes ;;
      --data-path=* | --batch-per-card=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
      --data-path | --batch-per-card)
        [ $# -gt 1 ] || refuse_options "$1: found nothing, expected a value; add it"
        if [ "$1" = --data-path ]; then data=$2; else share=$2; fi
        shift ;;
      --dataset | --dataset=*) refuse_options "${1%%=*}: found it here, expected --data-path; use that" ;;
      --batch-size | --batch-size=* | --micro-batch | --micro-batch=*)
        refuse_options "${1%%=*}: found it here, where it follows from the cards; use --batch-per-card" ;;
      *) passed+=("$1") ;;
    esac
    shift
  done
  if [ -z "$data" ]; then
    usage_of_cards "$cards" "$precision" >&2
    exit 2
  fi
  [ -e "$data" ] || refuse_options "$data: found nothing there, expected a data set; correct --data-path"
  [[ $share =~ ^[1-9][0-9]{0,8}$ ]] ||
    refuse_options "--batch-per-card: found $share, expected a number of images; correct it"

  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  python=$root/.venv/bin/python
  [ -x "$python" ] || python=python3
  local command=("$python" -m sysds_resnet.train --recipe torchvision-v1 --dataset "$data")
  command+=(--batch-size $((cards * share)) --micro-batch "$share" --lr-scaling linear)
  if [ "$precision" = amp ]; then command+=(--amp); fi
  if [ "$cards" -gt 1 ] && [ "$cards" -le "$(gpus_here)" ] && ! chosen "${passed[@]}"; then
    command+=(--gpus "$cards")
  fi
  command+=("${passed[@]}")
  if [ "$cards" -gt 1 ] && ! chosen "${command[@]}"; then echo "$cards cards: $(note_on_cards "$cards")" >&2; fi
  printf -v line '%q ' "${command[@]}"
  echo "${line% }"
  if [ -n "$dry_run" ]; then return; fi
  "$python" -c 'import importlib.util as i, sys; sys.exit(i.find_spec("sysds_resnet") is None)' 2>/dev/null ||
    refuse_options "$python: found no package sysds_resnet; run bash scripts/quickstart.sh once, which installs it"
  exec "${command[@]}"
}

refuse_options() {
  echo "error: $1" >&2
  exit 2
}

# Gives the number of GPUs of this machine.
gpus_here() { nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true; }

# Tells whether options say what computes the shares.
chosen() {
  local word
  for word in "$@"; do
    case $word in --gpus | --gpus=* | --device | --device=* | --processes | --processes=* | --engine | --engine=*) return 0 ;; esac
  done
  return 1
}

note_on_cards() {
  printf %s "$1 shares of a step are computed one after the other on this machine; --processes N shares them out"
  if [ "$1" -gt 8 ]; then printf %s ", and the Spark engine (docs/spark.md) over machines"; fi
}

usage_of_cards() {
  local cards="a card" multiplies="FP32"
  if [ "$1" -gt 1 ]; then cards="$1 cards"; fi
  if [ "$2" = amp ]; then multiplies="bf16 (AMP)"; fi
  cat <<END
usage: bash $0 --data-path DATA [--batch-per-card N] [--dry-run] [options of python -m sysds_resnet.train]

Trains ResNet-50 by torchvision's first recipe (--recipe torchvision-v1) on $cards, with multiplies in $multiplies.

  --data-path DATA      images in one of the layouts of docs/data.md, such as DATA/train/CLASS/*.JPEG and val/
  --batch-per-card N    images of a step on each card; by default 256. The learning rate is 0.1 for 256 images
                        in a step, and follows their number
  --dry-run             print the command and stop
  --help                print this

All other options are passed on: --epochs 90, --acc-thresh 75.9, --out RUN, --heap 24g and so on. A run that was
stopped goes on with the same options and --resume RUN.

A machine that has as many GPUs trains with a process on each (--gpus). Otherwise a card is a worker: one share of the
batch, with batch-norm statistics of its own. The shares are computed one after the other by the same JVM, or at the
same time by the processes of --processes N: the weights are those of as many synchronous workers, the time is not. A
share keeps about 0.18 GB an image of 224 x 224 in 45 % of the heap; 256 images need 100 GB of it, so choose
--batch-per-card for the memory that there is.
END
  if [ "$1" -gt 8 ]; then
    cat <<END

16 cards are two machines of 8. Without further options their shares are computed on one machine, in the same step;
the Spark engine spreads them over the machines of a cluster: add --engine spark, --master URL and --executors 16, and
--device gpu for a GPU for each executor (docs/spark.md).
END
  fi
}
