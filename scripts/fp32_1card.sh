#!/usr/bin/env bash
# Trains ResNet-50 on a card, with multiplies in FP32: bash scripts/fp32_1card.sh --data-path DATA
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cards.sh"
train_on_cards 1 fp32 "$@"
