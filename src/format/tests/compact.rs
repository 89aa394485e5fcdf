//! The compact form of model packages: the circuit made anew on opening, word for word; its identity; refusals.

use super::package::refusal_of;
use super::*;
use crate::format::{Canary, ErrorKind, ModelPackage};
use crate::net::calibration::Ranges;
use crate::net::lowering::{KeptNeuron, Lowering};
use crate::net::network::Op;
use crate::net::sample::{random_images, random_network};
use crate::net::{LowerOptions, NetError};

/// A random network lowered with all its stages at `bits`.
fn sample(seed: u64, bits: u32) -> Result<ModelPackage, NetError> {
    let network = random_network(seed, seed as usize % 4, seed.is_multiple_of(3));
    let images = random_images(&network, 20, seed + 1000);
    let options = LowerOptions { default_bits: bits, ..LowerOptions::default() };
    let lowering = Lowering::decide(&network, &options, &Ranges::measure(&network, &images)?)?;
    let circuit = lowering.measured_circuit(&network, &images)?;
    let input: Vec<f64> = images.first(1).x;
    let logits = circuit.evaluate_batch(&input.iter().map(|&x| f64::from(x as f32)).collect::<Vec<_>>(), 1)?;
    let canaries = vec![Canary { input: input.iter().map(|&x| x as f32).collect(), logits }];
    let provenance = BTreeMap::from([("nightshift_version".to_string(), "0.0.7".to_string())]);
    Ok(ModelPackage { network, circuit, lowering: Some(lowering), canaries, ranges: None, provenance })
}

/// One whose lowering kept neurons, with squares in its circuit.
fn with_kept() -> ModelPackage {
    let mut all = (0..30).filter_map(|seed| sample(seed, 8).ok());
    all.find(|package| package.lowering.as_ref().is_some_and(|lowering| lowering.kept().len() > 2)).unwrap()
}

fn section_names(path: &Path) -> Vec<String> {
    open(path).unwrap().sections().map(|section| section.name.to_string()).collect()
}

#[test]
fn circuits_made_anew_are_the_written_ones_word_for_word() {
    let folder = tempfile::tempdir().unwrap();
    let (compact_path, full_path) = (folder.path().join("compact.nsm"), folder.path().join("full.nsm"));
    let (mut opened, mut kept, mut residuals, mut constant) = (0, 0, 0, 0);
    for seed in 0..100 {
        let package = match sample(seed, [4, 8, 16][seed as usize / 4 % 3]) {
            Err(NetError::ConstantLogit { .. }) => {
                constant += 1;
                continue;
            }
            other => other.unwrap(),
        };
        let id = package.write(&compact_path).unwrap();
        let names = section_names(&compact_path);
        assert!(names.contains(&"lowering.json".into()) && !names.iter().any(|name| name.starts_with("circuit.")));
        let back = ModelPackage::open(&compact_path).unwrap();
        assert_eq!(back, package, "network {seed}");
        // The id is over the bits of every number, so it tells the zeros apart, which `==` cannot.
        assert_eq!(back.model_id().unwrap(), id);
        let full = ModelPackage { lowering: None, ..package };
        assert_eq!(full.write(&full_path).unwrap(), id);
        assert_eq!(ModelPackage::open(&full_path).unwrap(), full);
        let lowering = back.lowering.as_ref().unwrap();
        opened += 1;
        kept += usize::from(!lowering.kept().is_empty());
        residuals += usize::from(full.network.layers.iter().any(|layer| matches!(layer.op, Op::Add { .. })));
    }
    assert!(opened >= 90 && kept >= 5 && residuals >= 20, "{opened} {kept} {residuals} {constant}");
}

/// A package of an earlier program, with its circuit in full: the integers made today are those made then.
#[test]
fn a_package_in_full_form_can_be_made_compact() {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/full-form.nsm");
    let full = ModelPackage::open(&bundled).unwrap();
    assert_eq!(full.lowering, None);
    let stage_bits = full.circuit.stages.iter().map(|stage| stage.map.weight_bits).collect();
    let package = ModelPackage { lowering: Some(Lowering::new(stage_bits, Vec::new())), ..full };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("compact.nsm");
    let id = package.write(&path).unwrap();
    assert_eq!(id, open(&bundled).unwrap().metadata("model_id").unwrap());
    assert!(section_names(&path).contains(&"lowering.json".into()));
    assert_eq!(ModelPackage::open(&path).unwrap(), package);
}

#[test]
fn a_circuit_from_elsewhere_is_written_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nsm");
    let mut package = with_kept();
    package.circuit.stages[0].map.bias[0] += 0.5;
    let id = package.write(&path).unwrap();
    assert!(section_names(&path).contains(&"circuit.json".into()));
    let back = ModelPackage::open(&path).unwrap();
    assert_eq!(back.lowering, None);
    assert_eq!(back.circuit, package.circuit);
    assert_eq!(back.model_id().unwrap(), id);
}

