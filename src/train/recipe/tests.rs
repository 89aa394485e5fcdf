use super::*;

/// Every key with a value that is not its default.
const FULL: &str = r#"
name = "a-b_1"
dataset = "MNIST"
seed = 9223372036854775807

[data]
held_out = 100
limit = 5000
rendered_digits = 60
classes = 10
mean = [0.25]
std = [0.5]

[augment]
shift = 2
rotate = 10.0
scale = 0.125
shear = 0.25
elastic = 1.5
elastic_sigma = 4.0
flip = true
cutout = 8

[[layer]]
type = "conv2d"
out = 6
kernel = 5
stride = 2
padding = [0, 1, 1, 0]
groups = 3
[[layer]]
type = "batchnorm"
[[layer]]
type = "activation"
granularity = "channel"
[[layer]]
type = "add"
with = 1
[[layer]]
type = "avgpool2d"
kernel = 2
stride = 1
[[layer]]
type = "flatten"
[[layer]]
type = "dense"
out = 10

[activation]
granularity = "layer"
init = [0.5, 0.25, 0.125]
least_a = 0.0625
rate = 0.5

[train]
epochs = 3
batch = 64
shards = 4
learning_rate = 0.001
weight_decay = 0.02
warm_up = 0.25
clip = 1.0
label_smoothing = 0.125
range_penalty = 0.5
range_limit = 6.0
range_images = 5
blend = 0.25
average = 0.75

[teacher]
epochs = 2
learning_rate = 0.004
temperature = 2.0
alpha = 0.5
features = 1.0
warm_start = true
[[teacher.layer]]
type = "dense"
out = 10

[quantise]
bits = [8, 5]
steps = 10
learning_rate = 0.0001

[ladder]
granularities = ["square", "element"]
seeds = [4, 5]
epochs = 1
teacher_epochs = 2
"#;

const SMALL: &str = "name = \"m\"\n[train]\nepochs = 1\n[[layer]]\ntype = \"dense\"\nout = 2\n";

fn refused(text: &str) -> String {
    Recipe::parse(text).unwrap_err().to_string()
}

