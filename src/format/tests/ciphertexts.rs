//! Batches and results: round trips in runs, mismatches one by one, unreduced residues, incomplete writers.

use std::path::PathBuf;

use super::keys::{context, header};
use super::*;
use crate::ckks::Context;
use crate::ckks::secret::SecretKey;
use crate::format::ErrorKind;
use crate::format::ciphertexts::{
    BatchHeader, BatchPlace, BatchWriter, EncryptedBatch, Encryption, EncryptionKind, ExpectedBatch, ExpectedResult,
    ResultBatch, ResultHeader, write_results,
};
use crate::ring::sampling::Stream;

const ENTRIES: usize = 3;
const SCALE: f64 = 1234567.890625;

struct Toy {
    folder: tempfile::TempDir,
    context: Context,
    header: BatchHeader,
}

impl Toy {
    fn new(encryption: EncryptionKind) -> Self {
        let context = context([34, 37, 34]);
        let header = header(&SecretKey::generate(&context).unwrap());
        let place = BatchPlace {
            job_id: "ab".repeat(16),
            index: 1,
            first_image: 4096,
            occupancy: 4000,
            canaries: vec![(4095, 0), (4094, 1)],
            encryption,
        };
        let header = BatchHeader { header, place, scale: SCALE };
        Self { folder: tempfile::tempdir().unwrap(), context, header }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn expected(&self) -> ExpectedBatch<'_> {
        let header = &self.header;
        ExpectedBatch {
            context: &self.context,
            input_scale: SCALE,
            plan_id: &header.header.plan_id,
            key_id: &header.header.key_id,
            job_id: &header.place.job_id,
            entries: ENTRIES,
        }
    }

    /// Residues `[limb][N]` that differ for every entry, component and limb, the largest one among them.
    fn residues(&self, entry: usize, component: usize) -> Vec<u64> {
        let n = self.context.degree();
        let mut residues = vec![0; 2 * n];
        for (limb, part) in residues.chunks_exact_mut(n).enumerate() {
            let m = self.context.modulus(limb);
            Stream::new(&[component as u8; 32]).uniform_into(m, entry as u32, limb as u32, 0, part);
            part[n - 1] = m.value() - 1;
        }
        residues
    }

    fn write(&self, name: &str, encryption: &Encryption) -> Result<PathBuf, FormatError> {
        let path = self.path(name);
        let writer = BatchWriter::create(&path, &self.header, &self.context, ENTRIES, encryption)?;
        let stored = if *encryption == Encryption::Public { 2 } else { 1 };
        for entry in (0..ENTRIES).rev() {
            for component in 0..stored {
                writer.write_entry(entry, component, &self.residues(entry, component))?;
            }
        }
        let written = writer.finish()?;
        assert_eq!(written.digest, blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string());
        Ok(path)
    }
}

#[test]
fn batches_come_back_in_runs_of_any_length() {
    for encryption in [Encryption::Secret { mask_seed: [9; 32] }, Encryption::Public] {
        let toy = Toy::new(encryption.kind());
        let path = toy.write("batch", &encryption).unwrap();
        let batch = EncryptedBatch::open(&path, &toy.expected()).unwrap();
        batch.verify().unwrap();
        assert_eq!((batch.place(), batch.header()), (&toy.header.place, &toy.header.header));
        assert_eq!((batch.index(), batch.first_image(), batch.occupancy()), (1, 4096, 4000));
        let n = toy.context.degree();
        for entry in 0..ENTRIES {
            for component in 0..2 {
                let mut whole = toy.residues(entry, component);
                if component == 1 && encryption != Encryption::Public {
                    for (limb, part) in whole.chunks_exact_mut(n).enumerate() {
                        let m = toy.context.modulus(limb);
                        Stream::new(&[9; 32]).uniform_into(m, entry as u32, limb as u32, 0, part);
                    }
                }
                for (limb, first, len) in [(0, 0, n), (1, 0, n), (1, 5, 123), (0, n - 1, 1), (1, n, 0)] {
                    let mut part = vec![u64::MAX; len];
                    batch.load_into(component, limb, entry, first, &mut part).unwrap();
                    assert_eq!(part, whole[limb * n + first..][..len], "{component} {limb} {entry} {first}");
                }
            }
        }
        for (component, limb, entry, first, len) in
            [(2, 0, 0, 0, 1), (0, 2, 0, 0, 1), (0, 0, ENTRIES, 0, 1), (1, 0, 0, n, 1), (0, 0, 0, usize::MAX, 2)]
        {
            let outside = batch.load_into(component, limb, entry, first, &mut vec![0; len]);
            assert!(matches!(outside, Err(FormatError::Invalid { .. })), "{component} {limb} {entry} {first}");
        }
    }
}

