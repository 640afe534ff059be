//! Files whose directories and lengths lie, and forms that are not read.

use super::*;

#[test]
fn storages_of_the_older_form_end_with_the_file() {
    let torch = |shape: &'static [usize]| [TorchTensor { name: "w", storage: "Half", shape, bytes: &[0; 8] }];
    let whole = save_old(&torch(&[4]), Around::Nothing);
    assert!(opened(&whole).is_ok());
    for cut in 1..whole.len() {
        assert!(refused(&whole[..cut]).contains("fetch it again"), "{cut}");
    }
    assert!(
        refused(&save_old(&torch(&[2_000_000_000]), Around::Nothing)).contains("beyond the end of the file")
    );
    let mut other_count = whole.clone();
    let at = whole.len() - 16;
    other_count[at] = 3;
    assert!(refused(&other_count).contains("another length than its pickle says"));
    other_count[at..at + 8].fill(0xff);
    assert!(refused(&other_count).contains("another length than its pickle says"));
}

#[test]
fn archives_that_lie_are_refused() {
    let torch = [TorchTensor { name: "w", storage: "Float", shape: &[4], bytes: &[0; 16] }];
    let good = pickle(&torch, Around::Nothing);
    let whole = save(&torch, Around::Nothing);
    for cut in 1..whole.len() {
        assert!(!refused(&whole[..cut]).is_empty(), "{cut}");
    }
    let entries: [(&str, &[u8]); 2] = [("a/data.pkl", &good), ("a/data/0", &[7; 16])];
    for (bytes, part) in [
        (zipped(&[("a/data.pkl", &good)]), "it has no storage 0"),
        (zipped(&[("a/b/data.pkl", &good)]), "no data.pkl of its own"),
        (zipped(&[("a/data.pkl", &good), ("b/data.pkl", &good)]), "no data.pkl of its own"),
        (zipped(&[("word/document.xml", b"x")]), "no data.pkl of its own"),
        (
            zipped(&[("a/data.pkl", &good), ("a/constants.pkl", b"x"), ("a/code/x.py", b"x")]),
            "a TorchScript program",
        ),
        (zipped(&[entries[0], entries[1], ("a/byteorder", b"big")]), "a big-endian machine"),
        (zipped(&[entries[0], entries[1], ("a/byteorder", &[b'x'; 100])]), "its byteorder has 100 bytes"),
        (vec![b'P'; 300], "neither a safetensors file"),
        ([b"PK\x03\x04".as_slice(), &[0; 300]].concat(), "without its end"),
    ] {
        let sentence = refused(&bytes);
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    let whole = zipped(&entries);
    let find = |mark: &[u8]| whole.windows(mark.len()).rposition(|window| window == mark).unwrap();
    // The last entry in the directory, which is of the storage, and the end of the archive.
    let (entry, end) = (find(b"PK\x01\x02"), find(b"PK\x05\x06"));
    let header = find(b"PK\x03\x04");
    let first = whole.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    for (at, bytes, part) in [
        (entry + 8, &[1_u8][..], "compressed or encrypted"),
        (entry + 10, &[8], "compressed or encrypted"),
        (entry + 20, &[0; 4], "compressed or encrypted"),
        (entry + 20, &[0xf0, 0, 0, 0, 0xf0, 0, 0, 0], "beyond the end of the file"),
        (entry + 20, &[0xff; 8], "a broken directory"),
        (entry + 20, &[8, 0, 0, 0, 8, 0, 0, 0], "has 8 bytes, not 16"),
        (entry + 42, &[0xf0, 0xff, 0xff, 0], "beyond the end of the file"),
        (entry + 42, &[1, 0, 0, 0], "not where its directory says"),
        (entry + 28, &[0xff, 0xff], "a broken directory"),
        (entry, b"PK\x09\x09", "a broken directory"),
        (header, b"PK\x09\x09", "not where its directory says"),
        (header + 26, &[0xff, 0xff], "beyond the end of the file"),
        (first + 46, b"a/data/0.", "no data.pkl of its own"),
        (end + 10, &[0xff, 0xff], "without its end"),
        (end + 10, &[0xfe, 0xff], "a broken directory"),
        (end + 12, &[0xff, 0xff, 0xff, 0x7f], "more entries than a model has"),
        (end + 16, &[0xff, 0xff, 0xff, 0x7f], "without its end"),
        (end + 20, &[9, 0], "without its end"),
    ] {
        let mut bad = whole.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let sentence = refused(&bad);
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    // Two entries of one name.
    let twice = zipped(&[entries[0], entries[1], ("a/data/1", &[8; 16])]);
    let at = twice.windows(8).rposition(|window| window == b"a/data/1").unwrap();
    let mut twice = twice;
    twice[at..at + 8].copy_from_slice(b"a/data/0");
    assert!(refused(&twice).contains("has a/data/0 twice"));
}

#[test]
fn an_archive_with_numbers_of_64_bits_is_read() {
    let torch = [TorchTensor { name: "w", storage: "Float", shape: &[1], bytes: &1.5_f32.to_le_bytes() }];
    let plain = save(&torch, Around::Nothing);
    let end = plain.len() - 22;
    let number = |at: usize, width: usize| {
        plain[at..at + width].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (count, size, start) = (number(end + 10, 2), number(end + 12, 4), number(end + 16, 4));
    let record = |count: u64, size: u64, start: u64, at: u64| {
        let mut file = plain[..end].to_vec();
        file.extend(b"PK\x06\x06");
        file.extend(44_u64.to_le_bytes());
        file.extend([0; 12]);
        file.extend([count, count, size, start].map(u64::to_le_bytes).as_flattened());
        file.extend(b"PK\x06\x07\0\0\0\0");
        file.extend(at.to_le_bytes());
        file.extend(b"\x01\0\0\0PK\x05\x06\0\0\0\0");
        file.extend([0xff; 12]);
        file.extend([0; 2]);
        file
    };
    let at = end as u64;
    assert_eq!(opened(&record(count, size, start, at)).unwrap().values("w").unwrap(), [1.5]);
    for (bytes, part) in [
        (record(count, size, start, u64::MAX), "without its end"),
        (record(count, size, start, at - 1), "without its end"),
        (record(u64::MAX, size, start, at), "more entries"),
        (record(count, u64::MAX, start, at), "more entries"),
        (record(count, size, u64::MAX, at), "without its end"),
        (record(count + 1, size, start, at), "a broken directory"),
    ] {
        assert!(refused(&bytes).contains(part), "{part}");
    }
}

#[test]
fn forms_that_are_not_read_are_named() {
    let mut tar = vec![0; 512];
    tar[..4].copy_from_slice(b"sys_");
    tar[257..262].copy_from_slice(b"ustar");
    assert!(refused(&tar).contains("torch 0.1 wrote it"));
    assert!(
        refused(b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}.").contains("torch.save did not write it")
    );
    let big = [
        &OLD_START[..OLD_START.len() - 4],
        b"\x80\x02}X\x0d\x00\x00\x00little_endian\x89s.\x80\x02}.\x80\x02].",
    ]
    .concat();
    assert!(refused(&big).contains("a big-endian machine"));
    let complex = [TorchTensor { name: "w", storage: "ComplexFloat", shape: &[1], bytes: &[0; 8] }];
    let file = opened(&save(&complex, Around::Nothing)).unwrap();
    assert!(file.values("w").unwrap_err().to_string().contains("its type is ComplexFloat"));
}
