//! Where `generate` puts its pictures. The name of the file chooses the format.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::diffusion::{Picture, PictureFile};

/// What `-o` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Output {
    /// One PNG.
    Stdout,
    File {
        path: PathBuf,
        format: PictureFile,
    },
}

impl Output {
    pub fn parse(name: OsString) -> Result<Self, String> {
        if name == "-" {
            return Ok(Self::Stdout);
        }
        let path = PathBuf::from(name);
        // Said before anything is drawn.
        if let Some(folder) =
            path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        {
            return Err(format!("there is no folder {}", folder.display()));
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let format = match extension.as_deref() {
            None | Some("png") => PictureFile::Png,
            Some("jpg" | "jpeg") => PictureFile::Jpeg,
            Some("webp") => PictureFile::WebP,
            Some(_) => return Err("the name must end in .png, .jpg or .webp".to_owned()),
        };
        Ok(Self::File { path, format })
    }

    /// Writes picture `index` of `count`. Returns the path of the file.
    pub fn write(&self, picture: &Picture, index: usize, count: usize) -> Result<Option<PathBuf>, Failure> {
        let Self::File { path, format } = self else {
            io::stdout().write_all(&picture.png).map_err(|error| cannot_write("standard output", &error))?;
            return Ok(None);
        };
        let path = numbered(path, index, count);
        let place = path.display().to_string();
        let file = picture.file(*format)?;
        if !file.has_texts {
            eprintln!("stablehand: {place} has no parameters inside: the prompt is too long for a JPEG");
        }
        fs::write(&path, &file.bytes).map_err(|error| cannot_write(&place, &error))?;
        Ok(Some(path))
    }
}

fn cannot_write(place: &str, error: &io::Error) -> Failure {
    Failure::Other(format!("cannot write {place}: {error}"))
}

/// `fox.png` for one picture; `fox-0.png`, `fox-1.png`, … for several.
fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    // Names need not be UTF-8.
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{index}."));
    name.push(path.extension().unwrap_or(OsStr::new("png")));
    path.with_file_name(name)
}