#[test]
fn a_recipe_survives_being_written_out() {
    for text in [FULL, SMALL] {
        let recipe = Recipe::parse(text).unwrap();
        assert_eq!(Recipe::parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
    }
}

#[test]
fn every_key_is_read() {
    let recipe = Recipe::parse(FULL).unwrap();
    assert_eq!((recipe.seed, recipe.data.classes, recipe.augment.cutout), (i64::MAX as u64, 10, 8));
    let conv = LayerRecipe::Conv2d { out: 6, kernel: 5, stride: 2, padding: Padding::Sides([0, 1, 1, 0]), groups: 3 };
    assert_eq!(recipe.layers[0], conv);
    assert_eq!(recipe.layers[2], LayerRecipe::Activation { granularity: Some(Sharing::Channel) });
    let teacher = recipe.teacher.unwrap();
    assert_eq!((teacher.layers.as_slice(), teacher.warm_start), (&[LayerRecipe::Dense { out: 10 }][..], true));
    assert_eq!(recipe.quantise.unwrap().bits.stages(2), [8, 5]);
    assert_eq!(recipe.ladder.granularities, [Sharing::Square, Sharing::Element]);
    // Each section of the text differs from its default: none was passed over.
    assert_ne!(recipe.data, DataRecipe::default());
    assert_ne!(recipe.activation, ActivationRecipe::default());
}

#[test]
fn what_is_left_out_has_its_default() {
    let recipe = Recipe::parse(SMALL).unwrap();
    assert_eq!((recipe.seed, recipe.data.held_out, recipe.train.batch), (1, 2000, 128));
    assert_eq!(recipe.augment, AugmentRecipe::default());
    assert!(recipe.teacher.is_none() && recipe.quantise.is_none());
    let conv = Recipe::parse(&format!("{SMALL}[[layer]]\ntype = \"conv2d\"\nout = 2\nkernel = 3\n")).unwrap();
    let expected = LayerRecipe::Conv2d { out: 2, kernel: 3, stride: 1, padding: Padding::Same(0), groups: 1 };
    assert_eq!(conv.layers[1], expected);
}

#[test]
fn tables_leave_no_room_for_what_only_quadratics_have() {
    let with = |sections: &str| Recipe::parse(&format!("{SMALL}{sections}"));
    assert_eq!(with("[tables]\n").unwrap().tables, Some(TablesRecipe { bits: 6 }));
    assert_eq!(with("[tables]\nbits = 4\n").unwrap().tables, Some(TablesRecipe { bits: 4 }));
    let activation = |granularity: &str| format!("[[layer]]\ntype = \"activation\"\n{granularity}[tables]\n");
    assert!(with(&activation("")).is_ok());
    for (text, expected) in [
        (format!("{SMALL}[tables]\nbits = 3\n"), "tables.bits is 3, expected 4 to 6"),
        (format!("{SMALL}[tables]\n[quantise]\n"), "quantise is a section, expected none beside [tables]"),
        (format!("{}[tables]\n", SMALL.replace("epochs = 1", "epochs = 1\nblend = 0.5")), "train.blend is 0.5"),
        (format!("{SMALL}{}", activation("granularity = \"layer\"\n")), "layer 2: granularity is given"),
    ] {
        assert!(refused(&text).starts_with(expected), "{}", refused(&text));
    }
}

#[test]
fn an_unknown_key_is_named() {
    for (text, key) in [
        (format!("sed = 3\n{SMALL}"), "sed"),
        (SMALL.replace("epochs = 1", "epochs = 1\nlearning_rat = 0.1"), "learning_rat"),
        (SMALL.replace("out = 2", "out = 2\nbias = true"), "bias"),
        (format!("{SMALL}[augment]\nflop = true\n"), "flop"),
        (format!("{SMALL}[data]\nheldout = 1\n"), "heldout"),
        (format!("{SMALL}[quantise]\nbit = 8\n"), "bit"),
        (format!("{SMALL}[teacher]\nepochs = 1\nalfa = 0.5\n"), "alfa"),
        (format!("{SMALL}[[layer]]\ntype = \"maxpool\"\n"), "maxpool"),
    ] {
        let error = refused(&text);
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    }
    assert!(refused("name = \"m\"\n[train]\nepochs = 1\n").contains("layer"));
    assert!(refused(&SMALL.replace("epochs = 1", "")).contains("epochs"));
    assert!(refused("name = ").contains("line 1"));
}

#[test]
fn a_number_out_of_range_is_named() {
    let replaced = |from: &str, to: &str| {
        assert!(FULL.contains(from), "{from}");
        refused(&FULL.replacen(from, to, 1))
    };
    for (from, to, expected) in [
        ("\"a-b_1\"", "\"a b\"", "name is a b, expected 1 to 64 letters, digits, '-' or '_'"),
        ("held_out = 100", "held_out = 5000", "data.held_out is 5000, expected less than data.limit = 5000"),
        ("classes = 10", "classes = 1", "data.classes is 1, expected 2 to 65536"),
        ("mean = [0.25]", "mean = []", "number of data.std is 1, expected 0, as many as data.mean"),
        ("mean = [0.25]", "mean = [33.3]", "data.mean is 33.3, expected 0 to 1"),
        ("std = [0.5]", "std = [0.0]", "data.std is 0, expected 0.001 to 100"),
        ("std = [0.5]", "std = [nan]", "data.std is NaN, expected 0.001 to 100"),
        ("rotate = 10.0", "rotate = -1.0", "augment.rotate is -1, expected 0 to 180"),
        ("scale = 0.125", "scale = 1.0", "augment.scale is 1, expected 0 to 0.9"),
        ("elastic_sigma = 4.0", "elastic_sigma = 0.25", "augment.elastic_sigma is 0.25, expected at least 0.5 pixels"),
        ("kernel = 5", "kernel = 0", "layer 1: kernel is 0, expected 1 to 65536"),
        ("stride = 2", "stride = 0", "layer 1: stride is 0, expected 1 to 65536"),
        ("groups = 3", "groups = 0", "layer 1: groups is 0, expected 1 to 65536"),
        ("groups = 3", "groups = 4", "layer 1: groups is 4, expected a divisor of out = 6"),
        ("padding = [0, 1, 1, 0]", "padding = 70000", "layer 1: padding is 70000, expected 0 to 65536"),
        ("with = 1", "with = 4", "layer 4: with is 4, expected 0 (the image) to 3 (an earlier layer)"),
        ("kernel = 2", "kernel = 0", "layer 5: kernel is 0, expected 1 to 65536"),
        ("stride = 1", "stride = 0", "layer 5: stride is 0, expected 1 to 65536"),
        ("\"dense\"\nout = 10", "\"dense\"\nout = 0", "layer 7: out is 0, expected 1 to 65536"),
        (
            "init = [0.5,",
            "init = [0.03125,",
            "activation.init[0] is 0.03125, expected at least activation.least_a = 0.0625",
        ),
        ("epochs = 3", "epochs = 0", "train.epochs is 0, expected 1 to 100000"),
        ("batch = 64", "batch = 66", "train.batch is 66, expected 4 equal parts of at least 2 images"),
        ("learning_rate = 0.001", "learning_rate = inf", "train.learning_rate is inf"),
        (
            "[[teacher.layer]]\ntype = \"dense\"\nout = 10",
            "[[teacher.layer]]\ntype = \"dense\"\nout = 0",
            "teacher.layer 1: out is 0",
        ),
        ("bits = [8, 5]", "bits = [8, 3]", "quantise.bits is 3, expected 4 to 16"),
        ("bits = [8, 5]", "bits = []", "quantise.bits is an empty list"),
        ("seeds = [4, 5]", "seeds = [4, 4]", "ladder.seeds is 4 twice, expected each once"),
        ("seeds = [4, 5]", "seeds = []", "ladder.seeds is an empty list, expected at least one"),
        ("teacher_epochs = 2", "teacher_epochs = 0", "ladder.teacher_epochs is 0, expected 1 to 100000"),
    ] {
        let error = replaced(from, to);
        assert!(error.starts_with(expected), "{to}: found {error:?}, expected {expected:?}");
    }
    assert!(refused("name = \"m\"\nlayer = []\n[train]\nepochs = 1\n").starts_with("number of layers is 0"));
    let long = format!("{SMALL}#{}", " ".repeat(1 << 20));
    assert!(refused(&long).starts_with("length of the recipe is"));
}
