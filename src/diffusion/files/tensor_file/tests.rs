use std::io::Write as _;

use half::{bf16, f16};
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::NamedTempFile;

use super::*;

fn file_of(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn three_dtypes() -> Vec<u8> {
    let values = [1.0_f32, -2.5, 0.0, 1024.0];
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    let tensors = [
        ("full", TensorView::new(Dtype::F32, vec![2, 2], &f32s).unwrap()),
        ("half", TensorView::new(Dtype::F16, vec![4], &f16s).unwrap()),
        ("brain", TensorView::new(Dtype::BF16, vec![4], &bf16s).unwrap()),
        ("whole", TensorView::new(Dtype::U8, vec![16], &f32s).unwrap()),
    ];
    serialize(tensors, None).unwrap()
}

#[test]
fn every_float_is_read_as_f32() {
    let file = file_of(&three_dtypes());
    let weights = TensorFile::open(file.path()).unwrap();
    for tensor in ["full", "half", "brain"] {
        assert_eq!(weights.values(tensor).unwrap(), [1.0, -2.5, 0.0, 1024.0], "{tensor}");
    }
    assert_eq!(weights.shape("full"), Some([2, 2].as_slice()));
    let refusal = weights.values("whole").unwrap_err().to_string();
    assert!(refusal.contains("whole") && refusal.contains("U8"), "{refusal}");
    let missing = weights.values("nothing").unwrap_err().to_string();
    assert!(missing.contains("nothing"), "{missing}");
}

#[test]
fn large_tensors_are_read_in_order_in_many_pieces() {
    let values: Vec<f32> = (0..700_000_u32).map(|i| f32::from_bits(0x3f80_0000 + i)).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![700, 1000], &bytes).unwrap();
    let file = file_of(&serialize([("large", view)], None).unwrap());
    assert_eq!(TensorFile::open(file.path()).unwrap().values("large").unwrap(), values);
}

#[test]
fn a_change_of_an_open_file_is_noticed() {
    let mut file = file_of(&three_dtypes());
    let weights = TensorFile::open(file.path()).unwrap();
    weights.check_unchanged().unwrap();
    file.write_all(b"more").unwrap();
    let refusal = weights.check_unchanged().unwrap_err().to_string();
    assert!(refusal.contains("changed since"), "{refusal}");

    file.as_file().set_len(200).unwrap();
    assert!(weights.values("full").is_err() || weights.check_unchanged().is_err());
}

#[test]
fn a_broken_file_is_one_sentence_and_never_a_panic() {
    let good = three_dtypes();
    let mut cases: Vec<Vec<u8>> = (0..good.len()).step_by(7).map(|cut| good[..cut].to_vec()).collect();
    cases.push(b"\xff\xff\xff\xff\xff\xff\xff\xff{}".to_vec());
    cases.push(b"\x02\0\0\0\0\0\0\0[]".to_vec());
    cases.push([good.as_slice(), b"tail"].concat());
    for case in cases {
        let refusal = match TensorFile::open(file_of(&case).path()) {
            Ok(_) => panic!("{} bytes were taken", case.len()),
            Err(error) => error.to_string(),
        };
        assert!(refusal.contains("fetch it again") && !refusal.contains('\n'), "{refusal}");
    }
}

/// A header and data as they are, whatever they say.
fn written(header: &str, data: &[u8]) -> NamedTempFile {
    let length = (header.len() as u64).to_le_bytes();
    file_of(&[&length[..], header.as_bytes(), data].concat())
}

#[test]
fn a_weight_in_eight_bits_is_multiplied_by_the_scale_beside_it() {
    let header = |scale: &str, shape: &str, end: usize| {
        format!(
            r#"{{"a.weight":{{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}},
            "b.weight":{{"dtype":"F8_E5M2","shape":[2],"data_offsets":[2,4]}},
            "a.{scale}":{{"dtype":"F32","shape":{shape},"data_offsets":[4,{end}]}}}}"#
        )
    };
    let data = [&[0x38, 0xb9, 0x3c, 0xbd][..], &2.0_f32.to_le_bytes(), &3.0_f32.to_le_bytes()].concat();
    for scale in ["scale_weight", "weight_scale"] {
        let file = written(&header(scale, "[]", 8), &data[..8]);
        let file = TensorFile::open(file.path()).unwrap();
        assert_eq!(file.values("a.weight").unwrap(), [2.0, -2.25]);
        assert_eq!(file.values("b.weight").unwrap(), [1.0, -1.25]);
        let file = written(&header(scale, "[2]", 12), &data);
        let refusal = TensorFile::open(file.path()).unwrap().values("a.weight").unwrap_err().to_string();
        assert!(refusal.contains("quantised in blocks") && refusal.contains(scale), "{refusal}");
    }
    let file = written(&header("comfy_quant", "[1]", 8), &data[..8]);
    let refusal = TensorFile::open(file.path()).unwrap().values("a.weight").unwrap_err().to_string();
    assert!(refusal.contains("its scale is missing"), "{refusal}");
}

