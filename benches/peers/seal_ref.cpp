// Microsoft SEAL + Intel HEXL on the reference network, element-wise packed (slot = image), one thread.
//
//   seal_ref REF.bin [fused]      seal_peer.py builds it and writes REF.bin
//
// How an expert drives the two: N = 8192, three 50-bit primes and one special (log QP 200), weights as integers of 12 fractional bits.
//  * Inputs are seeded ciphertexts, half the bytes on the wire. SEAL expands the other half when it loads them.
//  * Linear layers multiply by integers, encode no plaintext and do not rescale; the scale is kept by hand. Each product and sum is one
//    call of HEXL's EltwiseFMAMod (vector * scalar + vector mod q) on a tile of 512 coefficients of one residue polynomial. Tiles are
//    first copied side by side: ciphertexts lie a multiple of 128 KiB apart, where they would evict each other from the cache.
//  * First squares: SEAL's square, relinearise and rescale, in one scratch ciphertext that stays in the cache.
//  * Second squares are neither relinearised nor rescaled. The last layer sums ciphertexts of three polynomials; its ten sums are
//    rescaled and then, with one prime left, relinearised.
//  * Memory is kept from batch to batch, as a server would: a first batch fills SEAL's pool, the second one counts.
//
// With the word `fused`, first squares are relinearised by calls of HEXL, with one division by the product of the special and the last prime.
#include "hexl/hexl.hpp"
#include "seal/seal.h"
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <sys/resource.h>
#include <vector>

using namespace seal;
using std::vector;
namespace hexl = intel::hexl;

constexpr size_t N = 8192, BATCH = N / 2, PIXELS = 784, MAPS = 5, SIDE = 13, SPOTS = SIDE * SIDE, CONV = MAPS * SPOTS, HIDDEN = 100, CLASSES = 10;
constexpr double WEIGHT_SCALE = 1 << 12, INPUT_SCALE = 1 << 27;

// ------------------------------------------------------------------------------------------------------------ the network in the clear

struct Network {
    vector<double> images, conv, conv_bias, w1, b1, w2, b2, logits;

    // The file holds these vectors one after the other.
    explicit Network(const char *path)
        : images(BATCH * PIXELS), conv(MAPS * 25), conv_bias(MAPS), w1(CONV * HIDDEN), b1(HIDDEN), w2(HIDDEN * CLASSES), b2(CLASSES),
          logits(BATCH * CLASSES) {
        FILE *file = fopen(path, "rb");
        for (auto *part : { &images, &conv, &conv_bias, &w1, &b1, &w2, &b2, &logits })
            if (!file || fread(part->data(), sizeof(double), part->size(), file) != part->size()) {
                fprintf(stderr, "%s: not there or too short\n", path);
                exit(2);
            }
        fclose(file);
    }
};

static uint64_t weight_mod(double weight, uint64_t q) {
    const long long integer = std::llround(weight * WEIGHT_SCALE);
    return integer < 0 ? q + integer : integer;
}

// A constant is the same number in every slot, so the same residue in every coefficient of the transform.
static uint64_t bias_mod(double bias, double scale, uint64_t q) {
    const __int128 rest = static_cast<__int128>(bias * scale) % q;
    return static_cast<uint64_t>(rest < 0 ? rest + q : rest);
}

// ------------------------------------------------------------------------------------------------------------------------ linear layers

using Inputs = vector<const uint64_t *>;
using Outputs = vector<uint64_t *>;
constexpr size_t TILE = 512, TILE_BYTES = TILE * sizeof(uint64_t);

// outputs[j] = sum over i of inputs[i] * weights[i][j] mod q, over one tile. Four inputs at a time stay in L1 while all sums, which L2
// holds, take them up.
static void sums(const Inputs &inputs, const Outputs &outputs, const vector<uint64_t> &weights, uint64_t q) {
    const size_t width = outputs.size();
    for (size_t first = 0; first < inputs.size(); first += 4)
        for (size_t j = 0; j < width; j++)
            for (size_t i = first; i < std::min(inputs.size(), first + 4); i++)
                hexl::EltwiseFMAMod(outputs[j], inputs[i], weights[i * width + j], i ? outputs[j] : nullptr, TILE, q, 1);
}

