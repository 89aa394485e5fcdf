//! The scheme against its own definition: errors measured against the predicted standard deviations.

use super::keyswitch::{KeySwitch, KeySwitchKey, ModDown, Scratch};
use super::public::PublicEncryptor;
use super::secret::{Decryptor, SecretEncryptor, SecretKey};
use super::{CkksError, Context, Parameters, ParametersLiteral, noise};
use crate::plan::cost::{key_switch_transforms, relinearise_transforms, rescale_transforms};
use crate::ring::kernels::Kernel;
use crate::ring::primes;

/// Parameters of the widths given; below degree 4096 outside the security table.
pub(crate) fn context(degree: usize, bits: &[u32], special: &[u32], digit_limbs: usize) -> Context {
    let mut used = Vec::new();
    for &b in bits.iter().chain(special) {
        used.push(primes::nearest(1 << b, degree, &used).unwrap());
    }
    let special = used.split_off(bits.len());
    let literal = ParametersLiteral { degree, moduli: used, special, digit_limbs };
    Context::new(Parameters::insecure(literal).unwrap(), Kernel::detect()).unwrap()
}

fn values(n: usize, seed: u64) -> Vec<f64> {
    (0..n as u64).map(|k| ((k * 7919 + seed * 104_729) % 2001) as f64 / 1000.0 - 1.0).collect()
}

/// Fresh secret-key ciphertext: `[component][limb][N]`, NTT domain.
fn encrypt(context: &Context, key: &SecretKey, values: &[f64], scale: f64) -> [Vec<u64>; 2] {
    let n = context.degree();
    let encryptor = SecretEncryptor::new(context, key, scale).unwrap();
    let mut c0 = vec![0; context.limbs() * n];
    encryptor.encrypt_into(3, &mut values.to_vec(), &mut encryptor.scratch(), &mut c0).unwrap();
    let masks = crate::ring::sampling::Stream::new(encryptor.mask_seed());
    let mut c1 = vec![0; context.limbs() * n];
    for (prime, limb) in c1.chunks_exact_mut(n).enumerate() {
        masks.uniform_into(context.modulus(prime), 3, prime as u32, 0, limb);
    }
    [c0, c1]
}

/// One after the other or several transformed together: the same ciphertexts.
#[test]
fn encrypting_several_is_encrypting_each() {
    let context = context(1024, &[45, 40, 40], &[45], 1);
    let (n, count) = (context.degree(), 7);
    let key = SecretKey::generate(&context).unwrap();
    let public_key = key.public_key(&context).unwrap();
    let slots: Vec<f64> = (0..count).flat_map(|entry| values(n, entry)).collect();
    let scale = 2f64.powi(30) + 0.5;
    let secret = SecretEncryptor::new(&context, &key, scale).unwrap();
    let public = PublicEncryptor::new(&context, &public_key, scale).unwrap();
    let (mut scratch, mut public_scratch) = (secret.scratch(), public.scratch());
    let mut together = [slots.clone(), slots.clone()];
    secret.transform_assign(&mut together[0], &mut scratch);
    public.transform_assign(&mut together[1], &mut public_scratch);
    for entry in 0..count as usize {
        let place = entry * n..(entry + 1) * n;
        let [mut a, mut b, mut c, mut d, mut e, mut f] = [(); 6].map(|()| vec![0; context.limbs() * n]);
        secret.encrypt_into(entry as u32, &mut slots[place.clone()].to_vec(), &mut scratch, &mut a).unwrap();
        secret.encrypt_transformed_into(entry as u32, &together[0][place.clone()], &mut scratch, &mut b).unwrap();
        assert!(a == b, "entry {entry}, secret key");
        let alone = &mut slots[place.clone()].to_vec();
        public.encrypt_into(entry as u32, alone, &mut public_scratch, [&mut c, &mut d]).unwrap();
        let transformed = &together[1][place];
        public.encrypt_transformed_into(entry as u32, transformed, &mut public_scratch, [&mut e, &mut f]).unwrap();
        assert!(c == e && d == f, "entry {entry}, public key");
    }
}

/// Decrypts the first `limbs` limbs of components given in the NTT domain.
fn decrypt(
    context: &Context,
    key: &SecretKey,
    components: &[&[u64]],
    limbs: usize,
    scale: f64,
) -> Result<Vec<f64>, CkksError> {
    let n = context.degree();
    let mut flat = Vec::new();
    for component in components {
        for limb in 0..limbs {
            let mut x = component[limb * n..][..n].to_vec();
            context.ntt(limb).inverse_assign(&mut x);
            flat.extend(x);
        }
    }
    let mut out = vec![0.0; n];
    key.decrypt_into(context, &mut flat, limbs, scale, 4.0, &mut Decryptor::new(context), &mut out)?;
    Ok(out)
}

