//! Cosine transforms (DCT-II) of four polynomials side by side, by split radix (Plonka and Tasche, "Fast and numerically stable algorithms for
//! discrete cosine transforms", 2005). Sums and products are those of `rustdct`, one by one, so results are the same numbers.
//!
//! A node is a transform of some length within one of two buffers. It is split into three in the same place of the other buffer, which are transformed
//! and joined to it again. A list of steps stands for the recursion: a function that calls itself would not be compiled for a tier.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Polynomials side by side, as many as a vector of four tiers out of five has doubles. With eight, two buffers of degree 8192 would not fit in a
/// second-level cache of 1 MiB.
const SIDE_BY_SIDE: usize = 4;

/// One value of each.
type Lanes = [f64; SIDE_BY_SIDE];

/// What a transform of one length does.
#[derive(Clone, Debug)]
pub struct CosinePlan {
    len: usize,
    steps: Vec<Step>,
    /// Of a node of length L from number L / 4 on: cosine and sine of `(2 i + 1) pi / 2 L`.
    factors: Vec<[f64; 2]>,
}

/// What is to be done with a node.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: StepKind,
    /// Whether the node is in the second buffer.
    second: bool,
    begin: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
enum StepKind {
    Split,
    Join,
    /// All of it, of length 2.
    Two,
    /// All of it, of length 4.
    Four,
}

impl CosinePlan {
    /// Polynomials that are transformed together.
    pub const TOGETHER: usize = SIDE_BY_SIDE;

    /// For polynomials of `len` coefficients, a power of two from 8 on and below 2^32.
    ///
    /// # Panics
    /// For another length.
    #[must_use]
    pub fn new(len: usize) -> Self {
        assert!(len.is_power_of_two() && len >= 8 && u32::try_from(len).is_ok(), "a transform of length {len}");
        let mut steps = Vec::new();
        push_steps(0, len as u32, false, &mut steps);
        let mut factors = vec![[0.0; 2]; len / 2];
        for (number, factor) in factors.iter_mut().enumerate().skip(1) {
            let quarter = 1 << number.ilog2();
            let unit = PI * -2.0 / (16 * quarter) as f64;
            let angle = unit * (2 * (number - quarter) + 1) as f64;
            *factor = [angle.cos(), -angle.sin()];
        }
        Self { len, steps, factors }
    }

    /// Values that a transform needs besides its own.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        2 * SIDE_BY_SIDE * self.len
    }
}

fn push_steps(begin: u32, len: u32, second: bool, steps: &mut Vec<Step>) {
    let step = |kind| Step { kind, second, begin, len };
    match len {
        2 => steps.push(step(StepKind::Two)),
        4 => steps.push(step(StepKind::Four)),
        _ => {
            let (half, quarter) = (len / 2, len / 4);
            steps.push(step(StepKind::Split));
            push_steps(begin, half, !second, steps);
            push_steps(begin + half, quarter, !second, steps);
            push_steps(begin + half + quarter, quarter, !second, steps);
            steps.push(step(StepKind::Join));
        }
    }
}

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
}

#[inline(always)]
fn subtract(a: Lanes, b: Lanes) -> Lanes {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
}

#[inline(always)]
fn scale(a: Lanes, factor: f64) -> Lanes {
    [a[0] * factor, a[1] * factor, a[2] * factor, a[3] * factor]
}

#[inline(always)]
fn negate(a: Lanes) -> Lanes {
    [-a[0], -a[1], -a[2], -a[3]]
}

/// See [`super::Kernel::cosine_rows_assign`].
#[inline(always)]
pub(super) fn cosine_rows_assign(plan: &CosinePlan, rows: &mut [f64], scratch: &mut [f64]) {
    let n = plan.len;
    let (lanes, _) = scratch.as_chunks_mut::<SIDE_BY_SIDE>();
    let (first, second) = lanes.split_at_mut(n);
    let second = &mut second[..n];
    side_by_side(rows, first);
    for &Step { kind, second: in_second, begin, len } in &plan.steps {
        let place = begin as usize..(begin + len) as usize;
        let (a, b) = (&mut first[place.clone()], &mut second[place]);
        let (node, other) = if in_second { (b, a) } else { (a, b) };
        match kind {
            StepKind::Split => split(node, other, &plan.factors[len as usize / 4..len as usize / 2]),
            StepKind::Join => join(node, other),
            StepKind::Two => two(node),
            StepKind::Four => four(node, plan.factors[1]),
        }
    }
    one_by_one(first, rows);
}