#[test]
fn single_numbers_are_read_in_any_type_and_unknown_types_are_named() {
    let header = r#"{"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},
        "m":{"dtype":"I32","shape":[1],"data_offsets":[8,12]},
        "d":{"dtype":"F64","shape":[1],"data_offsets":[12,20]},
        "x":{"dtype":"F7_NEW","shape":[9],"data_offsets":[20,24]}}"#;
    let data = [&7_i64.to_le_bytes()[..], &(-3_i32).to_le_bytes(), &0.5_f64.to_le_bytes(), &[0; 4]].concat();
    let file = written(header, &data);
    let file = TensorFile::open(file.path()).unwrap();
    let values = ["n", "m", "d"].map(|name| file.values(name).unwrap()[0]);
    assert_eq!(values.map(f32::to_bits), [7.0_f32, -3.0, 0.5].map(f32::to_bits));
    let refusal = file.values("x").unwrap_err().to_string();
    assert!(refusal.contains("its type is F7_NEW"), "{refusal}");
}

#[test]
fn headers_that_lie_are_refused_and_notes_that_are_no_texts_are_left_out() {
    for (header, part) in [
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}"#,
            "two tensors of this name",
        ),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, "ends before it begins"),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#, "beyond the end"),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, "too large"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, "does not fit its 4 bytes"),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            "do not begin where",
        ),
        (
            &format!(r#"{{"a":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#, "1,".repeat(40)),
            "up to 32 sizes",
        ),
    ] {
        let refusal = TensorFile::open(written(header, &[0; 4]).path()).err().unwrap().to_string();
        assert!(refusal.contains(part) && refusal.contains("fetch it again"), "{refusal}");
    }
    let header = r#"{"__metadata__":{"format":"pt","n":7,"l":[1],"z":null},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let file = TensorFile::open(written(header, &[0; 4]).path()).unwrap();
    assert_eq!((file.note("format"), file.note("n")), (Some("pt"), None));
}

#[test]
fn a_scale_has_no_scale_of_its_own() {
    let header = r#"{"a.weight":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},
        "a.scale_weight":{"dtype":"F8_E4M3","shape":[],"data_offsets":[1,2]},
        "a.scale_scale_weight":{"dtype":"F8_E4M3","shape":[],"data_offsets":[2,3]},
        "b.weight":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[3,4]},
        "b.scale_weight":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[4,5]}}"#;
    let file = written(header, &[0x38, 0x40, 0x40, 0x38, 0x7f]);
    let file = TensorFile::open(file.path()).unwrap();
    assert_eq!(file.values("a.weight").unwrap(), [2.0]);
    let refusal = file.values("b.weight").unwrap_err().to_string();
    assert!(refusal.contains("b.scale_weight") && refusal.contains("its type is F8_E8M0"), "{refusal}");
}

#[test]
fn sizes_that_only_a_larger_file_could_have_are_refused_whatever_the_type() {
    for shape in ["[1125899906842624]", "[4611686018427387904]", "[0,4611686018427387904]"] {
        for dtype in ["F4", "F32"] {
            let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,0]}}}}"#);
            let refusal = TensorFile::open(written(&header, &[]).path()).err().unwrap().to_string();
            assert!(refusal.contains("its shape"), "{refusal}");
        }
    }
    let header = r#"{"a":{"dtype":"F4","shape":[2,16],"data_offsets":[0,16]}}"#;
    let file = TensorFile::open(written(header, &[0; 16]).path()).unwrap();
    assert!(file.values("a").unwrap_err().to_string().contains("its type is F4"));
}

#[test]
fn what_is_no_file_is_not_opened_and_has_a_remedy() {
    let refusal = |path: &Path| TensorFile::open(path).err().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let sentence = refusal(folder.path());
    assert!(
        sentence.contains("it is a folder: name one file in it") && !sentence.contains("fetch"),
        "{sentence}"
    );
    let sentence = refusal(&folder.path().join("fox.safetensors"));
    assert!(
        sentence.starts_with("cannot read fox.safetensors: ") && !sentence.contains("fetch"),
        "{sentence}"
    );
    #[cfg(unix)]
    assert!(refusal(Path::new("/dev/null")).contains("a pipe or a device"));
}