/// Neighbours' whole blocks are unpacked in one go, everything else one by one.
#[test]
fn rows_are_what_they_are_one_by_one() {
    for encryption in [Encryption::Secret { mask_seed: [9; 32] }, Encryption::Public] {
        let toy = Toy::new(encryption.kind());
        let path = toy.write("batch", &encryption).unwrap();
        let batch = EncryptedBatch::open(&path, &toy.expected()).unwrap();
        let n = toy.context.degree();
        for entries in [&[0, 1, 2][..], &[1, 2], &[0, 2], &[2, 1], &[1, 1], &[2], &[]] {
            for (first, columns) in [(0, 64), (n - 64, 64), (64, 16), (32, 64), (32, 32), (64, 128), (0, 0)] {
                for (component, limb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    batch.prefetch(limb, entries, first, columns);
                    let mut rows = vec![u64::MAX; entries.len() * columns];
                    batch.load_rows_into(component, limb, entries, first, &mut rows).unwrap();
                    for (&entry, row) in entries.iter().zip(rows.chunks_exact(columns.max(1))) {
                        let mut alone = vec![0; columns];
                        batch.load_into(component, limb, entry as usize, first, &mut alone).unwrap();
                        assert_eq!(row, alone, "{component} {limb} {entries:?} {entry} {first} {columns}");
                    }
                }
            }
        }
        let last = ENTRIES as u32;
        for (component, limb, entries, first) in [
            (0, 0, [1, last], 0),
            (1, 0, [last, 1], 0),
            (0, 0, [0, 1], n - 63),
            (1, 1, [0, 1], n),
            (2, 0, [0, 1], 0),
            (0, 2, [0, 1], 0),
        ] {
            batch.prefetch(limb, &entries, first, 64);
            let outside = batch.load_rows_into(component, limb, &entries, first, &mut [0; 128]);
            assert!(matches!(outside, Err(FormatError::Invalid { .. })), "{component} {limb} {entries:?} {first}");
        }
        // A residue that is none, in the last of the neighbours.
        let container = Container::open(&path, Some(Kind::Ciphertexts), &OpenLimits::default()).unwrap();
        let section = container.section("c0.limb1").unwrap();
        let (width, packed) = (*section.shape.last().unwrap(), section.bytes.to_vec());
        let mut file = std::fs::read(&path).unwrap();
        let begin = file.windows(packed.len()).position(|window| window == packed).unwrap();
        let block = 64 * ENTRIES * width;
        file[begin + block + (2 * 64 + 5) * width..][..width].fill(0xff);
        std::fs::write(toy.path("damaged"), file).unwrap();
        let damaged = EncryptedBatch::open(&toy.path("damaged"), &toy.expected()).unwrap();
        let load =
            |entries: &[u32], first| damaged.load_rows_into(0, 1, entries, first, &mut vec![0; entries.len() * 64]);
        load(&[0, 1, 2], 0).unwrap();
        load(&[0, 1], 64).unwrap();
        let unreduced = load(&[0, 1, 2], 64).unwrap_err();
        assert!(matches!(unreduced.root(), FormatError::Residue { index: 5, .. }), "{unreduced}");
    }
}

