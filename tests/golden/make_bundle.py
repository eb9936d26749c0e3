#!/usr/bin/env python3
"""Makes bundle_v1.bin and block_header_v1.bin from store/FORMAT.md alone, with hashlib and the zstd
program: a second writer of the format, so that a reader of ours which agrees with it is right."""
import hashlib
import json
import os
import struct
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK_TOKENS, SECTIONS, BLOCK_BYTES = 4, 2, 256
TOKENS = [11, 7, 49151, 0, 3, 3, 5, 8, 13, 21]
IDENTITY = [["schema", "1"], ["weights", "ab12"], ["kv_format", "kv1;golden"], ["mode", "exact"]]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def root(fields):
    data = text("corpusd.root.v1") + struct.pack("<Q", len(fields))
    return hashlib.sha256(data + b"".join(text(n) + text(v) for n, v in fields)).digest()


def chain():
    parent, blocks = root(IDENTITY), []
    for first in range(0, len(TOKENS), BLOCK_TOKENS):
        ids = TOKENS[first:first + BLOCK_TOKENS]
        data = text("corpusd.block.v1") + parent + struct.pack("<Q", len(ids))
        parent = hashlib.sha256(data + struct.pack(f"<{len(ids)}I", *ids)).digest()
        blocks.append((parent, len(ids)))
    return blocks


def payload(index):
    return bytes((i * 7 + index * 31) % 256 for i in range(BLOCK_BYTES))


def block_header(digest, tokens, data):
    size = 60 + 4 * SECTIONS + 4
    head = struct.pack("<4sHHIIQI", b"CPBK", 1, 0, size, tokens, len(data), SECTIONS) + digest
    part = len(data) // SECTIONS
    for section in range(SECTIONS):
        head += struct.pack("<I", crc32c(data[section * part:(section + 1) * part]))
    return head + struct.pack("<I", crc32c(head))


def record(kind, content, packed=False):
    body = content
    if packed:
        body = subprocess.run(["zstd", "-3", "-c"], input=content, capture_output=True,
                              check=True).stdout
    head = struct.pack("<4sIQQI", kind, int(packed), len(body), len(content), crc32c(body))
    return head + struct.pack("<I", crc32c(head)) + body


def bundle():
    head = {
        "name": "golden", "model": "none", "mode": "exact", "kv_format": "bf16",
        "identity": IDENTITY, "root": root(IDENTITY).hex(), "block_tokens": BLOCK_TOKENS,
        "sections": SECTIONS, "block_bytes": BLOCK_BYTES, "tokens": len(TOKENS),
        "blocks": len(chain()), "bf16_bytes": 768, "prefill_seconds": 1.5, "skipped_files": 2,
        "sources": [{"path": "a.txt", "first_token": 1, "tokens": 9, "bytes": 40,
                     "sha256": "00" * 32}],
    }
    data = b"\x89CPB\r\n\x1a\n" + struct.pack("<II", 1, 1)
    data += record(b"HEAD", json.dumps(head, sort_keys=True, separators=(",", ":")).encode())
    data += record(b"TOKN", struct.pack(f"<{len(TOKENS)}I", *TOKENS))
    for index, (digest, tokens) in enumerate(chain()):
        block = block_header(digest, tokens, payload(index)) + payload(index)
        data += record(b"BLCK", block, packed=index == 1)
    end = hashlib.sha256(data).digest() + struct.pack("<Q", len(chain()))
    return data + record(b"END ", end)


if __name__ == "__main__":
    with open(os.path.join(HERE, "bundle_v1.bin"), "wb") as file:
        file.write(bundle())
    with open(os.path.join(HERE, "block_header_v1.bin"), "wb") as file:
        file.write(block_header(*chain()[0], payload(0)))