fn deviation(found: &[f64], expected: &[f64]) -> f64 {
    let sum: f64 = found.iter().zip(expected).map(|(f, e)| (f - e).powi(2)).sum();
    (sum / found.len() as f64).sqrt()
}

/// Measured over predicted standard deviation must be near one: neither optimistic nor idle.
fn assert_near(measured: f64, predicted: f64, what: &str) {
    let ratio = measured / predicted;
    assert!((0.8..1.25).contains(&ratio), "{what}: measured {measured:.3e}, predicted {predicted:.3e}");
}

#[test]
fn fresh_encryptions_have_the_predicted_error() {
    let context = context(4096, &[40, 40], &[44], 1);
    let key = SecretKey::generate(&context).unwrap();
    let n = context.degree();
    let scale = (1u64 << 30) as f64;
    let z = values(n, 1);
    let [c0, c1] = encrypt(&context, &key, &z, scale);
    let found = decrypt(&context, &key, &[&c0, &c1], 2, scale).unwrap();
    assert_near(deviation(&found, &z) * scale, noise::fresh_secret(n), "secret key");

    let public = key.public_key(&context).unwrap();
    let encryptor = PublicEncryptor::new(&context, &public, scale).unwrap();
    let [mut c0, mut c1] = [vec![0; 2 * n], vec![0; 2 * n]];
    encryptor.encrypt_into(9, &mut z.clone(), &mut encryptor.scratch(), [&mut c0, &mut c1]).unwrap();
    let found = decrypt(&context, &key, &[&c0, &c1], 2, scale).unwrap();
    let special = context.parameters().special()[0] as f64;
    assert_near(deviation(&found, &z) * scale, noise::fresh_public(n, special), "public key");

    // Level drop: the first limb alone still decrypts.
    let found = decrypt(&context, &key, &[&c0, &c1], 1, scale).unwrap();
    assert!(deviation(&found, &z) < 1e-4);
}

/// Square, decrypt three components; relinearise with and without rescale, for one and several limbs a digit and specials.
#[test]
fn squares_and_key_switches_have_the_predicted_error() {
    for (bits, special, digit_limbs) in [
        (&[40, 38, 41][..], &[40][..], 1),
        (&[40, 38, 41], &[44], 2),
        (&[40, 38, 36, 41], &[42, 43], 3),
        (&[40, 38, 36, 37, 41], &[36], 1),
    ] {
        let context = context(1024, bits, special, digit_limbs);
        let n = context.degree();
        let limbs = bits.len();
        let key = SecretKey::generate(&context).unwrap();
        let switch_key = KeySwitchKey::new(&context, key.evaluation_key(&context).unwrap()).unwrap();
        let scale = (1u64 << 32) as f64;
        let z = values(n, 2);
        let [c0, c1] = encrypt(&context, &key, &z, scale);
        let mut square = [vec![0; limbs * n], vec![0; limbs * n], vec![0; limbs * n]];
        for limb in 0..limbs {
            let range = limb * n..(limb + 1) * n;
            let [s0, s1, s2] = &mut square;
            let out = [&mut s0[range.clone()], &mut s1[range.clone()], &mut s2[range.clone()]];
            context.kernel().square_into(context.modulus(limb), &c0[range.clone()], &c1[range.clone()], out);
        }
        let squares: Vec<f64> = z.iter().map(|x| x * x).collect();
        let three: Vec<&[u64]> = square.iter().map(Vec::as_slice).collect();
        let direct = decrypt(&context, &key, &three, 2, scale * scale).unwrap();
        assert!(deviation(&direct, &squares) < 1e-5, "three components");

        let mut scratch = Scratch::default();
        let digits: Vec<f64> =
            context.parameters().moduli().chunks(digit_limbs).map(|d| d.iter().map(|&q| q as f64).product()).collect();
        let special: f64 = context.parameters().special().iter().map(|&q| q as f64).product();
        for rescale in [false, true] {
            let switch = KeySwitch::new(&context, limbs, rescale).unwrap();
            let kept = switch.output_limbs();
            assert_eq!(kept, limbs - usize::from(rescale));
            let count = [relinearise_transforms, key_switch_transforms][usize::from(rescale)];
            assert_eq!(switch.transforms(), count(limbs, context.parameters().special().len(), digit_limbs));
            let mut out = [vec![0; kept * n], vec![0; kept * n]];
            let [o0, o1] = &mut out;
            switch.apply(&context, &switch_key, [three[0], three[1], three[2]], &mut scratch, [o0, o1]);
            let last = if rescale { context.parameters().moduli()[limbs - 1] as f64 } else { 1.0 };
            let scale = scale * scale / last;
            let limbs = 2.min(kept);
            let found = decrypt(&context, &key, &[&out[0], &out[1]], limbs, scale).unwrap();
            // Against the three-component decryption, so that only the switch's own error is measured.
            let predicted = noise::rescale(n).hypot(noise::key_switch(n, &digits, special * last)) / scale;
            // Below 2^-45 the double-precision decoding itself is what is measured.
            assert_near(deviation(&found, &direct).max(2f64.powi(-45)), predicted.max(2f64.powi(-45)), "key switch");
        }
    }
}