/// `[N / 64, entries, 64, width]`, and a run of entries is the same as one after the other.
#[test]
fn a_block_of_positions_of_all_entries_is_one_piece() {
    let toy = Toy::new(EncryptionKind::Public);
    let single = std::fs::read(toy.write("single", &Encryption::Public).unwrap()).unwrap();
    let path = toy.path("run");
    let writer = BatchWriter::create(&path, &toy.header, &toy.context, ENTRIES, &Encryption::Public).unwrap();
    {
        let mut packed = vec![0; ENTRIES * writer.entry_bytes()];
        let mut run = writer.run(&mut packed);
        assert!(run.begin(1, ENTRIES).is_err());
        for range in [0..1, 1..ENTRIES] {
            run.begin(range.start, range.len()).unwrap();
            assert!(run.put(range.end, 0, &toy.residues(0, 0)).is_err());
            for (entry, component) in range.flat_map(|entry| [(entry, 1), (entry, 0)]) {
                run.put(entry, component, &toy.residues(entry, component)).unwrap();
            }
            run.write().unwrap();
        }
    }
    writer.finish().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), single);

    let container = Container::open(&path, Some(Kind::Ciphertexts), &OpenLimits::default()).unwrap();
    let section = container.section("c1.limb1").unwrap();
    let width = *section.shape.last().unwrap();
    assert_eq!(section.shape, [toy.context.degree() / 64, ENTRIES, 64, width]);
    let (block, entry, position) = (2, 1, 17);
    let bytes = &section.bytes[((block * ENTRIES + entry) * 64 + position) * width..][..width];
    let residue = toy.residues(entry, 1)[toy.context.degree() + block * 64 + position];
    assert_eq!(bytes, &residue.to_le_bytes()[..width]);
}

#[test]
fn what_does_not_belong_is_a_mismatch() {
    let toy = Toy::new(EncryptionKind::Public);
    let path = toy.write("batch", &Encryption::Public).unwrap();
    let other = context([34, 36, 34]);
    let (id32, id64) = ("1".repeat(32), "2".repeat(64));
    let sound = toy.expected();
    for (part, expected) in [
        ("plan_id", ExpectedBatch { plan_id: &id64, ..sound }),
        ("key_id", ExpectedBatch { key_id: &id32, ..sound }),
        ("job_id", ExpectedBatch { job_id: &id32, ..sound }),
        ("parameters", ExpectedBatch { context: &other, ..sound }),
        ("entries", ExpectedBatch { entries: 4, ..sound }),
        ("scale", ExpectedBatch { input_scale: SCALE + 1e-9, ..sound }),
    ] {
        let error = EncryptedBatch::open(&path, &expected).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.root().to_string().starts_with(&format!("{part} mismatch: found ")), "{error}");
    }
}

#[test]
fn writers_refuse_what_readers_would() {
    let mut toy = Toy::new(EncryptionKind::Public);
    let n = toy.context.degree();
    let create = |toy: &Toy, encryption: &Encryption| {
        BatchWriter::create(&toy.path("batch"), &toy.header, &toy.context, ENTRIES, encryption).map(|_| ())
    };
    assert!(create(&toy, &Encryption::Secret { mask_seed: [0; 32] }).is_err(), "place says public");
    let writer =
        BatchWriter::create(&toy.path("batch"), &toy.header, &toy.context, ENTRIES, &Encryption::Public).unwrap();
    let mut residues = toy.residues(0, 0);
    assert!(writer.write_entry(ENTRIES, 0, &residues).is_err());
    assert!(writer.write_entry(0, 2, &residues).is_err());
    assert!(writer.write_entry(0, 0, &residues[1..]).is_err());
    residues[n + 5] = toy.context.modulus(1).value();
    assert!(matches!(writer.write_entry(0, 0, &residues).unwrap_err(), FormatError::Residue { index: 5, .. }));
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("bytes written to"), "{error}");
    assert_eq!(std::fs::read_dir(toy.folder.path()).unwrap().count(), 0, "nothing is left");

    for spoil in [
        |place: &mut BatchPlace| place.occupancy = 0,
        |place: &mut BatchPlace| place.occupancy = 4097,
        |place: &mut BatchPlace| place.canaries = vec![(3999, 0)],
        |place: &mut BatchPlace| place.canaries = vec![(4096, 0)],
        |place: &mut BatchPlace| place.canaries = vec![(4095, 0), (4095, 1)],
        |place: &mut BatchPlace| place.job_id = "AB".repeat(16),
    ] {
        let sound = toy.header.place.clone();
        spoil(&mut toy.header.place);
        assert_eq!(create(&toy, &Encryption::Public).unwrap_err().kind(), ErrorKind::BadData);
        toy.header.place = sound;
    }
    toy.header.scale = f64::NAN;
    assert!(create(&toy, &Encryption::Public).is_err());
}

