//! What of a LoRA has no place in the model, for the log and for the text in pictures.

use super::super::quoted_few;

/// Names in one sentence.
const FEW: usize = 3;

const NO_CONFIG: &str = "its alpha (there is no adapter_config.json beside it: the strength is 1)";

/// What is left out. Nothing in most files.
#[derive(Debug, Default)]
pub struct Skipped {
    /// Modules that the model lacks.
    pub modules: Vec<String>,
    /// All modules of the file.
    pub of: usize,
    /// Tensors without a meaning, or for a bias that the model lacks.
    pub tensors: Vec<String>,
    /// Whether PEFT's configuration is missing, which states how strong the modules are.
    pub has_no_config: bool,
}

impl Skipped {
    /// `3 of 264 modules (…), 1 tensor (…)`. None where nothing was left out.
    pub fn text(&self) -> Option<String> {
        let modules = (!self.modules.is_empty())
            .then(|| format!("{} of {} modules ({})", self.modules.len(), self.of, first_few(&self.modules)));
        let tensors = (!self.tensors.is_empty()).then(|| {
            let s = if self.tensors.len() == 1 { "" } else { "s" };
            format!("{} tensor{s} ({})", self.tensors.len(), first_few(&self.tensors))
        });
        let alpha = self.has_no_config.then(|| NO_CONFIG.to_owned());
        let parts: Vec<String> = modules.into_iter().chain(tensors).chain(alpha).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// A few of many names, shortened, for a sentence.
pub fn first_few(names: &[String]) -> String {
    let more = if names.len() > FEW { ", …" } else { "" };
    format!("{}{more}", quoted_few(names, FEW))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(Skipped::default().text(), None);
        let skipped = Skipped {
            modules: names(&["a", "b", "c", "d"]),
            of: 9,
            tensors: names(&["x\u{7}"]),
            has_no_config: true,
        };
        assert_eq!(
            skipped.text().unwrap(),
            "4 of 9 modules (a, b, c, …), 1 tensor (x\\u{7}), its alpha (there is no adapter_config.json beside it: the \
             strength is 1)"
        );
    }
}
