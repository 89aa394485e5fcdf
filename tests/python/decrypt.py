"""Decrypts one file of results, given the secret key: FORMATS.md in plain Python, with nothing of Nightshift's.

    decrypt.py secret.key batch-0000.out.nsc slots.f64

Writes float64 [outputs][N], little-endian. Needs numpy, safetensors, blake3 and cryptography. It checks no digests: it shows
that the formats can be read, it is not a tool.
"""

import json
import struct
import sys

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from safetensors import safe_open

CHUNK_BITS = 17


def read(path):
    """Metadata without its prefix, and the sections."""
    with safe_open(path, framework="numpy") as file:
        metadata = {key.removeprefix("nightshift."): value for key, value in file.metadata().items()}
        names = [name for name in file.keys() if not name.startswith("pad.")]
        return metadata, {name: file.get_tensor(name) for name in names}


def derive(context, seed):
    return blake3(seed, derive_key_context="nightshift 1 secret key: " + context).digest()


def ternary(seed, n):
    """Coefficients of entry 0, limb 0."""
    blocks = b"".join(struct.pack("<QII", index, 0, 0) for index in range(n))
    encryptor = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    words = np.frombuffer(encryptor.update(blocks) + encryptor.finalize(), dtype="<u8")[::2]
    return np.array([(3 * int(word) >> 64) - 1 for word in words], dtype=np.int64)


def extend(a):
    """The polynomial of degree below 2N modulo X^2N + 1."""
    return np.concatenate([a, [0], -a[:0:-1]])


def times_secret(a, s, q):
    """a s modulo q for a ternary s: negacyclic convolution by an FFT of chunks small enough to be exact."""
    n = len(s)
    transform = np.fft.rfft(extend(s), 4 * n)
    result = np.zeros(n, dtype=object)
    for shift in range(0, q.bit_length(), CHUNK_BITS):
        chunk = extend((a >> shift) & ((1 << CHUNK_BITS) - 1))
        full = np.rint(np.fft.irfft(np.fft.rfft(chunk, 4 * n) * transform, 4 * n)).astype(np.int64)
        folded = full[: 2 * n] - full[2 * n :]
        result += folded[:n].astype(object) << shift
    return (result % q).astype(np.int64)


def residues(section, output):
    """[N][width] bytes to integers."""
    packed = section[output].astype(np.int64)
    return sum(packed[:, byte] << (8 * byte) for byte in range(packed.shape[1]))


def decrypt(metadata, sections, output, s):
    parameters = json.loads(metadata["parameters"])
    moduli = parameters["moduli"][: int(metadata["level"]) + 1]
    value, modulus = np.zeros(len(s), dtype=object), 1
    for limb, q in enumerate(moduli):
        total = np.zeros(len(s), dtype=np.int64)
        for component in reversed(range(int(metadata["components"]))):
            total = (times_secret(total, s, q) + residues(sections[f"c{component}.limb{limb}"], output)) % q
        # Chinese remaindering, one prime at a time.
        value = value + modulus * ((total.astype(object) - value) * pow(modulus, -1, q) % q)
        modulus *= q
    centred = np.where(value > modulus // 2, value - modulus, value)
    scale = struct.unpack(">d", bytes.fromhex(metadata["scale"]))[0]
    a = np.array([float(x) for x in centred]) / scale
    # z_k = a_0 + 2 sum a_i cos(pi (2k+1) i / 2N), as the real part of a Fourier transform of length 4N.
    n = len(a)
    twisted = np.zeros(2 * n, dtype=complex)
    twisted[:n] = a * np.exp(1j * np.pi * np.arange(n) / (2 * n))
    sums = np.fft.ifft(twisted)[:n] * 2 * n
    return 2 * sums.real - a[0]


def main():
    key_path, results_path, out_path = sys.argv[1:]
    key_metadata, key = read(key_path)
    metadata, sections = read(results_path)
    seed = key["seed"].tobytes()
    key_id = derive("public identifier", seed)[:16].hex()
    if not key_id == key_metadata["key_id"] == metadata["key_id"]:
        sys.exit(f"key id: found {metadata['key_id']}, expected {key_id}")
    n = int(metadata["slots"])
    s = ternary(derive("ternary coefficients", seed), n)
    slots = [decrypt(metadata, sections, output, s) for output in range(int(metadata["outputs"]))]
    np.array(slots, dtype="<f8").tofile(out_path)


main()