#[test]
fn results_come_back_and_are_held_to_their_job() {
    let toy = Toy::new(EncryptionKind::Secret);
    let path = toy.path("result");
    let digest = "3".repeat(64);
    let header = ResultHeader {
        header: toy.header.header.clone(),
        place: toy.header.place.clone(),
        input_digest: digest.clone(),
    };
    let n = toy.context.degree();
    let residues: Vec<u64> = (0..2 * 3).flat_map(|at| toy.residues(at, 0)[..n].to_vec()).collect();
    let write = |limbs: usize, residues: &[u64]| {
        write_results(&path, &header, &toy.context, 2, 3, limbs, SCALE, residues).map(|_| ())
    };
    write(1, &residues).unwrap();
    let sound = ExpectedResult {
        context: &toy.context,
        plan_id: &header.header.plan_id,
        key_id: &header.header.key_id,
        job_id: &header.place.job_id,
        index: 1,
        first_image: 4096,
        occupancy: 4000,
        input_digest: &digest,
        outputs: 2,
        components: 3,
        limbs: 1,
        scale: SCALE,
    };
    let results = ResultBatch::open(&path, &sound).unwrap();
    results.verify().unwrap();
    assert_eq!(results.header(), &header);
    assert_eq!(results.read().unwrap(), residues);
    let mut second = vec![0; 3 * n];
    results.read_output_into(1, &mut second).unwrap();
    assert_eq!(second, residues[3 * n..]);
    assert!(results.read_output_into(2, &mut second).is_err());

    let other = "4".repeat(64);
    for (part, expected) in [
        ("batch", ExpectedResult { index: 0, ..sound }),
        ("first_image", ExpectedResult { first_image: 0, ..sound }),
        ("occupancy", ExpectedResult { occupancy: 4001, ..sound }),
        ("input_digest", ExpectedResult { input_digest: &other, ..sound }),
        ("outputs", ExpectedResult { outputs: 3, ..sound }),
        ("components", ExpectedResult { components: 2, ..sound }),
        ("level", ExpectedResult { limbs: 2, ..sound }),
        ("scale", ExpectedResult { scale: SCALE * 2.0, ..sound }),
        ("job_id", ExpectedResult { job_id: &other, ..sound }),
        ("plan_id", ExpectedResult { plan_id: &other, ..sound }),
    ] {
        let error = ResultBatch::open(&path, &expected).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.root().to_string().starts_with(&format!("{part} mismatch: found ")), "{error}");
    }
    assert!(write(1, &residues[1..]).is_err());
    assert!(write(3, &residues).is_err() && write(0, &residues).is_err());
    let mut unreduced = residues.clone();
    unreduced[n] = toy.context.modulus(0).value();
    assert!(matches!(write(1, &unreduced).unwrap_err().root(), FormatError::Residue { index: 0, .. }));
    assert_eq!(ResultBatch::open(&path, &sound).unwrap().read().unwrap(), residues, "a failed write changes nothing");
}
