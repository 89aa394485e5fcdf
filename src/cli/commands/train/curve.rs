//! The training curve as a plain SVG: loss above, accuracies below, over the epochs of all phases. Greys and colours that
//! stand out on white and on black; no background, script or font of its own.

use std::fmt::Write as _;

use crate::cli::report::one_line;
use crate::train::{EpochRecord, Phase};

/// Near the beginning of every curve, so that one is told from other pictures.
pub(super) const CURVE_MARK: &str = "<desc>nightshift train</desc>";

const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 740.0;
const HEIGHT: f64 = 520.0;
const GREY: &str = "#808890";
const LOSS: &str = "#d9822b";
const TRAINING: &str = "#3d8fd1";
const HELD_OUT: &str = "#2e9e6b";

/// One diagram: where it stands and the values it spans.
struct Panel {
    top: f64,
    bottom: f64,
    low: f64,
    high: f64,
    epochs: usize,
}

impl Panel {
    /// Horizontal place of an epoch, counted from 1 through all phases.
    fn x(&self, epoch: f64) -> f64 {
        let last = (self.epochs.max(2) - 1) as f64;
        LEFT + (RIGHT - LEFT) * (epoch - 1.0) / last
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.bottom - (self.bottom - self.top) * share
    }

    /// Axes with numbers.
    fn axes_into(&self, svg: &mut String, name: &str, unit: &str) {
        for tick in ticks(self.low, self.high, 5) {
            let y = self.y(tick);
            line(svg, (LEFT, y), (RIGHT, y), 0.25);
            text(svg, (LEFT - 6.0, y + 4.0), "end", &format!("{tick}{unit}"));
        }
        for tick in ticks(1.0, self.epochs as f64, 10).into_iter().filter(|tick| tick.fract() == 0.0) {
            let x = self.x(tick);
            line(svg, (x, self.bottom), (x, self.bottom + 4.0), 1.0);
            text(svg, (x, self.bottom + 17.0), "middle", &tick.to_string());
        }
        line(svg, (LEFT, self.top), (LEFT, self.bottom), 1.0);
        line(svg, (LEFT, self.bottom), (RIGHT, self.bottom), 1.0);
        text(svg, (LEFT, self.top - 8.0), "start", name);
    }

    /// A line through values, with a gap where one is missing, and a dot on each.
    fn curve_into(&self, svg: &mut String, colour: &str, values: &[Option<f64>]) {
        let placed: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                value.filter(|value| value.is_finite()).map(|value| (self.x(index as f64 + 1.0), self.y(value)))
            })
            .collect();
        for run in placed.split(Option::is_none).filter(|run| !run.is_empty()) {
            let points: Vec<String> = run.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let points = points.join(" ");
            let _ = writeln!(svg, r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>"#);
        }
        for (x, y) in placed.into_iter().flatten() {
            let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2" fill="{colour}"/>"#);
        }
    }
}

/// The curve of a run.
pub(super) fn draw(name: &str, history: &[EpochRecord]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" role=\"img\">\n{CURVE_MARK}\n<title>{0}: training</title>\n",
        escaped(name)
    );
    text(&mut svg, (LEFT, 22.0), "start", &format!("{name}: loss and accuracy in training"));
    let loss: Vec<_> = history.iter().map(|record| Some(record.loss)).collect();
    let training: Vec<_> = history.iter().map(|record| Some(100.0 * record.train_accuracy)).collect();
    let held_out: Vec<_> = history.iter().map(|record| record.held_out_accuracy.map(|share| 100.0 * share)).collect();
    let epochs = history.len();

    let highest = loss.iter().flatten().filter(|loss| loss.is_finite()).fold(0.0, |high: f64, &loss| high.max(loss));
    let above = Panel { top: 62.0, bottom: 240.0, low: 0.0, high: if highest > 0.0 { highest } else { 1.0 }, epochs };
    above.axes_into(&mut svg, "loss", "");
    let accuracies = training.iter().chain(&held_out).flatten().filter(|share| share.is_finite());
    let lowest = accuracies.fold(100.0, |low: f64, &share| low.min(share));
    // From a whole ten on, so that a step of the axis means something.
    let low = (10.0 * (lowest / 10.0).floor()).clamp(0.0, 90.0);
    let below = Panel { top: 300.0, bottom: 470.0, low, high: 100.0, epochs };
    below.axes_into(&mut svg, "accuracy", " %");
    for panel in [&above, &below] {
        phases_into(&mut svg, panel, history);
    }
    above.curve_into(&mut svg, LOSS, &loss);
    below.curve_into(&mut svg, TRAINING, &training);
    below.curve_into(&mut svg, HELD_OUT, &held_out);
    text(&mut svg, ((LEFT + RIGHT) / 2.0, 508.0), "middle", "epoch");
    legend_into(&mut svg, 500.0, TRAINING, "training images, varied");
    if held_out.iter().any(Option::is_some) {
        legend_into(&mut svg, 330.0, HELD_OUT, "held-out images");
    }
    svg += "</svg>\n";
    svg
}

