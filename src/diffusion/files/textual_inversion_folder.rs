//! The folder with the operator's textual inversions. Each file is a word for prompts.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, Listing};
use super::textual_inversion::{TextualInversion, short_hash};
use crate::diffusion::text::{Learned, LearnedWords, Tokenizer};

/// In bytes. Larger files contain something else.
const LARGEST: u64 = 16 << 20;

/// A folder of textual inversions for one model, shared by all threads.
pub struct TextualInversionFolder {
    folder: AddOnFolder,
    tokenizer: Arc<Tokenizer>,
    /// The width of the model's own vectors.
    width: usize,
    read: Mutex<Option<(Listing, Arc<LearnedWords>)>>,
}

impl fmt::Debug for TextualInversionFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TextualInversionFolder").field(&self.folder).finish()
    }
}

impl TextualInversionFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration, tokenizer: Arc<Tokenizer>, width: usize) -> Self {
        Self { folder: AddOnFolder::new(path, look_every), tokenizer, width, read: Mutex::new(None) }
    }

    /// The words as of the last look at the folder.
    pub fn words(&self) -> Arc<LearnedWords> {
        let listing = self.folder.list();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, words)) = read.as_ref().filter(|(read_at, _)| *read_at == listing) {
            return Arc::clone(words);
        }
        let words = Arc::new(self.read(&listing));
        *read = Some((listing, Arc::clone(&words)));
        words
    }

    fn read(&self, listing: &Listing) -> LearnedWords {
        // Of two files for one word, the first in the listing wins.
        let mut files: HashMap<&str, &AddOnFile> = HashMap::new();
        let mut learned = Vec::new();
        for file in listing.values() {
            if files.insert(file.stem(), file).is_none() {
                learned.push(self.learned(file));
            }
        }
        LearnedWords::new(learned, self.width, &self.tokenizer).unwrap_or_else(|error| {
            tracing::error!(%error, "the textual inversions' words cannot be read");
            LearnedWords::none()
        })
    }

    fn learned(&self, file: &AddOnFile) -> Learned {
        let read = || {
            if file.bytes > LARGEST {
                return Err(format!(
                    "its size is {} MB, too large for a textual inversion",
                    file.bytes >> 20
                ));
            }
            TextualInversion::read(&file.path, self.width, self.tokenizer.room())
        };
        let mut names = vec![file.stem().to_owned()];
        let vectors = match read() {
            Ok(TextualInversion { word, vectors }) => {
                names.extend(word.filter(|word| word != file.stem()));
                Ok(vectors)
            }
            Err(reason) => {
                tracing::warn!(file = file.file_name(), "this textual inversion cannot be used: {reason}");
                Err(format!("The textual inversion {} cannot be used: {reason}.", file.file_name()))
            }
        };
        let hash = if vectors.is_ok() { short_hash(&file.path, 0) } else { String::new() };
        Learned { names, hash, vectors }
    }
}
