//! Labels that `decrypt` wrote, held to the integer oracle's and to the true ones. Reads `index,label` rows of a CSV, scores ignored. An
//! undecided image, whose label is empty, is neither right nor the same.

use std::path::Path;

use serde_json::{Value, json};

use super::error::CliError;
use super::oracles::share;
use super::report::{Table, percent};

/// Most bytes of a table: a row is some 20, with scores some 200.
const BYTES_LIMIT: u64 = 1 << 30;

/// Stands for an empty label: the number of no class.
const UNDECIDED: u16 = u16::MAX;

/// What the labels were held to.
pub(super) struct Held {
    images: u64,
    right: u64,
    same: u64,
    explained: Option<u64>,
}

impl Held {
    /// Reads the table and counts. `explains` says whether the engine's noise can give an image that label; `None` where noise is
    /// not counted.
    ///
    /// # Errors
    /// A table that cannot be read, has no rows, or has rows that are none of images `0, 1, ..` in order.
    pub(super) fn read(
        path: &Path,
        truth: &[u16],
        integer: &[u16],
        explains: Option<&dyn Fn(usize, u16) -> bool>,
    ) -> Result<Self, CliError> {
        let labels = read(path, truth.len())?;
        let count = |keep: &dyn Fn(usize, u16) -> bool| {
            labels.iter().enumerate().filter(|&(image, &label)| keep(image, label)).count() as u64
        };
        Ok(Self {
            images: labels.len() as u64,
            right: count(&|image, label| truth[image] == label),
            same: count(&|image, label| integer[image] == label),
            explained: explains
                .map(|explains| count(&|image, label| integer[image] != label && explains(image, label))),
        })
    }

    pub(super) fn rows(&self, table: &mut Table) {
        table.row(["decrypted labels", &self.images.to_string()]);
        table.row(["accuracy, decrypted", &percent(self.right, self.images)]);
        let explained =
            self.explained.map_or(String::new(), |explained| format!(", {explained} of the others within noise"));
        table.row(["decrypted is the integers'", &format!("{}{explained}", percent(self.same, self.images))]);
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "images": self.images,
            "accuracy": share(self.right, self.images as usize),
            "same": self.same,
            "agreement": share(self.same, self.images as usize),
            "within_noise": self.explained,
        })
    }
}

fn read(path: &Path, most: usize) -> Result<Vec<u16>, CliError> {
    let failed = |source| CliError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > BYTES_LIMIT {
        return Err(CliError::content(path, "length in bytes", bytes, format!("at most {BYTES_LIMIT}")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut labels = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let mut fields = line.split(',');
        let index = fields.next().and_then(|field| field.parse::<usize>().ok());
        let label = match fields.next() {
            Some("") => Some(UNDECIDED),
            field => field.and_then(|field| field.parse::<u16>().ok()),
        };
        let (true, Some(label)) = (index == Some(labels.len()) && labels.len() < most, label) else {
            let expected = format!("`{},LABEL` or `{0},`, of at most {most} images", labels.len());
            return Err(CliError::content(path, format!("line {}", number + 1), format!("{line:?}"), expected));
        };
        labels.push(label);
    }
    if labels.is_empty() {
        return Err(CliError::content(path, "rows", 0, "at least one under a header, as decrypt writes them"));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_and_what_is_no_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        let held = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Held::read(&path, &[1, 2, 3, 4], &[1, 2, 0, 4], Some(&|image, label| (image, label) == (2, 3)))
        };
        let some = held("index,label,score_0\n0,1,0.5\n1,7,0.5\n2,3,0.1\n").unwrap();
        assert_eq!((some.images, some.right, some.same, some.explained), (3, 2, 1, Some(1)));
        let some = held("index,label\n0,1\n1,\n").unwrap();
        assert_eq!((some.images, some.right, some.same, some.explained), (2, 1, 1, Some(0)));
        for broken in ["", "index,label\n", "index,label\n1,1\n", "index,label\n0,x\n", "h\n0,1\n1,1\n2,1\n3,1\n4,1\n"]
        {
            assert!(held(broken).is_err(), "{broken:?}");
        }
    }
}