/// A dashed line where a phase begins, with its name.
fn phases_into(svg: &mut String, panel: &Panel, history: &[EpochRecord]) {
    let mut before: Option<Phase> = None;
    for (index, record) in history.iter().enumerate() {
        if before == Some(record.phase) {
            continue;
        }
        let x = panel.x(index as f64 + if before.is_some() { 0.5 } else { 1.0 });
        if before.is_some() {
            let (top, bottom) = (panel.top, panel.bottom);
            let _ = writeln!(
                svg,
                r#"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="{GREY}" stroke-dasharray="4 4"/>"#
            );
        }
        let (place, anchor) = if x > RIGHT - 80.0 { (x - 4.0, "end") } else { (x + 4.0, "start") };
        text(svg, (place, panel.top + 12.0), anchor, record.phase.name());
        before = Some(record.phase);
    }
}

fn legend_into(svg: &mut String, x: f64, colour: &str, name: &str) {
    let _ = writeln!(svg, r#"<line x1="{x}" y1="288" x2="{}" y2="288" stroke="{colour}" stroke-width="3"/>"#, x + 20.0);
    text(svg, (x + 26.0, 292.0), "start", name);
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), opacity: f64) {
    let _ = writeln!(
        svg,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{GREY}" stroke-opacity="{opacity}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{GREY}">{words}</text>"#);
}

fn escaped(text: &str) -> String {
    one_line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// About `count` round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    if high - low <= 1e-12 * high.abs().max(low.abs()) {
        return vec![low];
    }
    let rough = (high - low) / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|&step| step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let numbers = (first..=first + 2 * count as i64).map(|index| index as f64 * step);
    // 3 * 0.1 is 0.30000000000000004.
    numbers.take_while(|&tick| tick <= high + 1e-9 * step).map(|tick| (tick * 1e9).round() / 1e9).collect()
}

#[cfg(test)]
mod tests {
    use super::super::watch::tests::record;
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 2.3, 5), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(ticks(0.0, 0.31, 5), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(ticks(90.0, 100.0, 5), [90.0, 92.0, 94.0, 96.0, 98.0, 100.0]);
        assert_eq!(ticks(1.0, 1.0, 10), [1.0]);
    }

    #[test]
    fn higher_accuracy_stands_higher_and_every_epoch_has_its_dots() {
        let mut history: Vec<_> = (1..=4).map(|epoch| record(Phase::Teacher, epoch, 4)).collect();
        history.extend((1..=3).map(|epoch| record(Phase::Student, epoch, 3)));
        history.push(record(Phase::Quantise, 1, 1));
        let svg = draw("two-classes <&>", &history);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("two-classes &lt;&amp;&gt;"));
        assert!(svg.find(CURVE_MARK).is_some_and(|at| at < 400));
        assert_eq!(svg.matches("<circle").count(), 3 * 8);
        for phase in ["teacher", "student", "quantisation"] {
            assert_eq!(svg.matches(&format!(">{phase}<")).count(), 2, "{phase}");
        }
        let heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("<circle") && line.contains(HELD_OUT))
            .map(|line| line.split("cy=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!(heights[3] < heights[0] && heights[4] > heights[3], "{heights:?}");
        assert!(heights.iter().all(|height| (300.0..=470.0).contains(height)), "{heights:?}");
    }

    #[test]
    fn gaps_and_odd_numbers_are_left_out() {
        let mut history: Vec<_> = (1..=3).map(|epoch| record(Phase::Student, epoch, 3)).collect();
        history[1].held_out_accuracy = None;
        history[2].loss = f64::NAN;
        let svg = draw("gaps", &history);
        assert_eq!(svg.matches("<circle").count(), 2 + 3 + 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(draw("nothing", &[]).ends_with("</svg>\n"));
    }
}
