//! The inner loops one by one, one thread, in cache: every kernel tier present on the shapes of a CryptoNets batch.
//!
//! `cargo bench --bench kernels`. Names are `logN=13/limbs=3/isa=TIER/WHAT`; `elem/s` counts multiply-accumulates of one residue for block products, transforms
//! for `transform`, key switches for `key switch`, and residues for the rest.

use criterion::{BatchSize, Criterion, Throughput};
use nightshift::ckks::keyswitch::{KeySwitch, KeySwitchKey, Scratch};
use nightshift::ckks::secret::SecretKey;
use nightshift::ckks::{Context, Parameters, ParametersLiteral};
use nightshift::ring::kernels::{BlockOperands, BlockScratch, Kernel, PackedBlock, Start};
use nightshift::ring::primes;
use nightshift::ring::sampling::Stream;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const DEGREE: usize = 8192;
/// Columns of a tile.
const COLUMNS: usize = 16;

/// Primes of the widths that the bundled model's plan has.
fn context(kernel: Kernel) -> Outcome<Context> {
    let mut used = Vec::new();
    for target in [920_000_000_000u64, 921_000_000_000, 17_400_000_000_000, 362_000_000_000] {
        used.push(primes::nearest(target, DEGREE, &used)?);
    }
    let special = used.split_off(3);
    let literal = ParametersLiteral { degree: DEGREE, moduli: used, special, digit_limbs: 2 };
    Ok(Context::new(Parameters::new(literal)?, kernel)?)
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
        let mut x = vec![0; columns * row_words];
        Stream::new(&[0; 32]).uniform_into(m, 0, 0, 0, &mut x);
        kernel.nonzero_assign(m, &mut x);
        let (columns_in, rows_out): (Vec<u32>, Vec<u32>) = ((0..columns as u32).collect(), (0..rows as u32).collect());
        let constants = vec![1; rows];
        let start = Start::Constants { values: &constants, columns: COLUMNS };
        let operands = BlockOperands { x: &x, columns: &columns_in, rows: &rows_out, row_words, start };
        let (mut scratch, mut out) = (BlockScratch::default(), vec![0; rows * row_words]);
        let mut group = criterion.benchmark_group(format!("{prefix}/block {rows}x{columns}"));
        group.throughput(Throughput::Elements((rows * columns * row_words) as u64));
        let name = format!("bits={}/components={components}", m.bits());
        group.bench_function(&name, |b| b.iter(|| block.mul_add_into(m, &operands, &mut scratch, &mut out)));
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
    group.bench_function("square", |b| b.iter(|| kernel.square_rows_into(m, COLUMNS, &x, &mut squares)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("transform", |b| b.iter(|| context.ntt(2).forward_assign(&mut out)));
    group.finish();
}

fn key_switch(criterion: &mut Criterion, context: &Context, prefix: &str) -> Outcome<()> {
    let limbs = context.limbs();
    let key = KeySwitchKey::new(context, SecretKey::generate(context)?.evaluation_key(context)?)?;
    let switch = KeySwitch::new(context, limbs, true)?;
    let mut components = vec![0; 3 * limbs * DEGREE];
    for (at, limb) in components.chunks_exact_mut(DEGREE).enumerate() {
        Stream::new(&[2; 32]).uniform_into(context.modulus(at % limbs), at as u32, 0, 0, limb);
    }
    let component = |c: usize| &components[c * limbs * DEGREE..][..limbs * DEGREE];
    let mut scratch = Scratch::default();
    let mut group = criterion.benchmark_group(prefix);
    group.throughput(Throughput::Elements(1));
    group.bench_function("key switch", |b| {
        b.iter_batched_ref(
            || [0, 1].map(|_| vec![0; switch.output_limbs() * DEGREE]),
            |[o0, o1]| switch.apply(context, &key, [0, 1, 2].map(component), &mut scratch, [o0, o1]),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    Ok(())
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    for kernel in Kernel::present() {
        let context = context(kernel)?;
        let prefix = format!("logN={}/limbs={}/isa={}", DEGREE.ilog2(), context.limbs(), kernel.name());
        block_products(&mut criterion, &context, &prefix);
        pointwise(&mut criterion, &context, &prefix);
        key_switch(&mut criterion, &context, &prefix)?;
    }
    criterion.final_summary();
    Ok(())
}
