//! Label files in, predictions out.

use std::io::{self, Write};

use packing::{
    ErrorKind, Labels, Limits, NpyContent, Prediction, TextOptions, read_images, read_labels, write_csv, write_json,
    write_npy,
};

use crate::support::{Folder, gzip, idx, npy, picture};

fn read(name: &str, bytes: &[u8]) -> Result<Labels, packing::PackingError> {
    read_labels(&Folder::new().put(name, bytes), &Limits::default())
}

fn refused(name: &str, bytes: &[u8]) -> String {
    let error = read(name, bytes).expect_err(name);
    assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
    error.to_string()
}

#[test]
fn idx_and_npy_labels() {
    let file = idx(&[0x801, 3], &[7, 0, 255]);
    assert_eq!(read("l", &file).unwrap(), Labels::ByPosition(vec![7, 0, 255]));
    assert_eq!(read("l.gz", &gzip(&file)).unwrap(), Labels::ByPosition(vec![7, 0, 255]));
    let wanted = Labels::ByPosition(vec![1, 258]);
    assert_eq!(read("l.npy", &npy("<i4", "False", "(2,)", &[1, 0, 0, 0, 2, 1, 0, 0])).unwrap(), wanted);
    assert_eq!(read("l.npy", &npy(">u2", "False", "(2,)", &[0, 1, 1, 2])).unwrap(), wanted);
    let negative = npy("|i1", "False", "(2,)", &[1, 0xff]);
    assert!(refused("l.npy", &negative).contains("found label -1 at index 1"));
    assert!(refused("l.npy", &npy("<i4", "False", "(1,)", &[0, 0, 1, 0])).contains("found label 65536"));
    assert!(refused("l.npy", &npy("<f4", "False", "(1,)", &[0; 4])).contains("expected an integer type"));
    assert!(refused("l", &idx(&[0x801, 4], &[1, 2, 3])).contains("found 11 decoded bytes, expected 12"));
    assert!(refused("l", &idx(&[0x801, 0], &[])).contains("found 0 labels"));
    assert!(refused("l.txt", b"1\n2\n").contains("expected IDX labels, npy or .csv"));
}

#[test]
fn csv_labels_in_each_form() {
    let ordered = Labels::ByPosition(vec![5, 0, 4]);
    for text in ["5\n0\n4\n", "label\r\n5\r\n0\r\n4", "index,label\n2,4\n0,5\n1,0\n", "1,0\n0,5\n2,4\n", "5\n\n0\n4\n"]
    {
        assert_eq!(read("l.csv", text.as_bytes()).unwrap(), ordered, "{text:?}");
    }
    let Labels::ByFile(files) = read("l.csv", b"file,label\n\"a,b.png\",3\n00001.png, 4\n").unwrap() else {
        panic!("expected file names")
    };
    assert_eq!((files.len(), files["a,b.png"], files["00001.png"]), (2, 3, 4));
}

#[test]
fn csv_labels_may_be_names() {
    let named = |text: &[u8]| match read("l.csv", text).unwrap() {
        Labels::Named { labels, class_names } => (*labels, class_names),
        other => panic!("expected names, found {other:?}"),
    };
    let names = ["Ant".to_owned(), "bee".to_owned()];
    for text in [&b"file,class\na.png,bee\nb.png,Ant\n"[..], b"a.png,bee\nb.png,Ant\n"] {
        let (labels, class_names) = named(text);
        let Labels::ByFile(files) = labels else { panic!("expected file names") };
        assert_eq!((files.len(), files["a.png"], files["b.png"]), (2, 1, 0));
        assert_eq!(class_names, names);
    }
    assert_eq!(named(b"0,bee\n2,bee\n1,Ant\n"), (Labels::ByPosition(vec![1, 0, 1]), names.to_vec()));
    assert!(
        refused("l.csv", b"a.png,bee\nb.png,1\n").contains("found label \"1\" at line 2, expected the name of a class")
    );
    assert!(refused("l.csv", b"a.png,1\nb.png,bee\n").contains("found label \"bee\" at line 2, expected an integer"));
    assert!(refused("l.csv", b"a.png,bee\nb.png,\n").contains("found label \"\" at line 2"));
    assert!(refused("l.csv", b"a.png,bee\na.png,Ant\n").contains("found two labels for a.png"));
}

#[test]
fn csv_labels_that_are_wrong() {
    assert!(refused("l.csv", b"index,label\n0,1\n0,2\n").contains("found two labels for 0"));
    assert!(refused("l.csv", b"0,1\n2,2\n").contains("found index 2, expected 0 to 1"));
    assert!(refused("l.csv", b"1\ncat\n").contains("found label \"cat\" at line 2"));
    assert!(refused("l.csv", b"-1\n").contains("found label \"-1\" at line 1"));
    assert!(refused("l.csv", b"70000\n").contains("found label \"70000\""));
    assert!(refused("l.csv", b"0,1,2\n").contains("found 3 columns at line 1"));
    assert!(refused("l.csv", b"0,1\n2\n").contains("found 1 columns at line 2"));
    assert!(refused("l.csv", b"label\n").contains("found 0 labels"));
    assert!(refused("l.csv", b"1\n\xff\xfe\n").contains("not UTF-8"));
    let few = Limits { max_images: 2, ..Limits::default() };
    let many = read_labels(&Folder::new().put("l.csv", b"1\n2\n3\n"), &few).unwrap_err();
    assert!(many.to_string().contains("found 3 labels, limit 2"), "{many}");
}

