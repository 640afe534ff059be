//! The files inside the binary: the default model, and the files that a checkpoint in one file lacks.

/// Files by their names, which are paths with slashes.
#[derive(Debug)]
pub(super) struct EmbeddedFiles(&'static [(&'static str, &'static [u8])]);

impl EmbeddedFiles {
    pub fn get(&self, name: &str) -> Option<&'static [u8]> {
        self.0.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes)
    }

    /// The names of the files in a folder, without it.
    pub fn in_folder<'a>(
        &self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'static str, &'static [u8])> + use<'a> {
        self.0
            .iter()
            .filter_map(move |(file, bytes)| Some((file.strip_prefix(folder)?.strip_prefix('/')?, *bytes)))
    }
}

macro_rules! embedded {
    ($folder:literal: $($file:literal),* $(,)?) => {
        EmbeddedFiles(&[$((
            $file,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/", $folder, "/", $file)),
        )),*])
    };
}

/// The default model.
pub(super) static TINY_SD: EmbeddedFiles = embedded!["tiny-sd":
    "model_index.json",
    "stablehand.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "graphs/text_encoder.cpu.onnx",
    "graphs/text_encoder.cuda.onnx",
    "graphs/unet.cpu.onnx",
    "graphs/unet.nchwc.onnx",
    "graphs/unet.winograd.onnx",
    "graphs/unet.cuda.onnx",
    "graphs/controlnet.cpu.onnx",
    "graphs/controlnet.nchwc.onnx",
    "graphs/controlnet.winograd.onnx",
    "graphs/controlnet.cuda.onnx",
    "graphs/unet_controlled.cpu.onnx",
    "graphs/unet_controlled.nchwc.onnx",
    "graphs/unet_controlled.winograd.onnx",
    "graphs/unet_controlled.cuda.onnx",
    "graphs/unet_guided.cpu.onnx",
    "graphs/unet_guided.nchwc.onnx",
    "graphs/unet_guided.winograd.onnx",
    "graphs/unet_guided.cuda.onnx",
    "graphs/unet_shallow.cpu.onnx",
    "graphs/unet_shallow.nchwc.onnx",
    "graphs/unet_shallow.winograd.onnx",
    "graphs/unet_shallow.cuda.onnx",
    "graphs/unet_guided_shallow.cpu.onnx",
    "graphs/unet_guided_shallow.nchwc.onnx",
    "graphs/unet_guided_shallow.winograd.onnx",
    "graphs/unet_guided_shallow.cuda.onnx",
    "graphs/vae_decoder.cpu.onnx",
    "graphs/vae_decoder.nchwc.onnx",
    "graphs/vae_decoder.winograd.onnx",
    "graphs/vae_decoder.cuda.onnx",
    "graphs/vae_encoder.cpu.onnx",
    "graphs/vae_encoder.nchwc.onnx",
    "graphs/vae_encoder.winograd.onnx",
    "graphs/vae_encoder.cuda.onnx",
    "vae_tiny/diffusion_pytorch_model.fp16.safetensors",
    "graphs/vae_tiny.cpu.onnx",
    "graphs/vae_tiny.nchwc.onnx",
    "graphs/vae_tiny.cuda.onnx",
];

/// Stable Diffusion v1 without its weights.
pub(super) static SD_V1: EmbeddedFiles = embedded!["graphs/sd-v1":
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder.cpu.onnx",
    "text_encoder.cuda.onnx",
    "unet.cpu.onnx",
    "unet.nchwc.onnx",
    "unet.winograd.onnx",
    "unet.cuda.onnx",
    "unet_inpainting.cpu.onnx",
    "unet_inpainting.nchwc.onnx",
    "unet_inpainting.winograd.onnx",
    "unet_inpainting.cuda.onnx",
    "controlnet.cpu.onnx",
    "controlnet.nchwc.onnx",
    "controlnet.winograd.onnx",
    "controlnet.cuda.onnx",
    "unet_controlled.cpu.onnx",
    "unet_controlled.nchwc.onnx",
    "unet_controlled.winograd.onnx",
    "unet_controlled.cuda.onnx",
    "unet_inpainting_controlled.cpu.onnx",
    "unet_inpainting_controlled.nchwc.onnx",
    "unet_inpainting_controlled.winograd.onnx",
    "unet_inpainting_controlled.cuda.onnx",
    "unet_guided.cpu.onnx",
    "unet_guided.nchwc.onnx",
    "unet_guided.winograd.onnx",
    "unet_guided.cuda.onnx",
    "unet_pix2pix.cpu.onnx",
    "unet_pix2pix.nchwc.onnx",
    "unet_pix2pix.winograd.onnx",
    "unet_pix2pix.cuda.onnx",
    "unet_shallow.cpu.onnx",
    "unet_shallow.nchwc.onnx",
    "unet_shallow.winograd.onnx",
    "unet_shallow.cuda.onnx",
    "unet_inpainting_shallow.cpu.onnx",
    "unet_inpainting_shallow.nchwc.onnx",
    "unet_inpainting_shallow.winograd.onnx",
    "unet_inpainting_shallow.cuda.onnx",
    "unet_guided_shallow.cpu.onnx",
    "unet_guided_shallow.nchwc.onnx",
    "unet_guided_shallow.winograd.onnx",
    "unet_guided_shallow.cuda.onnx",
    "unet_pix2pix_shallow.cpu.onnx",
    "unet_pix2pix_shallow.nchwc.onnx",
    "unet_pix2pix_shallow.winograd.onnx",
    "unet_pix2pix_shallow.cuda.onnx",
    "vae_decoder.cpu.onnx",
    "vae_decoder.nchwc.onnx",
    "vae_decoder.winograd.onnx",
    "vae_decoder.cuda.onnx",
    "vae_encoder.cpu.onnx",
    "vae_encoder.nchwc.onnx",
    "vae_encoder.winograd.onnx",
    "vae_encoder.cuda.onnx",
    "vae_tiny.cpu.onnx",
    "vae_tiny.nchwc.onnx",
    "vae_tiny.cuda.onnx",
    "safety_checker.cpu.onnx",
    "safety_checker.cuda.onnx",
];
