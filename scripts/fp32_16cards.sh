#!/usr/bin/env bash
# Trains ResNet-50 on 16 cards, with multiplies in FP32: bash scripts/fp32_16cards.sh --data-path DATA
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cards.sh"
train_on_cards 16 fp32 "$@"