#[test]
fn labels_by_file_follow_the_images() {
    let folder = Folder::new();
    for name in ["b.png", "a.png"] {
        let grey = image::GrayImage::new(1, 1).into();
        folder.put(&format!("images/{name}"), &picture(&grey, image::ImageFormat::Png));
    }
    let images = read_images(&folder.path().join("images"), &Limits::default()).unwrap();
    let labels = |text: &[u8]| read("l.csv", text).unwrap().for_images(&images);
    assert_eq!(labels(b"b.png,1\na.png,0\n").unwrap(), [0, 1]);
    assert_eq!(labels(b"6\n7\n").unwrap(), [6, 7]);
    assert!(labels(b"b.png,1\nc.png,0\n").unwrap_err().to_string().contains("no label for a.png"));
    assert!(labels(b"1\n2\n3\n").unwrap_err().to_string().contains("found 3 labels, expected 2"));
}

fn predictions() -> Vec<Prediction> {
    vec![Prediction::new(0, vec![1.23456, -0.00001, -7.0]).unwrap(), Prediction::new(1, vec![0.5, 1e3, 2.25]).unwrap()]
}

#[test]
fn csv_text() {
    let mut out = Vec::new();
    write_csv(&mut out, &predictions(), &TextOptions { decimals: 2, class_names: None }).unwrap();
    let text = "index,label,score_0,score_1,score_2\n0,0,1.23,0.00,-7.00\n1,1,0.50,1000.00,2.25\n";
    assert_eq!(String::from_utf8(out).unwrap(), text);
    let names = ["T-shirt, top".to_owned(), "Trouser".to_owned(), "Bag".to_owned()];
    let mut out = Vec::new();
    write_csv(&mut out, &predictions(), &TextOptions { decimals: 0, class_names: Some(&names) }).unwrap();
    let text = "index,label,name,score_0,score_1,score_2\n0,0,\"T-shirt, top\",1,0,-7\n1,1,Trouser,0,1000,2\n";
    assert_eq!(String::from_utf8(out).unwrap(), text);
}

#[test]
fn json_parses_back() {
    let names = ["a\"".to_owned(), "b".to_owned(), "c".to_owned()];
    let mut out = Vec::new();
    write_json(&mut out, &predictions(), &TextOptions { decimals: 3, class_names: Some(&names) }).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let expected = serde_json::json!({
        "classes": 3,
        "class_names": ["a\"", "b", "c"],
        "predictions": [
            { "index": 0, "label": 0, "name": "a\"", "scores": [1.235, 0.0, -7.0] },
            { "index": 1, "label": 1, "name": "b", "scores": [0.5, 1000.0, 2.25] },
        ],
    });
    assert_eq!(value, expected);
}

#[test]
fn npy_holds_labels_or_scores() {
    let mut out = Vec::new();
    write_npy(&mut out, &predictions(), NpyContent::Labels).unwrap();
    assert_eq!(read("l.npy", &out).unwrap(), Labels::ByPosition(vec![0, 1]));
    let array = npyz::NpyFile::new(out.as_slice()).unwrap();
    assert_eq!((array.shape(), array.dtype().descr().as_str()), (&[2][..], "'<i8'"));

    let mut out = Vec::new();
    write_npy(&mut out, &predictions(), NpyContent::Scores { decimals: 1 }).unwrap();
    let array = npyz::NpyFile::new(out.as_slice()).unwrap();
    assert_eq!((array.shape(), array.order()), (&[2, 3][..], npyz::Order::C));
    assert_eq!(array.into_vec::<f64>().unwrap(), [1.2, 0.0, -7.0, 0.5, 1000.0, 2.2]);
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_and_wrong_requests() {
    let options = TextOptions { decimals: 2, class_names: None };
    let full = [
        write_csv(&mut Full, &predictions(), &options),
        write_json(&mut Full, &predictions(), &options),
        write_npy(&mut Full, &predictions(), NpyContent::Labels),
    ];
    for error in full {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
    }
    let mut out = Vec::new();
    let names = ["only one".to_owned()];
    let mut uneven = predictions();
    uneven[1].scores.pop();
    let wrong = [
        write_csv(&mut out, &[], &options),
        write_csv(&mut out, &uneven, &options),
        write_csv(&mut out, &predictions(), &TextOptions { decimals: 18, class_names: None }),
        write_json(&mut out, &predictions(), &TextOptions { decimals: 2, class_names: Some(&names) }),
        write_npy(&mut out, &uneven, NpyContent::Scores { decimals: 2 }),
    ];
    for error in wrong {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Usage);
    }
    assert!(out.is_empty(), "nothing is written before the checks");
}