#[test]
fn another_circuit_than_the_written_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (sound, path) = (folder.path().join("sound.nsm"), folder.path().join("forged.nsm"));
    let package = with_kept();
    let id = package.write(&sound).unwrap();
    let weights = open(&sound).unwrap().section("network.f32").unwrap().bytes.to_vec();
    let mut other = weights.clone();
    other[2] ^= 64;
    let said = refusal_of(&package, &path, "network.f32", &[weights.len() / 4], &other);
    assert!(said.starts_with("model_id of the network lowered anew: found "), "{said}");
    assert!(said.ends_with(&format!("expected {id}, package made with 0.0.7")), "{said}");
    assert_eq!(ModelPackage::open(&path).unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn forged_decisions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (sound, path) = (folder.path().join("sound.nsm"), folder.path().join("forged.nsm"));
    let package = with_kept();
    package.write(&sound).unwrap();
    let text = String::from_utf8(open(&sound).unwrap().section("lowering.json").unwrap().bytes.to_vec()).unwrap();
    let stats = text.rfind("{").unwrap();
    let cases = [
        (text.replacen("[8", "[9", 1), "model_id of the network lowered anew"),
        (text.replacen("[8", "[17", 1), "lowering: weight bits is 17, expected 4 to 16"),
        (text.replacen("[8", "[8,8", 1), "lowering: length of stage bits is"),
        (text.replacen("\"max_abs\":\"", "\"max_abs\":\"nan", 1), "finite decimal number"),
        (text.replacen("\"max_abs\":\"", "\"max_abs\":\"-", 1), "a number of at least 0"),
        (format!("{}]}}", text[..stats].trim_end_matches(',')), "stats in section \"lowering.json\": found"),
        (text.replacen("{", "{\"more\":1,", 1), "unknown field"),
    ];
    for (forged, says) in cases {
        let said = refusal_of(&package, &path, "lowering.json", &[forged.len()], forged.as_bytes());
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    }

    let kept = package.lowering.as_ref().unwrap().kept();
    let places = |kept: &[KeptNeuron]| kept.iter().flat_map(|kept| [kept.layer, kept.entry]).collect::<Vec<_>>();
    let changed = |change: &dyn Fn(&mut Vec<KeptNeuron>)| {
        let mut kept = kept.to_vec();
        change(&mut kept);
        kept
    };
    let cases = [
        (changed(&|kept| kept.swap(0, 1)), "order of kept neurons"),
        (changed(&|kept| kept[1] = kept[0]), "order of kept neurons"),
        (changed(&|kept| kept.last_mut().unwrap().layer = u32::MAX), "kept neuron is layer 4294967295"),
        (changed(&|kept| kept.last_mut().unwrap().entry = u32::MAX), "entry 4294967295"),
        (changed(&|kept| kept.truncate(1)), "numbers in section \"lowering.units\": found"),
    ];
    for (forged, says) in cases {
        let said = refusal_of(&package, &path, "lowering.kept", &[forged.len(), 2], &encode(&places(&forged)));
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    }
    let mut units: Vec<i8> = kept.iter().map(|kept| kept.log2_unit).collect();
    for (unit, says) in [(41, "unit of a kept neuron"), (-128, "unit of a kept neuron"), (39, "lowered anew")] {
        units[0] = unit;
        let said = refusal_of(&package, &path, "lowering.units", &[units.len()], &encode(&units));
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    }
}

/// Writes sections as they come, all digests right.
fn write_sections(path: &Path, id: &str, sections: &[(SectionSpec, Vec<u8>)]) {
    let metadata = BTreeMap::from([("model_id".to_string(), id.to_string())]);
    let specs: Vec<_> = sections.iter().map(|(spec, _)| spec.clone()).collect();
    let writer = ContainerWriter::create(path, Kind::Model, &metadata, &specs).unwrap();
    sections.iter().for_each(|(spec, bytes)| writer.write_at(&spec.name, 0, bytes).unwrap());
    writer.finish().unwrap();
}

fn read_sections(path: &Path) -> Vec<(SectionSpec, Vec<u8>)> {
    let container = open(path).unwrap();
    let sections = container.sections();
    sections
        .map(|section| (SectionSpec::new(section.name, section.dtype, section.shape), section.bytes.to_vec()))
        .collect()
}

#[test]
fn a_package_has_one_form() {
    let folder = tempfile::tempdir().unwrap();
    let (path, both) = (folder.path().join("model.nsm"), folder.path().join("both.nsm"));
    let package = with_kept();
    let id = package.write(&path).unwrap();
    let mut sections = read_sections(&path);
    ModelPackage { lowering: None, ..package }.write(&path).unwrap();
    let names: Vec<String> = sections.iter().map(|(spec, _)| spec.name.clone()).collect();
    sections.extend(read_sections(&path).into_iter().filter(|(spec, _)| !names.contains(&spec.name)));
    write_sections(&both, &id, &sections);
    let said = ModelPackage::open(&both).unwrap_err().root().to_string();
    assert!(said.starts_with("section: found \"circuit."), "{said}");
}

/// A megabyte that asks for hours.
#[test]
fn a_hostile_network_is_refused_before_it_is_lowered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nsm");
    let package = (0..).find_map(|seed| sample(4 * seed, 8).ok()).unwrap();
    let id = package.write(&path).unwrap();
    let mut sections = read_sections(&path);
    let json = r#"{"name":"slow","dataset":"","input":{"shape":[1,1,1],"mean":["0.0"],"std":["1.0"]},"layers":[
        {"name":"0 conv2d","op":{"conv2d":{"weight_shape":[1,1,500,500],"stride":1,"padding":[500,500,500,500],"groups":1}}},
        {"name":"1 flatten","op":"flatten"}]}"#;
    for (spec, bytes) in &mut sections {
        match spec.name.as_str() {
            "network.json" => *bytes = json.as_bytes().to_vec(),
            "network.f32" => *bytes = encode(&vec![1.0_f32; 250_001]),
            _ => continue,
        }
        spec.shape = vec![bytes.len() / spec.dtype.size_bytes()];
    }
    write_sections(&path, &id, &sections);
    let said = ModelPackage::open(&path).unwrap_err().root().to_string();
    assert!(said.starts_with("lowering: steps is"), "{said}");
}
