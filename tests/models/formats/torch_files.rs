//! Files of torch, and the types of numbers that few files have.

use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::tensor::Dtype;

use super::weights::{below, full, renamed};
use super::workbench::{Workbench, file_of};
use super::{Becomes, Row, hold};
use crate::checkpoints::{Tensor, Tensors, component, converted, original, write};
use crate::torch_writer::{Around, TorchTensor, save, save_old, text, zipped};

const VAE: &str = "first_stage_model.";
const CONV_IN: &str = "model.diffusion_model.input_blocks.0.0.weight";

pub type Save = fn(&[TorchTensor], Around) -> Vec<u8>;

pub fn bytes(tensors: &Tensors, around: Around, save: Save) -> Vec<u8> {
    let storage = |dtype: Dtype| match dtype {
        Dtype::F64 => "Double",
        Dtype::F32 => "Float",
        Dtype::F16 => "Half",
        other => panic!("{other:?}"),
    };
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, Tensor { dtype, shape, bytes })| TorchTensor {
            name,
            storage: storage(*dtype),
            shape,
            bytes,
        })
        .collect();
    save(&tensors, around)
}

fn checkpoint(bench: &Workbench, name: &str, around: Around, save: Save) -> PathBuf {
    bench.file(name, &bytes(&original(), around, save))
}

/// A checkpoint whose VAE is black, and beside it the right one.
fn with_vae_beside(bench: &Workbench, ending: &str, around: Around, save: Save) -> PathBuf {
    let path = bench.edited(|tensors| {
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.starts_with(VAE)) {
            tensor.bytes.fill(0);
        }
    });
    let mut vae = below(&original(), VAE);
    let some = vae.values().next().unwrap().clone();
    vae.insert("loss.logvar".to_owned(), some);
    fs::write(path.with_extension(ending), bytes(&vae, around, save)).unwrap();
    path
}

/// The built-in model's folder with one part as files of torch, which `torch` writes: the part's folder and tensors.
fn folder(bench: &Workbench, part: &str, torch: impl FnOnce(&Path, Tensors)) -> PathBuf {
    bench.folder(|path| {
        let (folder, file) = (path.join(part), file_of(part));
        fs::remove_file(folder.join(file)).unwrap();
        torch(&folder, component(part, file));
        // Of a trainer, and of another exporter.
        fs::write(folder.join("optimizer.bin"), "no weights").unwrap();
        fs::write(folder.join("openvino_model.bin"), "no weights").unwrap();
    })
}

/// A file whose pickle, in the zip form, has these opcodes.
fn pickle(bench: &Workbench, opcodes: &[u8]) -> PathBuf {
    bench.file("fox.ckpt", &zipped(&[("fox/data.pkl", opcodes)]))
}

/// Halves as their upper halves, which are numbers in eight bits.
fn eight() -> Tensors {
    converted(&original(), Dtype::F8_E5M2, |value| vec![value.to_le_bytes()[1]])
}

/// The same numbers in sixteen bits.
fn sixteen() -> Tensors {
    converted(&original(), Dtype::F16, |value| vec![0, value.to_le_bytes()[1]])
}

/// The same with the first convolution one and a half times as large.
fn scaled_sixteen() -> Tensors {
    let mut tensors = sixteen();
    for pair in tensors.get_mut(CONV_IN).unwrap().bytes.chunks_exact_mut(2) {
        let value = f16::from_le_bytes([pair[0], pair[1]]).to_f32() * 1.5;
        pair.copy_from_slice(&f16::from_f32(value).to_le_bytes());
    }
    tensors
}

/// Numbers in eight bits, with scales for the first convolution.
fn scaled(bench: &Workbench, name: &str, scales: &[f32]) -> PathBuf {
    let mut tensors = eight();
    let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let shape = if scales.len() == 1 { vec![] } else { vec![scales.len()] };
    tensors.insert(CONV_IN.replace("weight", name), Tensor { dtype: Dtype::F32, shape, bytes });
    bench.checkpoint("fox", &tensors)
}