// Walks over the tiles of all residue polynomials, with `compute` in the middle. Outputs get the inputs' level and number of polynomials.
template <class Compute>
static void layer(const SEALContext &context, const vector<Ciphertext> &from, vector<Ciphertext> &to, const vector<double> &bias, Compute compute) {
    const auto &moduli = context.get_context_data(from[0].parms_id())->parms().coeff_modulus();
    const double scale = from[0].scale() * WEIGHT_SCALE;
    for (auto &c : to) {
        c.resize(context, from[0].parms_id(), from[0].size());
        c.is_ntt_form() = true;
        c.scale() = scale;
    }
    static vector<uint64_t> room((CONV + CONV) * TILE);
    Inputs inputs(from.size());
    Outputs outputs(to.size());
    for (size_t i = 0; i < from.size(); i++)
        inputs[i] = &room[i * TILE];
    for (size_t j = 0; j < to.size(); j++)
        outputs[j] = &room[(from.size() + j) * TILE];
    for (size_t at = 0; at < from[0].size() * moduli.size() * N; at += TILE) {
        const size_t residue = at / N % moduli.size(), polynomial = at / N / moduli.size();
        const uint64_t q = moduli[residue].value();
        for (size_t i = 0; i < from.size(); i++)
            memcpy(&room[i * TILE], from[i].data() + at, TILE_BYTES);
        compute(inputs, outputs, residue, q);
        for (size_t j = 0; j < to.size(); j++) {
            if (polynomial == 0)
                hexl::EltwiseAddMod(outputs[j], outputs[j], bias_mod(bias[j * bias.size() / to.size()], scale, q), TILE, q);
            memcpy(to[j].data() + at, outputs[j], TILE_BYTES);
        }
    }
}

static void dense(const SEALContext &context, const vector<Ciphertext> &from, vector<Ciphertext> &to, const vector<double> &weights,
                  const vector<double> &bias) {
    vector<vector<uint64_t>> residues(3);
    layer(context, from, to, bias, [&](const Inputs &inputs, const Outputs &outputs, size_t residue, uint64_t q) {
        if (residues[residue].empty())
            for (double weight : weights)
                residues[residue].push_back(weight_mod(weight, q));
        sums(inputs, outputs, residues[residue], q);
    });
}

// 5x5, stride 2, one row and column of padding. The five maps at one spot are five sums over the same pixels.
static void convolution(const SEALContext &context, const vector<Ciphertext> &from, vector<Ciphertext> &to, const Network &net) {
    layer(context, from, to, net.conv_bias, [&](const Inputs &inputs, const Outputs &outputs, size_t, uint64_t q) {
        for (size_t spot = 0; spot < SPOTS; spot++) {
            Inputs pixels;
            Outputs maps;
            vector<uint64_t> weights;
            for (int tap = 0; tap < 25; tap++) {
                const int y = spot / SIDE * 2 + tap / 5 - 1, x = spot % SIDE * 2 + tap % 5 - 1;
                if (y < 0 || x < 0 || y >= 28 || x >= 28)
                    continue;
                pixels.push_back(inputs[y * 28 + x]);
                for (size_t map = 0; map < MAPS; map++)
                    weights.push_back(weight_mod(net.conv[map * 25 + tap], q));
            }
            for (size_t map = 0; map < MAPS; map++)
                maps.push_back(outputs[map * SPOTS + spot]);
            sums(pixels, maps, weights, q);
        }
    });
}

// ----------------------------------------------------------------------------------------------------------------- the word "fused"

// SEAL's relinearise and rescale in one. SEAL sums products with the key as 128-bit integers, without vectors; here HEXL multiplies and
// adds. SEAL divides by the special prime p, then by the last one; here both divisions are one, which saves transforms.
class Fused {
    const RelinKeys &keys;
    uint64_t q[4], half[4]; // q[3] is p; half of p * q[2], to round
    vector<hexl::NTT> ntt;
    vector<uint64_t> room = vector<uint64_t>(13 * N);

  public:
    Fused(const SEALContext &context, const RelinKeys &relin_keys) : keys(relin_keys) {
        const auto &data = *context.key_context_data();
        for (int i = 0; i < 4; i++) {
            q[i] = data.parms().coeff_modulus()[i].value();
            ntt.emplace_back(N, q[i], data.small_ntt_tables()[i].get_root());
        }
        for (int i = 0; i < 4; i++)
            half[i] = static_cast<uint64_t>(static_cast<unsigned __int128>(q[2]) * q[3] / 2 % q[i]);
    }