#[test]
fn rescale_alone_divides_both_components() {
    let context = context(1024, &[44, 40], &[44], 1);
    let n = context.degree();
    let key = SecretKey::generate(&context).unwrap();
    let scale = 2f64.powi(60);
    let z = values(n, 5);
    let [mut c0, mut c1] = encrypt(&context, &key, &z, scale);
    let fresh = [c0.clone(), c1.clone()];
    let down = ModDown::new(&context, vec![1], 1);
    let [mut o0, mut o1] = [vec![0; n], vec![0; n]];
    down.apply(&context, &mut c0, &mut o0);
    down.apply(&context, &mut c1, &mut o1);
    let scale = scale / context.parameters().moduli()[1] as f64;
    let found = decrypt(&context, &key, &[&o0, &o1], 1, scale).unwrap();
    assert_near(deviation(&found, &z) * scale, noise::rescale(n), "rescale");

    // As a key switch that switches no key: the same words.
    let switch = KeySwitch::rescale(&context, 2).unwrap();
    assert_eq!((switch.output_limbs(), switch.transforms()), (1, rescale_transforms(2)));
    let evaluation_key = key.evaluation_key(&context).unwrap();
    let unused = KeySwitchKey::new(&context, evaluation_key).unwrap();
    let [c0, c1] = fresh;
    let mut out = [vec![0; n], vec![0; n]];
    let [p0, p1] = &mut out;
    switch.apply(&context, &unused, [&c0, &c1, &[]], &mut Scratch::default(), [p0, p1]);
    assert!(out == [o0, o1]);
    assert!(KeySwitch::rescale(&context, 1).is_err() && KeySwitch::rescale(&context, 3).is_err());
}

#[test]
fn a_wrong_key_is_noticed() {
    let context = context(1024, &[40, 40], &[44], 1);
    let key = SecretKey::generate(&context).unwrap();
    let other = SecretKey::generate(&context).unwrap();
    assert_ne!(key.id(), other.id());
    let scale = (1u64 << 30) as f64;
    let [c0, c1] = encrypt(&context, &key, &values(1024, 1), scale);
    assert!(matches!(decrypt(&context, &other, &[&c0, &c1], 2, scale), Err(CkksError::Overflow { .. })));
}

#[test]
fn keys_come_back_from_their_seed() {
    let context = context(64, &[40], &[44], 1);
    let key = SecretKey::generate(&context).unwrap();
    let again = SecretKey::from_seed(&context, zeroize::Zeroizing::new(*key.seed()));
    assert_eq!(key.id(), again.id());
    let z = values(64, 8);
    let [c0, c1] = encrypt(&context, &key, &z, 2f64.powi(30));
    assert!(deviation(&decrypt(&context, &again, &[&c0, &c1], 1, 2f64.powi(30)).unwrap(), &z) < 1e-5);
}

#[test]
fn sizes_are_checked() {
    let context = context(64, &[40, 40], &[44], 1);
    let key = SecretKey::generate(&context).unwrap();
    let mut evaluation = key.evaluation_key(&context).unwrap();
    evaluation.b.pop();
    assert!(matches!(KeySwitchKey::new(&context, evaluation), Err(CkksError::Parameters { .. })));
    assert!(KeySwitch::new(&context, 3, true).is_err());
    assert!(KeySwitch::new(&context, 1, true).is_err());
    assert!(KeySwitch::new(&context, 0, false).is_err());
    let mut short = vec![0; 63];
    let mut out = vec![0.0; 64];
    let found = key.decrypt_into(&context, &mut short, 1, 1.0, 1.0, &mut Decryptor::new(&context), &mut out);
    assert!(matches!(found, Err(CkksError::Parameters { .. })));
}