#[rustfmt::skip] // a row is a line where it fits
pub const ROWS: &[Row] = &[
    // What it is called, and how it was written.
    Row { what: "a checkpoint of torch", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "fox.ckpt", Around::Nothing, save) },
    Row { what: "a checkpoint of torch before 1.6", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "fox.ckpt", Around::Nothing, save_old) },
    Row { what: "a checkpoint of a trainer", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "fox.ckpt", Around::Checkpoint, save) },
    Row { what: "a checkpoint of a trainer before 1.6", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "fox.ckpt", Around::Checkpoint, save_old) },
    Row { what: "a checkpoint called .pt", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "fox.pt", Around::Nothing, save) },
    Row { what: "a checkpoint called .PTH", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "FOX.PTH", Around::Nothing, save) },
    Row { what: "a checkpoint of torch called .safetensors", becomes: Becomes::Drawn, made: |bench| checkpoint(bench, "fox.safetensors", Around::Nothing, save) },
    Row { what: "a safetensors file called .ckpt", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.place().join("fox.ckpt");
        write(&original(), &path);
        path
    } },
    Row { what: "a checkpoint from several cards", becomes: Becomes::Drawn, made: |bench| {
        bench.file("fox.ckpt", &bytes(&renamed(&original(), |name| format!("module.{name}")), Around::Nothing, save))
    } },
    Row { what: "a checkpoint of torch in single precision", becomes: Becomes::Drawn, made: |bench| bench.file("fox.ckpt", &bytes(&full(&original()), Around::Nothing, save)) },
    // A VAE beside a checkpoint.
    Row { what: "a VAE in .vae.pt beside it", becomes: Becomes::Drawn, made: |bench| with_vae_beside(bench, "vae.pt", Around::Checkpoint, save) },
    Row { what: "a VAE in .vae.ckpt beside it", becomes: Becomes::Drawn, made: |bench| with_vae_beside(bench, "vae.ckpt", Around::Nothing, save_old) },
    // diffusers' folders.
    Row { what: "a folder whose UNet is of torch", becomes: Becomes::Drawn, made: |bench| folder(bench, "unet", |path, tensors| {
        fs::write(path.join("diffusion_pytorch_model.bin"), bytes(&tensors, Around::Nothing, save)).unwrap();
    }) },
    Row { what: "a folder whose text encoder is of torch before 1.6", becomes: Becomes::Drawn, made: |bench| folder(bench, "text_encoder", |path, tensors| {
        fs::write(path.join("pytorch_model.bin"), bytes(&tensors, Around::Nothing, save_old)).unwrap();
    }) },
    Row { what: "a folder whose VAE is of torch, as a variant", becomes: Becomes::Drawn, made: |bench| folder(bench, "vae", |path, tensors| {
        fs::write(path.join("diffusion_pytorch_model.fp16.bin"), bytes(&tensors, Around::Nothing, save)).unwrap();
    }) },
    Row { what: "a folder whose UNet is of torch, in shards", becomes: Becomes::Drawn, made: |bench| folder(bench, "unet", |path, mut tensors| {
        let second = tensors.split_off("mid_block");
        for (number, (tensors, save)) in [(tensors, save as Save), (second, save_old)].into_iter().enumerate() {
            let name = format!("diffusion_pytorch_model-0000{}-of-00002.bin", number + 1);
            fs::write(path.join(name), bytes(&tensors, Around::Nothing, save)).unwrap();
        }
        fs::write(path.join("diffusion_pytorch_model.bin.index.json"), "{}").unwrap();
    }) },
    Row { what: "a folder whose UNet lacks a shard", becomes: Becomes::Refused(&["one of 2 files, but only 1"]), made: |bench| folder(bench, "unet", |path, tensors| {
        fs::write(path.join("diffusion_pytorch_model-00001-of-00002.bin"), bytes(&tensors, Around::Nothing, save)).unwrap();
    }) },
    // What is refused.
    Row { what: "a pickle that runs a program", becomes: Becomes::Refused(&["fox.ckpt", "it asks for posix.system, which can run code"]), made: |bench| {
        let mut opcodes = b"\x80\x02cposix\nsystem\n".to_vec();
        text(&mut opcodes, "true");
        pickle(bench, &[&opcodes[..], b"\x85R."].concat())
    } },
    Row { what: "a pickled object of a program", becomes: Becomes::Refused(&["it asks for ldm.models.diffusion.DDPM, which weights do not need"]), made: |bench| {
        pickle(bench, b"\x80\x02cldm.models.diffusion\nDDPM\n)\x81.")
    } },
    Row { what: "a pickle without tensors", becomes: Becomes::Refused(&["it holds no tensors"]), made: |bench| pickle(bench, b"\x80\x02}.") },
    Row { what: "a pickle that torch.save did not write", becomes: Becomes::Refused(&["torch.save did not write it"]), made: |bench| bench.file("fox.ckpt", b"\x80\x02}.") },
    Row { what: "a TorchScript program", becomes: Becomes::Refused(&["a TorchScript program"]), made: |bench| {
        bench.file("fox.pt", &zipped(&[("fox/data.pkl", b"\x80\x02}."), ("fox/constants.pkl", b"\x80\x02).")]))
    } },
    Row { what: "a checkpoint of torch, cut short", becomes: Becomes::Refused(&["fox.ckpt", "fetch it again"]), made: |bench| {
        let whole = bytes(&original(), Around::Nothing, save);
        bench.file("fox.ckpt", &whole[..whole.len() - 100])
    } },
    Row { what: "an older checkpoint of torch, cut short", becomes: Becomes::Refused(&["fox.ckpt", "fetch it again"]), made: |bench| {
        let whole = bytes(&original(), Around::Nothing, save_old);
        bench.file("fox.ckpt", &whole[..whole.len() - 100])
    } },
    Row { what: "an archive of something else", becomes: Becomes::Refused(&["not one of torch.save"]), made: |bench| bench.file("fox.bin", &zipped(&[("readme.txt", b"a fox")])) },
    // Types of numbers.
    Row { what: "double precision", becomes: Becomes::Drawn, made: |bench| {
        bench.checkpoint("fox", &converted(&original(), Dtype::F64, |value| value.to_f64().to_le_bytes().to_vec()))
    } },
    Row { what: "double precision of torch", becomes: Becomes::Drawn, made: |bench| {
        let tensors = converted(&original(), Dtype::F64, |value| value.to_f64().to_le_bytes().to_vec());
        bench.file("fox.ckpt", &bytes(&tensors, Around::Nothing, save))
    } },
    Row { what: "eight bits (e5m2)", becomes: Becomes::DrawnAs(|| full(&sixteen())), made: |bench| bench.checkpoint("fox", &eight()) },
    Row { what: "eight bits with ComfyUI's scale", becomes: Becomes::DrawnAs(|| full(&scaled_sixteen())), made: |bench| scaled(bench, "scale_weight", &[1.5]) },
    Row { what: "eight bits with ComfyUI's newer scale", becomes: Becomes::DrawnAs(|| full(&scaled_sixteen())), made: |bench| scaled(bench, "weight_scale", &[1.5]) },
    Row { what: "eight bits with a scale for each channel", becomes: Becomes::Refused(&["input_blocks.0.0.weight", "quantised in blocks"]), made: |bench| scaled(bench, "weight_scale", &[1.0; 48]) },
    Row { what: "eight bits whose scale is missing", becomes: Becomes::Refused(&["input_blocks.0.0.weight", "its scale is missing"]), made: |bench| scaled(bench, "comfy_quant", &[1.0]) },
];

#[test]
fn files_of_torch_and_rare_types_of_numbers() {
    hold(ROWS);
}
