//! Block formats: dequantisation against an independent implementation (`tests/quant/README.md`), and
//! what quantisation promises.

use half::f16;
use llmc_ir::{
    DType, Format,
    quant::{
        SUBNORMAL,
        rows::{MAX, row_values, store_rows},
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{borrow::Cow, path::Path};

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn dequantisation_agrees_with_the_reference_bit_for_bit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quant");
    for format in Format::ALL {
        let file = folder.join(format!("{}.txt", format.name()));
        let text = std::fs::read_to_string(file).expect("golden blocks");
        assert!(text.lines().count() >= 3);
        for line in text.lines() {
            let (block, values) = line.split_once(' ').expect("block and values");
            let found = format.dequantize(&bytes(block));
            let expected: Vec<u32> = bytes(values)
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            let found: Vec<u32> = found.iter().map(|v| v.to_bits()).collect();
            assert_eq!(found, expected, "{}: {block}", format.name());
        }
    }
}

/// Block, values, and the greatest magnitude.
fn round_trip(format: Format, values: &[f32]) -> (Vec<f32>, f32) {
    let back = format.dequantize(&format.quantize(values));
    (back, values.iter().fold(0.0, |m, x| m.max(x.abs())))
}

#[track_caller]
fn within_bound(format: Format, values: &[f32]) {
    let (back, most) = round_trip(format, values);
    for (i, (x, y)) in values.iter().zip(&back).enumerate() {
        let bound = format.error() * most + SUBNORMAL;
        let name = format.name();
        assert!(
            (x - y).abs() <= bound,
            "{name}: {i}: {x} becomes {y}, of {most}"
        );
    }
}

/// Values of many shapes: spread evenly, a few large among small, one side of zero, constants.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        6 => -1.0f32..1.0,
        2 => (-1.0f32..1.0).prop_map(|x| x * x * x * x * x),
        1 => Just(0.0f32),
        1 => select(vec![1.0f32, -1.0]),
    ];
    let size = select(vec![1e-7f32, 1e-4, 0.02, 1.0, 300.0, 65504.0]);
    (vec(one, 256), size, 0..4).prop_map(|(v, size, shape)| {
        let shaped = v.iter().enumerate().map(|(i, x)| match shape {
            0 => x * size,
            1 => x.abs() * size,
            2 => (0.75 + x * 0.25) * -size,
            _ if i % 37 == 0 => x * size,
            _ => x * size * 0.01,
        });
        shaped.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn errors_are_within_their_bounds(values in values()) {
        for format in Format::ALL {
            within_bound(format, &values);
        }
    }

    /// d as stored, the extreme code among the codes: quantising finds the same codes.
    #[test]
    fn codes_come_back(codes in vec(0u8..=255, 32), d in 0.001f32..10.0, m in -10.0f32..10.0, negative: bool) {
        let d = f16::from_f32(if negative { -d } else { d });
        let m = f16::from_f32(m);
        for (format, low, ends, with_m) in [
            (Format::Q4_0, 15, vec![0], false),
            (Format::Q5_0, 31, vec![0], false),
            (Format::Q8_0, 255, vec![129], false),
            (Format::Q4_1, 15, vec![0, 15], true),
            (Format::Q5_1, 31, vec![0, 31], true),
        ] {
            let mut codes: Vec<u8> = codes.iter().map(|c| c & low).collect();
            // −128 is no code that the quantiser of q8_0 makes.
            codes.iter_mut().filter(|c| low == 255 && **c == 128).for_each(|c| *c = 0);
            codes[..ends.len()].copy_from_slice(&ends);
            // Minima and q8_0 have positive scales.
            let scale = f32::from(if with_m || low == 255 { f16::from_f32(f32::from(d).abs()) } else { d });
            let offset = match format { Format::Q4_0 => 8.0, Format::Q5_0 => 16.0, _ => 0.0 };
            let value = |c: &u8| match format {
                Format::Q8_0 => f32::from(*c as i8) * scale,
                _ if with_m => f32::from(*c) * scale + f32::from(m),
                _ => (f32::from(*c) - offset) * scale,
            };
            let values: Vec<f32> = codes.iter().map(value).collect();
            let (back, _) = round_trip(format, &values);
            prop_assert_eq!(back, values, "{}", format.name());
        }
    }

    /// Blocks that were quantised once lose next to nothing the second time.
    #[test]
    fn quantising_again_changes_little(values in values()) {
        for format in Format::ALL {
            let error = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
            };
            let (once, most) = round_trip(format, &values);
            let (twice, _) = round_trip(format, &once);
            let slack = f64::from(most * 2e-2 + SUBNORMAL) * 16.0;
            prop_assert!(error(&once, &twice) <= error(&values, &once) + slack, "{}", format.name());
        }
    }
}

#[test]
fn what_has_no_codes_is_refused() {
    let store = |to, values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        store_rows(DType::F32, to, 32, Cow::Owned(bytes)).map(Cow::into_owned)
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65505.0] {
        let mut row = vec![0.5; 32];
        row[17] = bad;
        for to in [
            DType::Block(Format::Q4_0),
            DType::Block(Format::Q8_0),
            DType::Int8,
        ] {
            let error = store(to, &row).expect_err("refused");
            let found = format!("found {bad}, {} takes", to.name());
            assert!(error.starts_with(&found), "{error}");
        }
    }
    assert!(store(DType::F16, &[1e6; 32]).is_err());
    assert!(store(DType::Block(Format::Q4_K), &[1.0; 32]).is_err());
    assert!(store(DType::I32, &[1.0; 32]).is_err());
    assert!(store(DType::Block(Format::Q4_0), &[MAX; 32]).is_ok());
}

#[test]
fn rows_of_the_same_type_stay_as_they_are() {
    let nan = [0xff; 34];
    let same = store_rows(
        DType::Block(Format::Q8_0),
        DType::Block(Format::Q8_0),
        32,
        Cow::Borrowed(&nan),
    );
    assert_eq!(same.as_deref(), Ok(&nan[..]));
}

#[test]
fn int8_rows_have_a_scale_each() {
    let values: Vec<f32> = [2.54f32, -1.0, 0.01, 0.0, 0.0, 127.0].to_vec();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let stored = store_rows(DType::F32, DType::Int8, 3, Cow::Owned(bytes)).expect("stored");
    assert_eq!(stored.len() as u64, 2 * DType::Int8.row_bytes(3));
    assert_eq!(
        (stored[0], stored[1] as i8, stored[2], stored[9]),
        (127, -50, 0, 127)
    );
    let back = row_values(DType::Int8, 3, &stored);
    assert_eq!((back[0], back[1], back[5]), (2.54, -50.0 * 0.02, 127.0));
}
