//! A checkpoint of the full-size architecture, from a file to a picture. All its weights are zero, so the file is a
//! header and a hole, and takes no room.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use stablehand::domain::{GenerationInput, ImageSize};

use crate::card::{USUAL, on_cards};
use crate::forms::{load, runtime, small};
use crate::onnx::Model;
use crate::profile::Placement;

/// An inpainting model in one file, under the names of original checkpoints.
fn inpainting_checkpoint(folder: &Path) -> PathBuf {
    let names: Value = serde_json::from_str(include_str!("../golden/ldm_names.json")).unwrap();
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/graphs/sd-v1");
    let mut shapes = BTreeMap::new();
    for (graph, part) in [
        ("text_encoder", "text_encoder"),
        ("unet_inpainting", "unet"),
        ("vae_decoder", "vae"),
        ("vae_encoder", "vae"),
    ] {
        let mut model = Model::read(&graphs.join(format!("{graph}.cpu.onnx")));
        for weight in model.graph().initializers.iter().filter(|weight| !weight.external_data.is_empty()) {
            let name = format!("{part}/{}", weight.name.as_deref().unwrap());
            let original = names["sd-v1"][&name].as_str().unwrap_or_else(|| panic!("{name} has no name"));
            shapes.insert(original.to_owned(), weight.dims.clone());
        }
    }
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let bytes = 2 * shape.iter().product::<i64>();
        let place = json!({"dtype": "F16", "shape": shape, "data_offsets": [end, end + bytes]});
        header.insert(name, place);
        end += bytes;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let path = folder.join("full.safetensors");
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + u64::try_from(end).unwrap()).unwrap();
    path
}

/// Bytes of this process that are in the machine's memory.
fn resident_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_full_size_inpainting_checkpoint_draws_wholly_on_the_card() {
    on_cards(&[USUAL], |_| {
        let folder = tempfile::tempdir().unwrap();
        let profiles = tempfile::tempdir().unwrap();
        let path = inpainting_checkpoint(folder.path());
        let mut pipeline = load(Some(&path), &runtime().with_profiles(profiles.path()));
        // The weights are on the card, and no longer here: 2.1 GB as the file has them.
        let resident = resident_memory();
        assert!(resident < 1 << 30, "{resident} bytes after the model was loaded");
        for (width, height) in [(512, 512), (104, 72)] {
            let size = ImageSize { width, height };
            let input = GenerationInput { size, ..small("a red heart") };
            let mut generation = pipeline.begin(&input, 7).unwrap();
            while !generation.is_done() {
                pipeline.step(&mut [&mut generation]).unwrap();
            }
            assert_eq!(pipeline.finish(&generation).unwrap()[0].image.size(), size);
        }
        drop(pipeline);
        Placement::read(profiles.path()).assert_wholly_on_card("inpainting");
    });
}
