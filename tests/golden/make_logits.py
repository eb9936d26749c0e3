#!/usr/bin/env python3
"""Makes logits_smollm2.txt: make_logits.py MODEL.gguf IDS > logits_smollm2.txt

Needs torch, transformers, accelerate and gguf. IDS holds one token id a line (real text).
"""
import os
import sys

import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(
    os.path.dirname(sys.argv[1]), gguf_file=os.path.basename(sys.argv[1]), dtype=torch.float32,
    attn_implementation="eager").eval()
with open(sys.argv[2], encoding="ascii") as file:
    ids = [int(line) for line in file][:160]
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0]
print("# Logits of SmolLM2-135M-Instruct Q4_1 by transformers in float32 (eager attention) on the")
print("# dequantized weights. 'ids': the tokens; other lines: a position and every 512th logit.")
print("ids", *ids)
for position in (0, 1, 17, 63, 127, 128, 159):
    print(position, *[f"{value:.6f}" for value in logits[position][::512].tolist()])
