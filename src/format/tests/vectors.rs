//! Known answers of `FORMATS.md`: what a reader in another language must find.

use super::keys::context;
use crate::ckks::secret::SecretKey;
use crate::ring::sampling::{Seed, Stream, derive_seed};

#[test]
fn known_answers() {
    let context = context([34, 35, 35]);
    let seed = [7; 32];
    let key = SecretKey::from_seed(&context, Seed::new(seed));
    let mut ternary = vec![0; 12];
    Stream::new(&derive_seed("nightshift 1 secret key: ternary coefficients", &seed)).ternary_into(0, &mut ternary);
    let q = context.modulus(1);
    let mut uniform = vec![0; 2];
    Stream::new(&seed).uniform_into(q, 3, 1, 0, &mut uniform);
    let text = format!(
        "key_id {}\nsecret {ternary:?}\nmoduli {:?}\ngammas {:?}\nuniform entry 3 limb 1 {uniform:?}\n",
        crate::format::secret::key_id_text(&key),
        context.parameters().moduli(),
        [context.ntt(0).gamma(), context.ntt(1).gamma()],
    );
    // The very lines stand in the specification.
    let specification = include_str!("../../../FORMATS.md");
    assert!(specification.contains(&text), "FORMATS.md does not have:\n{text}");
}
