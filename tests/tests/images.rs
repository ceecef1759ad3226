//! Pictures from their files: conversion to RGB and resampling beside PIL's results, the processors' pixel values
//! beside transformers' ones (`tests/images/make.py` has written both), and broken files.

use std::path::{Path, PathBuf};

use llmc_abi::Filter;
use llmc_frontend::{Config, json::Json, preprocessor::Preprocessor};
use llmc_runtime::image::{Picture, decode, pixel_values, prepare, read, resize};
use llmc_tests::golden;

fn folder(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("images")
        .join(part)
}

/// The files of a folder with one of these extensions, in order.
fn files(part: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(part))
        .unwrap()
        .map(|e| e.unwrap().path());
    let wanted = |p: &PathBuf| extensions.contains(&p.extension().unwrap().to_str().unwrap());
    let mut files: Vec<PathBuf> = entries.filter(wanted).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Reads a PPM file as PIL writes it: `P6 width height 255`, bytes.
fn ppm(path: &Path) -> Picture {
    let bytes = std::fs::read(path).unwrap();
    let mut at = 0;
    let mut word = || {
        let end = at
            + bytes[at..]
                .iter()
                .position(u8::is_ascii_whitespace)
                .unwrap();
        let word = std::str::from_utf8(&bytes[at..end]).unwrap().to_owned();
        at = end + 1;
        word
    };
    assert_eq!(word(), "P6");
    let (width, height) = (word().parse().unwrap(), word().parse().unwrap());
    assert_eq!(word(), "255");
    Picture {
        height,
        width,
        pixels: bytes[at..].to_vec(),
    }
}

/// The largest difference of a byte, and the mean one.
fn difference(a: &Picture, b: &Picture) -> (u8, f64) {
    assert_eq!((a.height, a.width), (b.height, b.width));
    let differences = a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = differences.clone().map(u64::from).sum();
    (
        differences.max().unwrap(),
        sum as f64 / a.pixels.len() as f64,
    )
}

#[test]
fn files_become_rgb_as_transformers_makes_it() {
    for path in files("decode", &["png", "jpg", "webp"]) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let found = read(&path).unwrap();
        let expected = ppm(&path.with_extension("ppm"));
        let (most, mean) = difference(&found, &expected);
        // Lossy formats leave the arithmetic of the inverse transform and of colour open.
        let (most_allowed, mean_allowed) = match name {
            _ if name.starts_with("jpeg") => (4, 0.6),
            "webp_lossy" => (4, 0.6),
            _ => (0, 0.0),
        };
        assert!(
            most <= most_allowed && mean <= mean_allowed,
            "{name}: most {most}, mean {mean}"
        );
    }
}

#[test]
fn resampling_is_pils_to_the_bit() {
    let [source, tall] = ["source", "tall"].map(|name| ppm(&folder(&format!("resize/{name}.ppm"))));
    let filters = [
        ("nearest", Filter::Nearest),
        ("lanczos", Filter::Lanczos),
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("box", Filter::Box),
        ("hamming", Filter::Hamming),
    ];
    let mut compared = 0;
    for path in files("resize", &["ppm"]) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (source, rest) = match name.strip_prefix("tall_") {
            Some(rest) => (&tall, rest),
            None => (&source, name),
        };
        let Some((filter, _)) = rest.split_once('_') else {
            continue;
        };
        let (_, filter) = *filters.iter().find(|(n, _)| *n == filter).unwrap();
        let expected = ppm(&path);
        let found = resize(source, [expected.height, expected.width], filter);
        assert_eq!(difference(&found, &expected).0, 0, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 45);
}

fn preprocessor(json: &serde_json::Value) -> Preprocessor {
    let path = Path::new("preprocessor_config.json");
    let json = Json::parse(
        path,
        json.to_string().as_bytes(),
        llmc_frontend::json::Limits::CONFIG,
    );
    Preprocessor::read(&Config::from_json(path, json.unwrap()).unwrap(), None).unwrap()
}

#[test]
fn processors_give_transformers_pixel_values() {
    let configs: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(folder("processors.json")).unwrap()).unwrap();
    let expected = golden::read(&folder("processors.safetensors"));
    assert_eq!(expected.len(), configs.len() * 5);
    for (name, tensor) in &expected {
        let (index, picture) = name.split_once(':').unwrap();
        let preprocessor = preprocessor(&configs[index.parse::<usize>().unwrap()]);
        let size = [tensor.shape[1] as u32, tensor.shape[2] as u32];
        assert_eq!(preprocessor.size, Some(size), "{name}");
        let steps = llmc::manifest::image_steps(&preprocessor, size);
        let picture = folder(picture);
        let picture = match picture.extension().unwrap().to_str() {
            Some("ppm") => ppm(&picture),
            _ => read(&picture).unwrap(),
        };
        compare(name, &prepare(picture, &steps).unwrap(), tensor.floats());
    }
}

#[track_caller]
fn compare(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= 1e-5,
            "{what}[{i}]: found {f}, expected {e}"
        );
    }
}

#[test]
fn golden_pictures_give_the_golden_pixel_values() {
    for case in golden::cases(&["vit_cls", "clip", "blip2"]) {
        let preprocessor = Preprocessor::open(&case.dir, None).unwrap().unwrap();
        let expected = &case.tensors["in.pixel_values"];
        let size = [expected.shape[2] as u32, expected.shape[3] as u32];
        let steps = llmc::manifest::image_steps(&preprocessor, size);
        let mut found = Vec::new();
        for i in 0..expected.shape[0] {
            let path = case.dir.join(format!("image_{i}.png"));
            found.extend(pixel_values(&path, &steps).unwrap());
        }
        compare(&case.name, &found, expected.floats());
    }
}

#[test]
fn other_pictures_are_refused() {
    for (file, expected) in [
        ("refused_gray16.png", "16-bit grey"),
        ("refused_cmyk.jpg", "four channels"),
        ("refused_animated.webp", "animated WebP"),
        ("refused.gif", "expected PNG, JPEG or WebP"),
        ("absent.png", "cannot be read"),
        ("processors.json", "expected PNG, JPEG or WebP"),
    ] {
        let error = read(&folder(file)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(expected), "{text}");
    }
    // 2^31 × 2^31 pixels, by the header of a PNG; the checksum is that of the header.
    let mut huge =
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0".to_vec();
    huge.extend(crc32(&huge[12..]).to_be_bytes());
    huge.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    decode(&huge).unwrap_err();
}

/// CRC-32 as PNG computes it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    };
    !bytes.iter().fold(!0, step)
}

/// Files cut short, and files with bytes changed, decode or are refused; nothing else happens.
#[test]
fn damaged_files_do_no_harm() {
    let mut random = 12345u64;
    let mut next = || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) as usize
    };
    for path in files("decode", &["png", "jpg", "webp"]) {
        let bytes = std::fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let _ = decode(&bytes[..cut]);
        }
        for _ in 0..60 {
            let mut changed = bytes.clone();
            for _ in 0..=next() % 4 {
                let at = next() % changed.len();
                changed[at] = next() as u8;
            }
            let _ = decode(&changed);
        }
    }
}
