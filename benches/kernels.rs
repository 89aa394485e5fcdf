//! The inner loops one by one, one thread, in cache: every kernel tier present on the shapes of a CryptoNets batch.
//!
//! `cargo bench --bench kernels`. Names are `logN=13/limbs=3/isa=TIER/WHAT`; `elem/s` counts multiply-accumulates of one residue for block products, transforms
//! for `transform`, key switches for `key switch` (whose name says how many transforms it does), and residues for the rest.

use criterion::{Criterion, Throughput};
use nightshift::ckks::keyswitch::{KeySwitch, KeySwitchKey, Scratch};
use nightshift::ckks::secret::SecretKey;
use nightshift::ckks::{Context, Parameters, ParametersLiteral};
use nightshift::ring::kernels::{BlockOperands, BlockScratch, Kernel, PackedBlock, Start, Zero};
use nightshift::ring::sampling::Stream;
use nightshift::ring::{Lines, primes};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const DEGREE: usize = 8192;
/// Columns of a tile.
const COLUMNS: usize = 16;

/// Primes of about so many bits, the last `special` of them special.
fn context(kernel: Kernel, degree: usize, bits: &[f64], special: usize, digit_limbs: usize) -> Outcome<Context> {
    let mut used = Vec::new();
    for bits in bits {
        used.push(primes::nearest(bits.exp2() as u64, degree, &used)?);
    }
    let special = used.split_off(bits.len() - special);
    Ok(Context::new(Parameters::new(ParametersLiteral { degree, moduli: used, special, digit_limbs })?, kernel)?)
}

fn block_products(criterion: &mut Criterion, context: &Context, prefix: &str) {
    let kernel = context.kernel();
    for (prime, rows, columns, components) in
        [(0, 100, 845, 3), (2, 100, 845, 3), (2, 5, 25, 2), (2, 64, 576, 3), (2, 10, 100, 3)]
    {
        let m = context.modulus(prime);
        let row_words = components * COLUMNS;
        let weights: Vec<i16> = (0..rows * columns).map(|i| ((i * 37) % 255) as i16 - 127).collect();
        let block = PackedBlock::new(kernel, rows, columns, &weights);
        let mut x = Lines::default();
        let x = x.first(columns * row_words);
        Stream::new(&[0; 32]).uniform_into(m, 0, 0, 0, x);
        kernel.nonzero_assign(m, x);
        let (columns_in, rows_out): (Vec<u32>, Vec<u32>) = ((0..columns as u32).collect(), (0..rows as u32).collect());
        let constants = vec![1; rows];
        let start = Start::Constants { values: &constants, columns: COLUMNS };
        let operands = BlockOperands { x, columns: &columns_in, rows: &rows_out, row_words, start };
        let (mut scratch, mut out) = (BlockScratch::default(), Lines::default());
        let out = out.first(rows * row_words);
        let mut group = criterion.benchmark_group(format!("{prefix}/block {rows}x{columns}"));
        group.throughput(Throughput::Elements((rows * columns * row_words) as u64));
        let name = format!("bits={}/components={components}", m.bits());
        group.bench_function(&name, |b| b.iter(|| block.mul_add_into(m, &operands, &mut scratch, out)));
        group.finish();
    }
}

fn pointwise(criterion: &mut Criterion, context: &Context, prefix: &str) {
    let (kernel, m) = (context.kernel(), context.modulus(2));
    let stream = Stream::with_kernel(&[1; 32], kernel);
    let (mut x, mut squares) = (vec![0; 2 * DEGREE], vec![0; 3 * DEGREE]);
    stream.uniform_into(m, 0, 0, 0, &mut x);
    let packed: Vec<u8> = x[..DEGREE].iter().flat_map(|r| r.to_le_bytes()[..6].to_vec()).collect();
    let mut out = vec![0; DEGREE];
    let mut group = criterion.benchmark_group(prefix);
    group.throughput(Throughput::Elements(DEGREE as u64));
    group.bench_function("uniform", |b| b.iter(|| stream.uniform_into(m, 1, 0, 0, &mut out)));
    group.bench_function("unpack", |b| b.iter(|| kernel.unpack_into(6, &packed, &mut out)));
    group.bench_function("square", |b| b.iter(|| kernel.square_rows_into(m, COLUMNS, &x, Zero::Modulus, &mut squares)));
    group.finish();
}

/// A key switch, and a transform each way.
fn key_switch(criterion: &mut Criterion, context: &Context, prefix: &str) -> Outcome<()> {
    let (limbs, n) = (context.limbs(), context.degree());
    let key = KeySwitchKey::new(context, SecretKey::generate(context)?.evaluation_key(context)?)?;
    let switch = KeySwitch::new(context, limbs, true)?;
    let mut components = vec![0; 3 * limbs * n];
    for (at, limb) in components.chunks_exact_mut(n).enumerate() {
        Stream::new(&[2; 32]).uniform_into(context.modulus(at % limbs), at as u32, 0, 0, limb);
    }
    let component = |c: usize| &components[c * limbs * n..][..limbs * n];
    let mut scratch = Scratch::default();
    let mut group = criterion.benchmark_group(prefix);
    group.throughput(Throughput::Elements(1));
    let mut polynomial = Lines::from(&component(0)[..n]);
    let polynomial = polynomial.first(n);
    group.bench_function("transform", |b| b.iter(|| context.ntt(0).forward_assign(polynomial)));
    group.bench_function("transform back", |b| b.iter(|| context.ntt(0).inverse_assign(polynomial)));
    let [mut first, mut second] = [0, 1].map(|_| vec![0; switch.output_limbs() * n]);
    group.bench_function(format!("key switch of {} transforms", switch.transforms()), |b| {
        b.iter(|| switch.apply(context, &key, [0, 1, 2].map(component), &mut scratch, [&mut first, &mut second]));
    });
    group.finish();
    Ok(())
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    for kernel in Kernel::present() {
        let prefix = |c: &Context| format!("logN={}/limbs={}/isa={}", c.degree().ilog2(), c.limbs(), c.kernel().name());
        // As a CryptoNets network and a CIFAR-10 network are planned.
        let small = context(kernel, DEGREE, &[39.743, 39.744, 43.984, 38.397], 1, 2)?;
        let large = context(kernel, 16_384, &[39.29, 39.3, 41.43, 44.7, 40.0, 44.99, 43.85, 43.86], 2, 3)?;
        block_products(&mut criterion, &small, &prefix(&small));
        pointwise(&mut criterion, &small, &prefix(&small));
        for context in [small, large] {
            key_switch(&mut criterion, &context, &prefix(&context))?;
        }
    }
    criterion.final_summary();
    Ok(())
}
