//! `stablehand models convert`.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::helpers::{assert_refused, data_dir, files_under, output, stablehand};

const TORCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/torch");

fn convert(from: &str, to: &Path, more: &[&str]) -> std::process::Output {
    let mut command = stablehand(&["models", "convert", from]);
    command.arg(to).args(more);
    output(command)
}

#[test]
fn a_file_of_torch_becomes_a_safetensors_file() {
    let folder = data_dir();
    let to = folder.path().join("weights.safetensors");
    let done = convert(&format!("{TORCH}/lightning.pt"), &to, &[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("weights.safetensors: 2 tensors, "), "{said}");
    assert!(said.contains("left out, because they are no weights: epoch, global_step, "), "{said}");
    let bytes = fs::read(&to).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!((file.len(), file.tensor("a").unwrap().shape()), (2, &[2, 2][..]));

    let again = convert(&format!("{TORCH}/lightning.pt"), &to, &[]);
    assert_refused(&again, 1, &["weights.safetensors exists: remove it first, or name another file"]);
    assert_eq!(fs::read(&to).unwrap(), bytes);

    let half = folder.path().join("half.safetensors");
    assert!(convert(to.to_str().unwrap(), &half, &["--half"]).status.success());
    assert!(fs::metadata(&half).unwrap().len() < bytes.len() as u64);
    assert_eq!(files_under(folder.path()).len(), 2, "nothing else is left");
}

#[test]
fn what_cannot_be_converted_leaves_no_file() {
    let folder = data_dir();
    let to = folder.path().join("out.safetensors");
    let evil = folder.path().join("evil.pt");
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    fs::write(&evil, [&start[..], b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."].concat()).unwrap();
    let evil = evil.to_str().unwrap();
    assert_refused(
        &convert(evil, &to, &[]),
        1,
        &["evil.pt", "it asks for os.system, which can run code in Python"],
    );
    assert_refused(&convert("nothing.pt", &to, &[]), 1, &["cannot read nothing.pt"]);
    assert_refused(
        &convert(&format!("{TORCH}/webui.pt"), &folder.path().join("out.pt"), &[]),
        2,
        &["out.pt should end with .safetensors"],
    );
    assert_refused(
        &convert(&format!("{TORCH}/webui.pt"), &folder.path().join("no/out.safetensors"), &[]),
        1,
        &["cannot write", "no/out.safetensors"],
    );
    assert_eq!(files_under(folder.path()), [Path::new("evil.pt")]);
}