    // `from` has three polynomials of three residues, `to` gets two of two.
    void operator()(const SEALContext &context, const Ciphertext &from, Ciphertext &to) {
        const auto &level = *context.first_context_data();
        to.resize(context, level.next_context_data()->parms_id(), 2);
        to.scale() = from.scale() / static_cast<double>(q[2]);
        uint64_t *digits = &room[0], *turned = &room[3 * N], *product = &room[4 * N], *sum[2] = { &room[5 * N], &room[9 * N] };
        for (int j = 0; j < 3; j++)
            ntt[j].ComputeInverse(digits + j * N, from.data(2) + j * N, 1, 1);
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 3; j++) {
                const uint64_t *operand = i == j ? from.data(2) + j * N : turned;
                if (i != j) // the primes have one length, so a residue of one is below twice any other
                    ntt[i].ComputeForward(turned, digits + j * N, 2, 1);
                for (int k = 0; k < 2; k++) {
                    hexl::EltwiseMultMod(product, operand, keys.key(2)[j].data().data(k) + i * N, N, q[i], 1);
                    if (j)
                        hexl::EltwiseAddMod(sum[k] + i * N, sum[k] + i * N, product, N, q[i]);
                    else if (i < 3) // the ciphertext itself, times p
                        hexl::EltwiseFMAMod(sum[k] + i * N, from.data(k) + i * N, q[3] % q[i], product, N, q[i], 1);
                    else
                        memcpy(sum[k] + i * N, product, N * sizeof(uint64_t));
                }
            }
        for (int k = 0; k < 2; k++) {
            uint64_t *last = sum[k] + 2 * N, *special = sum[k] + 3 * N;
            for (int i = 2; i < 4; i++) {
                ntt[i].ComputeInverse(sum[k] + i * N, sum[k] + i * N, 1, 1);
                hexl::EltwiseAddMod(sum[k] + i * N, sum[k] + i * N, half[i], N, q[i]);
            }
            // `last` becomes the digit with which special + p * last is what the division leaves over
            hexl::EltwiseReduceMod(product, special, N, q[2], 2, 1);
            hexl::EltwiseSubMod(last, last, product, N, q[2]);
            hexl::EltwiseFMAMod(last, last, hexl::InverseMod(q[3] % q[2], q[2]), nullptr, N, q[2], 1);
            for (int i = 0; i < 2; i++) {
                uint64_t *target = to.data(k) + i * N;
                hexl::EltwiseFMAMod(turned, last, q[3] % q[i], special, N, q[i], 2);
                hexl::EltwiseSubMod(turned, turned, half[i], N, q[i]);
                ntt[i].ComputeForward(turned, turned, 1, 1);
                hexl::EltwiseSubMod(target, sum[k] + i * N, turned, N, q[i]);
                hexl::EltwiseFMAMod(target, target, hexl::InverseMod(hexl::MultiplyMod(q[2] % q[i], q[3] % q[i], q[i]), q[i]), nullptr, N, q[i], 1);
            }
        }
    }
};

// ------------------------------------------------------------------------------------------------------------------------------ one run

struct Stages {
    double total_wall = 0, total_cpu = 0;
    std::chrono::steady_clock::time_point wall = std::chrono::steady_clock::now();
    clock_t cpu = clock();

    void done(const char *name) {
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - wall;
        const double used = double(clock() - cpu) / CLOCKS_PER_SEC;
        printf("  %-34s wall %7.3f cpu %7.3f s\n", name, seconds.count(), used);
        total_wall += seconds.count();
        total_cpu += used;
        wall = std::chrono::steady_clock::now();
        cpu = clock();
    }
};

static vector<seal_byte> saved(const Ciphertext &c) {
    vector<seal_byte> bytes(c.save_size(compr_mode_type::none));
    bytes.resize(c.save(bytes.data(), bytes.size(), compr_mode_type::none));
    return bytes;
}

