#!/usr/bin/env bash
# Trains ResNet-50 on 4 cards, with multiplies in bf16 (AMP): bash scripts/amp_4cards.sh --data-path DATA
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cards.sh"
train_on_cards 4 amp "$@"
