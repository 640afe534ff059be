//! Model folders as the exporters that people use write them, each derived from the default model, so that it
//! draws what the default model draws.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::onnx::{
    BOOL, FLOAT, FLOAT16, Graph, INT32, INT64, Model, Node, cast, floats, int, int64s, ints, node, port,
};

pub const SAMPLE: [&str; 4] = ["batch", "4", "height", "width"];
pub const PICTURE: [&str; 4] = ["batch", "3", "height", "width"];
pub const EMBEDDING: [&str; 3] = ["batch", "sequence", "160"];

/// A folder of its own with a model in it.
pub struct Folder {
    root: TempDir,
}

impl Folder {
    /// tiny-sd as an export to ONNX.
    pub fn tiny_sd() -> Self {
        let root = tempfile::tempdir().unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (model, graphs) = (here.join("models/tiny-sd"), here.join("tests/models/tiny-sd-onnx"));
        copy(&model, root.path());
        for (source, part) in [
            (&model, "scheduler"),
            (&model, "tokenizer"),
            (&graphs, "text_encoder"),
            (&graphs, "unet"),
            (&graphs, "vae_decoder"),
            (&graphs, "vae_encoder"),
        ] {
            fs::create_dir(root.path().join(part)).unwrap();
            copy(&source.join(part), &root.path().join(part));
        }
        Self { root }
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn file(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    pub fn remove(&self, files: &[&str]) {
        for path in files.iter().map(|file| self.file(file)) {
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
    }

    pub fn edit(&self, part: &str, edit: impl FnOnce(&mut Model)) {
        let path = self.file(&format!("{part}/model.onnx"));
        let mut model = Model::read(&path);
        edit(&mut model);
        model.write(&path);
    }

    /// Moves each graph's weights into a file beside it.
    pub fn move_weights(&self, parts: &[&str], file: &str) {
        for part in parts {
            let path = self.file(&format!("{part}/model.onnx"));
            Model::read(&path).write_with_external_data(&path, file);
        }
    }

    pub fn edit_json(&self, file: &str, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        let path = self.file(file);
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(json.as_object_mut().unwrap());
        fs::write(path, json.to_string()).unwrap();
    }

    /// The UNet's timestep as another element type, of these sizes.
    pub fn timestep(&self, element: i32, sizes: &[&str]) {
        self.edit("unet", |unet| {
            let graph = unet.graph();
            graph.replace_input("timestep", port("timestep", element, sizes), |given, inside| {
                vec![
                    cast(given, "timestep_float", FLOAT),
                    node("Shape", &["sample"], &["timestep_rows"], &[int("start", 0), int("end", 1)]),
                    node("Expand", &["timestep_float", "timestep_rows"], &[inside], &[]),
                ]
            });
        });
    }

    /// Token ids as another integer type.
    pub fn ids(&self, element: i32) {
        self.edit("text_encoder", |text_encoder| {
            let ids = port("input_ids", element, &["batch", "sequence"]);
            text_encoder
                .graph()
                .replace_input("input_ids", ids, |given, inside| vec![cast(given, inside, INT32)]);
        });
    }

    /// Half precision at every border, as Unpaint and Olive convert models.
    pub fn half(&self) {
        let to_float = |given: &str, inside: &str| vec![cast(given, inside, FLOAT)];
        let to_half = |inside: &str, given: &str| vec![cast(inside, given, FLOAT16)];
        self.edit("text_encoder", |model| {
            let hidden = port("last_hidden_state", FLOAT16, &EMBEDDING);
            model.graph().replace_output("last_hidden_state", hidden, to_half);
        });
        self.edit("unet", |model| {
            let graph = model.graph();
            graph.replace_input("sample", port("sample", FLOAT16, &SAMPLE), to_float);
            let embedding = port("encoder_hidden_states", FLOAT16, &EMBEDDING);
            graph.replace_input("encoder_hidden_states", embedding, to_float);
            graph.replace_output("out_sample", port("out_sample", FLOAT16, &SAMPLE), to_half);
        });
        self.edit("vae_decoder", |model| {
            let graph = model.graph();
            graph.replace_input("latent_sample", port("latent_sample", FLOAT16, &SAMPLE), to_float);
            graph.replace_output("sample", port("sample", FLOAT16, &PICTURE), to_half);
        });
        self.edit("vae_encoder", |model| {
            let graph = model.graph();
            graph.replace_input("sample", port("sample", FLOAT16, &PICTURE), to_float);
            let moments = port("latent_parameters", FLOAT16, &["batch", "8", "height", "width"]);
            graph.replace_output("latent_parameters", moments, to_half);
        });
        self.timestep(FLOAT16, &["batch"]);
    }

    /// A VAE whose latents are scaled by SD v1's number, for folders that state none.
    pub fn usual_scaling_factor(&self) {
        let ratio = 0.18215 / 0.54509;
        self.edit("vae_decoder", |model| {
            let graph = model.graph();
            graph.initializers.push(floats("ratio", &[ratio]));
            graph.replace_input("latent_sample", port("latent_sample", FLOAT, &SAMPLE), |given, inside| {
                vec![node("Mul", &[given, "ratio"], &[inside], &[])]
            });
        });
        self.edit("vae_encoder", |model| {
            let graph = model.graph();
            // Means are divided by the ratio; logarithms of variances lose twice its logarithm.
            let shift = 2.0 * ratio.ln();
            let [divide, keep] = [[1.0 / ratio; 4], [1.0; 4]];
            let (scale, offset) = ([divide, keep].concat(), [[0.0; 4], [-shift; 4]].concat());
            let per_channel = |name: &str, values: &[f32]| {
                let mut tensor = floats(name, values);
                tensor.dims = vec![1, 8, 1, 1];
                tensor
            };
            graph.initializers.push(per_channel("moments_scale", &scale));
            graph.initializers.push(per_channel("moments_offset", &offset));
            let moments = port("latent_parameters", FLOAT, &["batch", "8", "height", "width"]);
            graph.replace_output("latent_parameters", moments, |inside, given| {
                vec![
                    node("Mul", &[inside, "moments_scale"], &["moments_scaled"], &[]),
                    node("Add", &["moments_scaled", "moments_offset"], &[given], &[]),
                ]
            });
        });
    }

    /// An encoder that draws its sample itself and answers latents.
    pub fn sampling_encoder(&self) {
        self.edit("vae_encoder", |model| {
            let graph = model.graph();
            graph.initializers.push(floats("half", &[0.5]));
            graph.replace_output(
                "latent_parameters",
                port("latent_sample", FLOAT, &SAMPLE),
                |inside, given| {
                    vec![
                        node("Split", &[inside], &["mean", "logvar"], &[int("axis", 1)]),
                        node("Mul", &["logvar", "half"], &["logstd"], &[]),
                        node("Exp", &["logstd"], &["std"], &[]),
                        node("RandomNormalLike", &["mean"], &["noise"], &[]),
                        node("Mul", &["std", "noise"], &["spread"], &[]),
                        node("Add", &["mean", "spread"], &[given], &[]),
                    ]
                },
            );
        });
    }

    /// A second output of the text encoder after (or before) the one that matters.
    pub fn pooled_output(&self) {
        self.edit("text_encoder", |model| {
            let graph = model.graph();
            graph.initializers.push(int64s("first_token", &[0]));
            graph.nodes.push(Node {
                ..node(
                    "ReduceMean",
                    &["last_hidden_state"],
                    &["pooler_output"],
                    &[ints("axes", &[1]), int("keepdims", 0)],
                )
            });
            graph.outputs.insert(0, port("pooler_output", FLOAT, &["batch", "160"]));
        });
    }

    /// A safety checker with the ports of the real one, to which what is red is not safe.
    pub fn safety_checker(&self) {
        let mut red = int64s("red", &[0]);
        let mut blue = int64s("blue", &[2]);
        // Scalars, so that one channel's numbers keep no axis.
        red.dims.clear();
        blue.dims.clear();
        let picture = ["batch", "height", "width", "channels"];
        let graph = Graph {
            name: Some("safety_checker".to_owned()),
            inputs: vec![
                port("clip_input", FLOAT, &["batch", "channels", "height", "width"]),
                port("images", FLOAT, &picture),
            ],
            outputs: vec![port("out_images", FLOAT, &picture), port("has_nsfw_concepts", BOOL, &["batch"])],
            initializers: vec![red, blue, floats("threshold", &[0.4])],
            nodes: vec![
                node("Identity", &["images"], &["out_images"], &[]),
                node("ReduceMean", &["clip_input"], &["means"], &[ints("axes", &[2, 3]), int("keepdims", 0)]),
                node("Gather", &["means", "red"], &["redness"], &[int("axis", 1)]),
                node("Gather", &["means", "blue"], &["blueness"], &[int("axis", 1)]),
                node("Sub", &["redness", "blueness"], &["excess"], &[]),
                node("Greater", &["excess", "threshold"], &["has_nsfw_concepts"], &[]),
            ],
        };
        fs::create_dir(self.file("safety_checker")).unwrap();
        Model::new(graph).write(&self.file("safety_checker/model.onnx"));
    }

    /// runwayml's and onnx-community's folders, as diffusers' own script wrote them in 2022.
    pub fn diffusers_legacy() -> Self {
        let folder = Self::tiny_sd();
        folder.ids(INT32);
        folder.pooled_output();
        folder.timestep(INT64, &["batch"]);
        folder.usual_scaling_factor();
        folder.sampling_encoder();
        folder.move_weights(&["unet"], "weights.pb");
        folder.remove(&[
            "text_encoder/config.json",
            "unet/config.json",
            "vae_decoder/config.json",
            "vae_encoder/config.json",
            "stablehand.json",
        ]);
        folder.edit_json("model_index.json", |index| {
            index.insert("_class_name".into(), "OnnxStableDiffusionPipeline".into());
        });
        folder.edit_json("scheduler/scheduler_config.json", |scheduler| {
            scheduler.remove("prediction_type");
            scheduler.remove("clip_sample");
        });
        folder
    }

    /// What `optimum-cli export onnx` writes.
    pub fn optimum() -> Self {
        let folder = Self::tiny_sd();
        folder.ids(INT64);
        folder.edit("text_encoder", |model| {
            let graph = model.graph();
            graph.nodes.push(node("Identity", &["last_hidden_state"], &["hidden_states.0"], &[]));
            graph.outputs.push(port("hidden_states.0", FLOAT, &EMBEDDING));
        });
        folder.timestep(INT64, &[]);
        folder.move_weights(&["text_encoder", "unet", "vae_decoder", "vae_encoder"], "model.onnx_data");
        folder.edit_json("model_index.json", |index| {
            index.insert("_class_name".into(), "ORTStableDiffusionPipeline".into());
        });
        folder
    }

    /// Olive's, before it converts to half precision.
    pub fn olive() -> Self {
        let folder = Self::tiny_sd();
        folder.timestep(FLOAT, &["batch"]);
        folder.sampling_encoder();
        folder.move_weights(&["unet"], "model.onnx.data");
        folder
    }

    /// Unpaint's: half precision everywhere, nothing optional.
    pub fn unpaint() -> Self {
        let folder = Self::tiny_sd();
        folder.half();
        folder.remove(&["vae_encoder", "model_index.json", "tokenizer/tokenizer_config.json"]);
        folder
    }

    /// An inpainting model's UNet: the mask and the masked picture's latents are mixed into the noisy latents, as
    /// tests/golden/inpainting.py mixes them.
    pub fn inpainting() -> Self {
        let folder = Self::tiny_sd();
        folder.edit("unet", |model| {
            let graph = model.graph();
            let weight = |from: usize, to: usize| match from {
                4 => 0.1,
                from if from == to => 1.0,
                from if from == to + 5 => 0.2,
                _ => 0.0,
            };
            let weights: Vec<f32> = (0..4).flat_map(|to| (0..9).map(move |from| weight(from, to))).collect();
            let mut weights = floats("heard", &weights);
            weights.dims = vec![4, 9, 1, 1];
            graph.initializers.push(weights);
            let sample = port("sample", FLOAT, &["batch", "9", "height", "width"]);
            graph.replace_input("sample", sample, |given, inside| {
                vec![node("Conv", &[given, "heard"], &[inside], &[])]
            });
        });
        folder
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
