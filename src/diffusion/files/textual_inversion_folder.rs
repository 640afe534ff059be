//! The folder with the operator's textual inversions. Each file is a word for prompts. The files are read on a thread of its
//! own.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, Listing};
use super::refreshed::Refreshed;
use super::textual_inversion::{TextualInversion, short_hash};
use crate::diffusion::text::{Learned, LearnedWords, Tokenizer};

/// In bytes. Larger files contain something else.
const LARGEST: u64 = 16 << 20;

/// A folder of textual inversions for one model, shared by all threads.
pub struct TextualInversionFolder {
    words: Refreshed<Words>,
}

/// The words of the files in a listing.
#[derive(Default)]
struct Words {
    read: Option<(Listing, Arc<LearnedWords>)>,
}

/// Reads files for one model.
struct Reader {
    tokenizer: Arc<Tokenizer>,
    /// The width of the model's own vectors.
    width: usize,
}

impl fmt::Debug for TextualInversionFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TextualInversionFolder").field(&self.words).finish()
    }
}

impl TextualInversionFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration, tokenizer: Arc<Tokenizer>, width: usize) -> Self {
        let (folder, reader) = (AddOnFolder::new(path, Duration::ZERO), Reader { tokenizer, width });
        let read = move |before: &Words| {
            let listing = folder.list();
            let same = before.read.as_ref().filter(|(read_at, _)| *read_at == listing);
            let words = same.map_or_else(|| Arc::new(reader.read(&listing)), |(_, words)| Arc::clone(words));
            Words { read: Some((listing, words)) }
        };
        Self { words: Refreshed::new(look_every, read) }
    }

    /// The words as of the last look at the folder.
    pub fn words(&self) -> Arc<LearnedWords> {
        let words = self.words.get();
        words.read.as_ref().map_or_else(|| Arc::new(LearnedWords::none()), |(_, words)| Arc::clone(words))
    }
}

impl Reader {
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
