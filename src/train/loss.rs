//! The loss of one shard: cross-entropy with the labels, with the teacher, distance to its features, and the range penalty.

use burn::tensor::activation::{log_softmax, relu, softmax};
use burn::tensor::{Tensor, TensorData};

use super::model::Forward;
use super::recipe::TrainRecipe;

/// Weights of the terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossWeights {
    pub(super) label_smoothing: f64,
    pub(super) range_penalty: f64,
    pub(super) range_limit: f64,
    /// Images of a shard whose ranges are penalised, the first ones; they are other ones at every step.
    pub(super) range_images: usize,
    /// Of the distillation.
    pub(super) temperature: f64,
    /// Share of the distillation in place of the labels.
    pub(super) alpha: f64,
    /// Factor of the distance to the teacher's features.
    pub(super) features: f64,
}

impl LossWeights {
    /// As a recipe's run says, without a teacher.
    pub(super) fn of(train: &TrainRecipe) -> LossWeights {
        LossWeights {
            label_smoothing: train.label_smoothing,
            range_penalty: train.range_penalty,
            range_limit: train.range_limit,
            range_images: train.range_images,
            temperature: 1.0,
            alpha: 0.0,
            features: 0.0,
        }
    }
}

/// Mean over the shard's images of all terms; `teacher` is what the teacher gave for the same images.
pub(super) fn loss(found: &Forward, labels: &[u16], teacher: Option<&Forward>, weights: &LossWeights) -> Tensor<1> {
    let [images, classes] = found.logits.dims();
    let device = found.logits.device();
    let per_image = 1.0 / images as f64;
    let spread = weights.label_smoothing / classes as f64;
    let mut targets = vec![spread as f32; images * classes];
    for (image, label) in labels.iter().enumerate() {
        targets[image * classes + usize::from(*label)] += (1.0 - weights.label_smoothing) as f32;
    }
    let targets = Tensor::<2>::from_data(TensorData::new(targets, [images, classes]), &device);
    let mut total = (targets * log_softmax(found.logits.clone(), 1)).sum() * -per_image;

    if let Some(teacher) = teacher {
        let t = weights.temperature;
        let wanted = softmax(teacher.logits.clone() / t, 1);
        let distance = log_softmax(teacher.logits.clone() / t, 1) - log_softmax(found.logits.clone() / t, 1);
        // Kullback-Leibler; Hinton et al., arXiv 1503.02531, section 2: the factor t^2 keeps the gradient's size.
        let taught = (wanted * distance).sum() * (per_image * t * t);
        total = total * (1.0 - weights.alpha) + taught * weights.alpha;
        if weights.features > 0.0 {
            for (student, teacher) in found.outputs.iter().zip(&teacher.outputs) {
                if student.dims() == teacher.dims() {
                    let size = (teacher.clone() * teacher.clone()).mean() + 1e-6;
                    let distance = student.clone() - teacher.clone();
                    total = total + (distance.clone() * distance).mean() / size * weights.features;
                }
            }
        }
    }
    if weights.range_penalty > 0.0 {
        for input in &found.inputs {
            let sample = input.clone().narrow(0, 0, images.min(weights.range_images));
            let beyond = relu(sample.abs() - weights.range_limit);
            total = total + (beyond.clone() * beyond).mean() * weights.range_penalty;
        }
    }
    total
}