int main(int count, char **argv) {
    const bool fused = count == 3 && std::string(argv[2]) == "fused", ifma = __builtin_cpu_supports("avx512ifma");
    if (count != 2 + fused) {
        fprintf(stderr, "usage: seal_ref REF.bin [fused]\n");
        return 2;
    }
    const Network net(argv[1]);

    EncryptionParameters parms(scheme_type::ckks);
    parms.set_poly_modulus_degree(N);
    parms.set_coeff_modulus(CoeffModulus::Create(N, { 50, 50, 50, 50 }));
    const SEALContext context(parms); // refuses less than 128 bits of security
    KeyGenerator keygen(context);
    const SecretKey secret = keygen.secret_key();
    RelinKeys keys;
    keygen.create_relin_keys(keys);
    CKKSEncoder encoder(context);
    const Evaluator evaluator(context);
    Fused relinearise_and_rescale(context, keys);

    // The client's part: one seeded ciphertext a pixel, serialised.
    const Encryptor encryptor(context, secret);
    Plaintext plain;
    vector<double> slots(BATCH);
    vector<vector<seal_byte>> wire(PIXELS);
    for (size_t i = 0; i < PIXELS; i++) {
        for (size_t b = 0; b < BATCH; b++)
            slots[b] = net.images[b * PIXELS + i];
        encoder.encode(slots, INPUT_SCALE, plain);
        const auto seeded = encryptor.encrypt_symmetric(plain);
        wire[i].resize(seeded.save_size(compr_mode_type::none));
        wire[i].resize(seeded.save(wire[i].data(), wire[i].size(), compr_mode_type::none));
    }
    printf("SEAL %d.%d.%d + HEXL: N=%zu batch=%zu log2 QP=%d, %zu B/image up, AVX-512 IFMA: %s\n", SEAL_VERSION_MAJOR, SEAL_VERSION_MINOR,
           SEAL_VERSION_PATCH, N, BATCH, context.key_context_data()->total_coeff_modulus_bit_count(), PIXELS * wire[0].size() / BATCH,
           ifma ? "yes" : "no, so HEXL is slow here");

    vector<Ciphertext> pixels(PIXELS), maps(CONV), hidden(HIDDEN), logits(CLASSES);
    vector<vector<seal_byte>> answer(CLASSES);
    Ciphertext scratch;
    for (const char *batch : { "first batch", "second batch" }) {
        printf(" %s\n", batch);
        Stages stages;
        for (size_t i = 0; i < PIXELS; i++)
            pixels[i].load(context, wire[i].data(), wire[i].size());
        stages.done("load");

        convolution(context, pixels, maps, net);
        stages.done("conv");

        for (auto &c : maps) {
            evaluator.square(c, scratch);
            if (fused) {
                relinearise_and_rescale(context, scratch, c);
            } else {
                evaluator.relinearize_inplace(scratch, keys);
                evaluator.rescale_to_next(scratch, c);
            }
        }
        stages.done("square 1 + relinearise + rescale");

        dense(context, maps, hidden, net.w1, net.b1);
        stages.done("dense 1");

        for (auto &c : hidden)
            evaluator.square_inplace(c);
        dense(context, hidden, logits, net.w2, net.b2);
        for (size_t j = 0; j < CLASSES; j++) {
            evaluator.rescale_to_next_inplace(logits[j]);
            evaluator.relinearize_inplace(logits[j], keys);
            answer[j] = saved(logits[j]);
        }
        stages.done("square 2 + dense 2 + relinearise");
        printf("  SERVER total cpu %.2f s wall %.2f s per batch of %zu: %.4f ms cpu/image, %.4f ms wall/image\n", stages.total_cpu,
               stages.total_wall, BATCH, stages.total_cpu / BATCH * 1e3, stages.total_wall / BATCH * 1e3);
    }

    // The client's part again: decrypt, and compare with the network in the clear.
    Decryptor decryptor(context, secret);
    vector<vector<double>> got(CLASSES);
    for (size_t j = 0; j < CLASSES; j++) {
        Ciphertext back;
        back.load(context, answer[j].data(), answer[j].size());
        decryptor.decrypt(back, plain);
        encoder.decode(plain, got[j]);
    }
    double error = 0;
    int same = 0;
    for (size_t b = 0; b < BATCH; b++) {
        const double *want = &net.logits[b * CLASSES];
        size_t best = 0;
        for (size_t j = 0; j < CLASSES; j++) {
            error = std::max(error, std::abs(got[j][b] - want[j]));
            best = got[j][b] > got[best][b] ? j : best;
        }
        same += want + best == std::max_element(want, want + CLASSES);
    }
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("  response %zu B/image; peak RSS %ld MiB\n", CLASSES * answer[0].size() / BATCH, usage.ru_maxrss / 1024);
    printf("  check: max |logit error| %.4f, same class %d/%zu\n", error, same, BATCH);
    return same >= 4080 ? 0 : 1; // rounding the weights moves about five images of the random network
}
