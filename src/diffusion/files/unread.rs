//! What a model's files hold and nothing here reads. It is said by name, so that nobody wonders why a picture lacks it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::architecture::FOREIGN;
use super::beside::{VAE, beside};
use super::original_names::unwrapped;
use super::own_words::{V_PREDICTION, ZERO_SNR};
use super::shards::other_weights;
use super::{GraphBuild, ModelPlace, PartFiles, PartGraph, TensorFile, lora_kind, quoted_few, quoted_name};
use crate::domain::ModelPart;

/// How many names a sentence gives, and how many sentences there are for one file.
const NAMES: usize = 3;
const GROUPS: usize = 8;

/// Tensors that checkpoints carry and drawing does not need, by what their names begin with or contain.
const NOT_NEEDED: [(&str, &str); 20] = [
    ("model_ema.", "running averages of the UNet"),
    ("position_ids", "counted anyway"),
    ("alphas_cumprod", TRAINING),
    ("betas", TRAINING),
    ("sqrt_", TRAINING),
    ("log_one_minus_alphas_cumprod", TRAINING),
    ("posterior_", TRAINING),
    ("lvlb_weights", TRAINING),
    ("logvar", TRAINING),
    ("loss.", TRAINING),
    ("discriminator.", TRAINING),
    ("global_step", TRAINING),
    ("num_updates", TRAINING),
    ("text_projection", "CLIP's comparison with pictures"),
    ("logit_scale", "CLIP's comparison with pictures"),
    ("scaled_fp8", "marks the format"),
    ("scale_input", "of use to cards that multiply in eight bits"),
    ("input_scale", "of use to cards that multiply in eight bits"),
    ("vision_model.", "CLIP's comparison with pictures"),
    ("visual_projection", "CLIP's comparison with pictures"),
];
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];
const TRAINING: &str = "of use in training alone";

/// Sentences about what is not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// What may change pictures.
    pub not_read: Vec<String>,
    /// What does not.
    pub not_needed: Vec<String>,
    /// `not_read` in a few words, for a picture's text.
    pub in_short: Vec<String>,
}

impl Unread {
    pub(super) fn find(place: &ModelPlace, parts: &BTreeMap<ModelPart, PartFiles>) -> Self {
        let mut unread = Self::default();
        match place {
            ModelPlace::Embedded => return unread,
            ModelPlace::Checkpoint { path, .. } => unread.add_files_beside(path),
            ModelPlace::Folder(path) => unread.add_files_in(path),
        }
        for (file, wants) in wants_by_file(parts) {
            unread.add_tensors(&file, &wants);
        }
        unread
    }

    /// VAEs that another one replaces.
    fn add_files_beside(&mut self, checkpoint: &Path) {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<String> = beside(checkpoint, VAE).iter().map(|path| name(path)).collect();
        for other in names.iter().skip(1) {
            self.not_read.push(format!("{other} beside it is not read: {} is", names[0]));
            self.in_short.push(other.clone());
        }
    }

    fn add_files_in(&mut self, folder: &Path) {
        for part in ["text_encoder", "unet", "vae"] {
            for name in other_weights(&folder.join(part)) {
                self.not_read.push(format!("{part}/{name} is not read: other weights of that folder are"));
                self.in_short.push(format!("{part}/{name}"));
            }
        }
    }

    fn add_tensors(&mut self, file: &TensorFile, wants: &Wants) {
        if !file.not_read().is_empty() {
            let beside = file.not_read().join(", ");
            self.not_needed.push(format!("{beside} of {} (beside the weights)", file.name()));
        }
        let mut groups: BTreeMap<Group, Vec<String>> = BTreeMap::new();
        let names = file.tensor_names();
        // The scales of weights in eight bits are read with these.
        let is_float8 = |name: &&String| file.place(name).is_ok_and(|place| place.element.is_float8());
        let read = wants.read.iter().filter_map(|order| names.get(*order)).filter(is_float8);
        let modules: HashSet<&str> = read.filter_map(|name| name.strip_suffix("weight")).collect();
        let is_scale = |tensor: &str| {
            SCALES
                .iter()
                .any(|scale| tensor.strip_suffix(scale).is_some_and(|module| modules.contains(module)))
        };
        for (order, tensor) in names.iter().enumerate() {
            let name = unwrapped(tensor);
            let is_word = [V_PREDICTION, ZERO_SNR].contains(&&*name);
            if !wants.read.contains(&order) && !is_word && !is_scale(tensor) {
                let group = match wants.unused.contains(&order) {
                    true => Group::NotNeeded("layers beyond num_hidden_layers".to_owned()),
                    false => Group::of(&name, wants.has_other_vae),
                };
                groups.entry(group).or_default().push(tensor.clone());
            }
        }
        self.add_groups(groups, file.name());
    }