#[inline(always)]
fn side_by_side(rows: &[f64], lanes: &mut [Lanes]) {
    let (a, rest) = rows.split_at(lanes.len());
    let (b, rest) = rest.split_at(lanes.len());
    let (c, d) = rest.split_at(lanes.len());
    for ((((lanes, &a), &b), &c), &d) in lanes.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *lanes = [a, b, c, d];
    }
}

#[inline(always)]
fn one_by_one(lanes: &[Lanes], rows: &mut [f64]) {
    let (a, rest) = rows.split_at_mut(lanes.len());
    let (b, rest) = rest.split_at_mut(lanes.len());
    let (c, d) = rest.split_at_mut(lanes.len());
    for ((((&lanes, a), b), c), d) in lanes.iter().zip(a).zip(b).zip(c).zip(d) {
        [*a, *b, *c, *d] = lanes;
    }
}

/// A node into its half (a DCT-II of the sums) and two quarters (a DCT-IV of the differences, as two DCT-II).
#[inline(always)]
fn split(node: &[Lanes], other: &mut [Lanes], factors: &[[f64; 2]]) {
    let quarter = node.len() / 4;
    let (sums, differences) = other.split_at_mut(2 * quarter);
    let (sums, sums_back) = sums.split_at_mut(quarter);
    let (even, odd) = differences.split_at_mut(quarter);
    let (low, high) = node.split_at(2 * quarter);
    let ((bottom, half_bottom), (half_top, top)) = (low.split_at(quarter), high.split_at(quarter));
    let inputs = bottom.iter().zip(top.iter().rev()).zip(half_bottom.iter().rev().zip(half_top));
    let outputs = sums.iter_mut().zip(sums_back.iter_mut().rev()).zip(even.iter_mut().zip(odd.iter_mut().rev()));
    let mut negated = false;
    for ((inputs, outputs), &[cos, sin]) in inputs.zip(outputs).zip(factors) {
        let ((&bottom, &top), (&half_bottom, &half_top)) = inputs;
        let ((sum, sum_back), (even, odd)) = outputs;
        *sum = add(top, bottom);
        *sum_back = add(half_bottom, half_top);
        let (lower, upper) = (subtract(bottom, top), subtract(half_bottom, half_top));
        *even = add(scale(lower, cos), scale(upper, sin));
        let turned = subtract(scale(upper, cos), scale(lower, sin));
        *odd = if negated { negate(turned) } else { turned };
        negated = !negated;
    }
}

/// The reverse of [`split`], of what is transformed by now.
#[inline(always)]
fn join(node: &mut [Lanes], other: &[Lanes]) {
    let quarter = node.len() / 4;
    let (sums, differences) = other.split_at(2 * quarter);
    let (even, odd) = differences.split_at(quarter);
    let last = node.len() - 1;
    node[0] = sums[0];
    node[1] = even[0];
    node[2] = sums[1];
    node[last] = negate(odd[0]);
    let (groups, _) = node[3..last].as_chunks_mut::<4>();
    let (sums, _) = sums[2..].as_chunks::<2>();
    let mut negated = false;
    for (((group, sums), &cos), &odd) in groups.iter_mut().zip(sums).zip(&even[1..]).zip(odd[1..].iter().rev()) {
        let sin = if negated { negate(odd) } else { odd };
        *group = [add(cos, sin), sums[0], subtract(cos, sin), sums[1]];
        negated = !negated;
    }
}

#[inline(always)]
fn two(node: &mut [Lanes]) {
    if let [a, b] = node {
        (*a, *b) = (add(*a, *b), scale(subtract(*a, *b), FRAC_1_SQRT_2));
    }
}

#[inline(always)]
fn four(node: &mut [Lanes], [cos, sin]: [f64; 2]) {
    if let [a, b, c, d] = node {
        let (outer, inner) = (add(*a, *d), add(*c, *b));
        let (lower, upper) = (subtract(*a, *d), subtract(*c, *b));
        *a = add(outer, inner);
        *b = subtract(scale(lower, cos), scale(upper, sin));
        *c = scale(subtract(outer, inner), FRAC_1_SQRT_2);
        *d = add(scale(upper, cos), scale(lower, sin));
    }
}
