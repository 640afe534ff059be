//! What is done to a picture before a ControlNet sees it. Most ControlNets were trained on maps: edges, depths, poses.
//!
//! Only preprocessors without a network of their own are here. The names that the ControlNet extension of A1111 uses
//! (`module`) mean the same ones. The pixels are changed in `diffusion::image::preprocess`.

/// A preprocessor without a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preprocessor {
    /// The picture is a map already.
    None,
    /// White edges on black, as OpenCV's Canny finds them.
    Canny,
    /// The negative: black lines on white become white lines on black.
    Invert,
    /// The picture itself, made smaller by a factor, for ControlNets that draw its details again.
    Tile,
    /// The picture's contents, moved about at random.
    Shuffle,
    /// A Gaussian blur.
    Blur,
    /// Lightness (L of CIE Lab), as grey.
    Luminance,
    /// The largest of red, green and blue, as grey.
    Intensity,
    /// White where all of red, green and blue are above a value, otherwise black.
    Threshold,
}

/// A number that a preprocessor takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// What it says, for people.
    pub meaning: &'static str,
    pub min: f32,
    pub max: f32,
    pub default: f32,
}

/// The beginnings of the names of preprocessors that need a network.
const WITH_NETWORKS: [&str; 27] = [
    "animal_openpose",
    "anime_face_segment",
    "clip_vision",
    "densepose",
    "depth",
    "dw_openpose",
    "facexlib",
    "hed",
    "inpaint",
    "instant_id",
    "ip-adapter",
    "leres",
    "lineart",
    "mediapipe",
    "midas",
    "mlsd",
    "normal",
    "oneformer",
    "openpose",
    "pidi",
    "reference",
    "revision",
    "scribble",
    "seg",
    "softedge",
    "te_hed",
    "zoe",
];

impl Preprocessor {
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Canny,
        Self::Invert,
        Self::Tile,
        Self::Shuffle,
        Self::Blur,
        Self::Luminance,
        Self::Intensity,
        Self::Threshold,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Canny => "canny",
            Self::Invert => "invert",
            Self::Tile => "tile",
            Self::Shuffle => "shuffle",
            Self::Blur => "blur",
            Self::Luminance => "luminance",
            Self::Intensity => "intensity",
            Self::Threshold => "threshold",
        }
    }

    /// What A1111's extension calls it.
    pub const fn a1111_name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Canny => "canny",
            Self::Invert => "invert (from white bg & black line)",
            Self::Tile => "tile_resample",
            Self::Shuffle => "shuffle",
            Self::Blur => "blur_gaussian",
            Self::Luminance => "recolor_luminance",
            Self::Intensity => "recolor_intensity",
            Self::Threshold => "threshold",
        }
    }

    /// The preprocessor of this name. The error is a sentence about the name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let known = |kind: &Self| {
            [kind.as_str(), kind.a1111_name()].iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        if let Some(kind) = Self::ALL.into_iter().find(known) {
            return Ok(kind);
        }
        let shown: String = name.chars().take(32).collect();
        let bare = name.to_ascii_lowercase();
        if WITH_NETWORKS.iter().any(|start| bare.starts_with(start)) {
            return Err(format!(
                "It is {shown:?}, which needs a network that this server does not have: make the map with another program, \
                 and send it with preprocess none."
            ));
        }
        let all = Self::ALL.map(Self::as_str).join(", ");
        Err(format!("It is {shown:?}; it must be one of {all}."))
    }

    /// The numbers that it takes: `threshold_a`, then `threshold_b`. The ranges and defaults are those of A1111's extension.
    pub const fn thresholds(self) -> [Option<Threshold>; 2] {
        const fn one(meaning: &'static str, min: f32, max: f32, default: f32) -> Threshold {
            Threshold { meaning, min, max, default }
        }
        match self {
            Self::Canny => [
                Some(one("the low threshold of an edge", 1.0, 255.0, 100.0)),
                Some(one("the high threshold of an edge", 1.0, 255.0, 200.0)),
            ],
            Self::Tile => [Some(one("the factor by which the picture is made smaller", 1.0, 8.0, 1.0)), None],
            Self::Blur => [Some(one("the deviation in pixels", 0.01, 64.0, 9.0)), None],
            Self::Luminance | Self::Intensity => [Some(one("the exponent (gamma)", 0.1, 2.0, 1.0)), None],
            Self::Threshold => [Some(one("the value", 0.0, 255.0, 127.0)), None],
            Self::None | Self::Invert | Self::Shuffle => [None, None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_its_preprocessor_and_those_with_networks_are_refused_by_name() {
        for kind in Preprocessor::ALL {
            assert_eq!(Preprocessor::parse(kind.as_str()), Ok(kind));
            assert_eq!(Preprocessor::parse(kind.a1111_name()), Ok(kind));
            for threshold in kind.thresholds().into_iter().flatten() {
                assert!((threshold.min..=threshold.max).contains(&threshold.default));
            }
        }
        assert_eq!(Preprocessor::parse("None"), Ok(Preprocessor::None), "as A1111's page shows it");
        for name in ["openpose_full", "depth_midas", "lineart_realistic", "softedge_hed"] {
            let sentence = Preprocessor::parse(name).unwrap_err();
            assert!(sentence.contains(name) && sentence.contains("preprocess none"), "{sentence}");
        }
        assert!(Preprocessor::parse("cany").unwrap_err().contains("one of none, canny"));
    }
}