    /// What is not needed is of few kinds. The others come first, and a file may have any number of them.
    fn add_groups(&mut self, groups: BTreeMap<Group, Vec<String>>, file: &str) {
        let mut others = 0_usize;
        for (number, (group, names)) in groups.into_iter().enumerate() {
            let sentence = format!("{} of {file}: {}", count(names.len()), listed(&names));
            match group {
                Group::NotNeeded(why) => self.not_needed.push(format!("{sentence} ({why})")),
                _ if number >= GROUPS => others += 1,
                Group::Foreign(what) => {
                    self.in_short.push(format!("{} of {}", count(names.len()), quoted_name(&names[0])));
                    self.not_read.push(format!("not read are {sentence} ({what})"));
                }
                Group::Other(start) => {
                    self.in_short.push(format!("{} {start}…", count(names.len())));
                    self.not_read.push(format!("not read are {sentence}"));
                }
            }
        }
        if others > 0 {
            let s = if others == 1 { "" } else { "s" };
            self.in_short.push(format!("and {others} other kind{s}"));
            self.not_read.push(format!("not read are tensors of {others} other kind{s} in {file}"));
        }
    }
}

/// Which tensors of a file are read, by their numbers.
#[derive(Default)]
struct Wants {
    read: HashSet<usize>,
    /// Those that our graph has a place for but nothing is made of.
    unused: HashSet<usize>,
    /// Whether the VAE comes from another file.
    has_other_vae: bool,
}

/// The files of the weights, each once, with what is read of it.
fn wants_by_file(parts: &BTreeMap<ModelPart, PartFiles>) -> Vec<(Arc<TensorFile>, Wants)> {
    let mut files: Vec<Arc<TensorFile>> = Vec::new();
    let mut wants: HashMap<usize, Wants> = HashMap::new();
    // A tiny VAE's encoder lies beside its decoder, and nobody misses it.
    for files_of_part in parts.values().filter(|files| files.part() != ModelPart::TinyVae) {
        // Weights that cannot be read are an error where they are used.
        let Some(Ok(checkpoint)) = files_of_part.checkpoint() else { continue };
        let Ok(PartGraph::Weightless(graph)) = files_of_part.graph(GraphBuild::Cpu) else { continue };
        for file in checkpoint.shared_files() {
            if !files.iter().any(|known| Arc::ptr_eq(known, file)) {
                files.push(Arc::clone(file));
            }
        }
        for (name, _) in graph.wanted() {
            let Some((file, order)) = checkpoint.place(files_of_part.part(), name) else { continue };
            let Some(number) = files.iter().position(|known| Arc::ptr_eq(known, file)) else { continue };
            let wants = wants.entry(number).or_default();
            match files_of_part.needs(name) {
                true => wants.read.insert(order),
                false => wants.unused.insert(order),
            };
        }
    }
    let vae = parts.get(&ModelPart::VaeDecoder).and_then(|files| files.checkpoint()?.ok());
    let vae = vae.and_then(|vae| vae.place(ModelPart::VaeDecoder, "decoder.conv_in.weight"));
    let with_wants = files.into_iter().enumerate().map(|(number, file)| {
        let mut wants = wants.remove(&number).unwrap_or_default();
        wants.has_other_vae = vae.is_some_and(|(other, _)| !Arc::ptr_eq(other, &file));
        (file, wants)
    });
    with_wants.collect()
}

/// Tensors that one sentence tells of. Those that may change pictures come first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// By what they belong to.
    Foreign(String),
    /// By what their names begin with.
    Other(String),
    NotNeeded(String),
}

impl Group {
    fn of(name: &str, has_other_vae: bool) -> Self {
        let starts = |mark: &str| {
            name.starts_with(mark) || name.contains(&format!(".{}", mark.trim_start_matches('.')))
        };
        if let Some((_, why)) = NOT_NEEDED.iter().find(|(mark, _)| starts(mark)) {
            return Self::NotNeeded((*why).to_owned());
        }
        if has_other_vae && ["first_stage_model.", "vae."].iter().any(|start| name.starts_with(start)) {
            return Self::NotNeeded("another VAE is used".to_owned());
        }
        let foreign = FOREIGN.iter().find(|(mark, _)| starts(mark)).map(|(_, what)| (*what).to_owned());
        // The numbers of a LoRA have the names of its modules.
        let of_lora = || lora_kind(&[name.trim_end_matches("alpha").to_owned() + "lora_up.weight"]);
        let foreign = foreign.or_else(|| lora_kind(&[name.to_owned()]));
        match foreign
            .or_else(|| name.rsplit_once('.').is_some_and(|(_, end)| end == "alpha").then(of_lora).flatten())
        {
            Some(what) => Self::Foreign(what),
            None => Self::Other(quoted_name(name.split('.').next().unwrap_or(name))),
        }
    }
}

fn count(tensors: usize) -> String {
    if tensors == 1 { "1 tensor".to_owned() } else { format!("{tensors} tensors") }
}

/// Some of the names, and how many others there are.
fn listed(names: &[String]) -> String {
    let some = quoted_few(names, NAMES);
    match names.len().checked_sub(NAMES).filter(|others| *others > 0) {
        Some(others) => format!("{some} and {others} more"),
        None => some,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_told_apart_by_their_names() {
        for (name, group) in [
            ("model_ema.decay", "no"),
            ("cond_stage_model.transformer.text_model.embeddings.position_ids", "no"),
            ("first_stage_model.loss.discriminator.main.0.weight", "no"),
            ("first_stage_model.encoder.conv_in.weight", "no"),
            ("lora_unet_mid_block.alpha", "a LoRA: put"),
            ("control_model.zero_convs.0.0.bias", "a ControlNet"),
            ("model.diffusion_model.label_emb.0.0.weight", "model"),
        ] {
            let found = match Group::of(name, true) {
                Group::NotNeeded(_) => "no".to_owned(),
                Group::Foreign(what) => what,
                Group::Other(start) => start,
            };
            assert!(found.starts_with(group), "{name}: {found}");
        }
        assert!(matches!(Group::of("first_stage_model.encoder.conv_in.weight", false), Group::Other(_)));
    }

    #[test]
    fn many_kinds_are_counted_and_what_is_not_needed_is_not_among_them() {
        let kinds = |others: usize| {
            let mut groups =
                BTreeMap::from([(Group::NotNeeded(TRAINING.to_owned()), vec!["betas".to_owned()])]);
            groups.extend((0..others).map(|n| (Group::Other(format!("x{n}")), vec![format!("x{n}.a")])));
            let mut unread = Unread::default();
            unread.add_groups(groups, "fox.safetensors");
            assert_eq!(unread.not_needed.len(), 1);
            unread
        };
        let eight = kinds(8);
        assert_eq!((eight.not_read.len(), eight.in_short.len()), (8, 8), "{eight:?}");
        let ten = kinds(10);
        assert_eq!((ten.not_read.len(), ten.in_short.len()), (9, 9));
        assert_eq!(ten.in_short[8], "and 2 other kinds");
        assert_eq!(ten.not_read[8], "not read are tensors of 2 other kinds in fox.safetensors");
    }

    #[test]
    fn names_are_quoted_shortly() {
        let names: Vec<_> = (0..5).map(|number| format!("x{number}\n")).collect();
        assert_eq!(listed(&names), "x0\\n, x1\\n, x2\\n and 2 more");
    }
}
