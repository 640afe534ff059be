//! A variation of the picture that a seed gives: noise of another seed blended in, or noise drawn for another size.
//!
//! The words and the rules are A1111's (`modules/processing.py`, `modules/rng.py`).

use serde_json::{Value, json};

use super::reader::Reader;
use super::{GenerationInput, ImageSize, InputRules, MAX_PIXELS};
use crate::domain::JobId;

/// The fields that change a seed's noise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Variation {
    /// The seed of the noise that is blended into image 0; image i has `subseed + i`. None means a random seed.
    pub subseed: Option<u64>,
    /// How much of it is blended in, 0 to 1. Above 0, all images have the same seed.
    pub strength: f64,
    /// The size whose noise lies in the middle of the picture's noise.
    pub seed_resize: Option<ImageSize>,
    /// Whether opposite edges of the picture fit together.
    pub tiling: bool,
}

impl Variation {
    pub(super) const FIELDS: [&str; 5] =
        ["subseed", "subseed_strength", "seed_resize_width", "seed_resize_height", "tiling"];

    /// `size` is that of the picture; `keeps_picture` says that it is drawn into a larger one.
    pub(super) fn read(
        reader: &mut Reader,
        rules: &InputRules,
        (size, keeps_picture): (ImageSize, bool),
        warnings: &mut Vec<String>,
    ) -> Self {
        let subseed = reader.seed("subseed");
        let strength = reader.share("subseed_strength").unwrap_or(0.0);
        if reader.is_present("subseed") && strength <= 0.0 {
            warnings.push("subseed has no effect without subseed_strength.".to_owned());
        }
        let width = reader.side("seed_resize_width", rules.grid);
        let height = reader.side("seed_resize_height", rules.grid);
        let seed_resize = (width.is_some() || height.is_some())
            .then(|| ImageSize { width: width.unwrap_or(size.width), height: height.unwrap_or(size.height) });
        if let Some(ImageSize { width, height }) = seed_resize
            && u64::from(width) * u64::from(height) > u64::from(MAX_PIXELS)
        {
            reader.unmet(
                "seed_resize_width",
                &format!("seed_resize_width × seed_resize_height is {width} × {height}; at most {MAX_PIXELS} pixels are allowed."),
            );
        }
        let tiling = reader.flag("tiling").unwrap_or(false);
        if tiling && keeps_picture {
            reader.unmet(
                "tiling",
                "It cannot be combined with inpaint_area masked or outpaint, which draw into a larger picture.",
            );
        }
        Self { subseed: subseed.filter(|_| strength > 0.0), strength, seed_resize, tiling }
    }

    /// Whether it blends in another seed's noise.
    pub fn blends(&self) -> bool {
        self.strength > 0.0
    }

    /// The seed of image `index`, for the job's seed `seed`. (A1111's `all_seeds`.)
    pub fn seed_of(&self, seed: u64, index: u32) -> u64 {
        if self.blends() { seed } else { GenerationInput::seed_of(seed, index) }
    }

    /// The seed of the noise that is blended into image `index`, if any is. (A1111's `all_subseeds`.)
    pub fn subseed_of(&self, index: u32) -> Option<u64> {
        self.subseed.filter(|_| self.blends()).map(|subseed| GenerationInput::seed_of(subseed, index))
    }

    /// Takes the subseed from a job's id where it is a random one, so that each attempt draws the same pictures.
    #[must_use]
    pub fn with_subseed_of(mut self, job: &JobId) -> Self {
        if self.blends() {
            self.subseed = self.subseed.or(Some(job.random().into()));
        }
        self
    }

    /// Draws the subseed where it is a random one.
    pub fn with_drawn_subseed(mut self) -> Result<Self, getrandom::Error> {
        if self.blends() && self.subseed.is_none() {
            self.subseed = Some(GenerationInput::random_seed()?);
        }
        Ok(self)
    }

    /// Adds the fields that differ from the defaults to the request that draws image `index` again.
    pub(super) fn write_to(&self, request: &mut Value, index: u32) {
        if self.blends() {
            request["subseed"] = json!(self.subseed_of(index));
            request["subseed_strength"] = json!(self.strength);
        }
        if let Some(ImageSize { width, height }) = self.seed_resize {
            request["seed_resize_width"] = json!(width);
            request["seed_resize_height"] = json!(height);
        }
        if self.tiling {
            request["tiling"] = json!(true);
        }
    }

    /// The items of A1111's infotext, for image `index`.
    pub fn infotext(&self, index: u32) -> Vec<(&'static str, String)> {
        let mut items = Vec::new();
        if let Some(subseed) = self.subseed_of(index) {
            items.push(("Variation seed", subseed.to_string()));
            items.push(("Variation seed strength", self.strength.to_string()));
        }
        if let Some(ImageSize { width, height }) = self.seed_resize {
            items.push(("Seed resize from", format!("{width}x{height}")));
        }
        if self.tiling {
            items.push(("Tiling", "True".to_owned()));
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &Value) -> Result<GenerationInput, Vec<String>> {
        let mut request = json!({"prompt": "a fox"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        GenerationInput::parse(&request, &InputRules::default()).map_err(|violations| violations.0)
    }

    #[test]
    fn every_attempt_at_a_job_has_the_same_random_subseed() {
        let jobs = [(); 8].map(|()| JobId::new(crate::domain::JobKind::RunSync { waited: false }));
        let random = Variation { strength: 0.3, ..Variation::default() };
        let subseeds: Vec<_> = jobs.iter().map(|job| random.with_subseed_of(job).subseed.unwrap()).collect();
        let again: Vec<_> = jobs.iter().map(|job| random.with_subseed_of(job).subseed.unwrap()).collect();
        assert_eq!(subseeds, again);
        assert!(subseeds.iter().any(|subseed| *subseed != subseeds[0]), "{subseeds:?}");
        let asked = Variation { subseed: Some(7), ..random };
        assert_eq!(asked.with_subseed_of(&jobs[0]), asked);
        assert_eq!(Variation::default().with_subseed_of(&jobs[0]).subseed, None);
    }

    #[test]
    fn with_a_subseed_all_pictures_have_the_same_seed() {
        let fields = json!({"subseed": u64::MAX, "subseed_strength": 0.3, "num_outputs": 3, "seed_resize_width": 512,
            "seed_resize_height": 256});
        let input = parse(&fields).unwrap();
        let variation = input.variation;
        assert_eq!([0, 1].map(|index| variation.seed_of(7, index)), [7, 7]);
        assert_eq!([0, 1].map(|index| variation.subseed_of(index)), [Some(u64::MAX), Some(0)]);
        let again = input.request_for(7, 1);
        let expected = Variation { subseed: Some(0), ..variation };
        let redrawn = GenerationInput::parse(&again, &InputRules::default()).unwrap();
        assert_eq!((redrawn.seed, redrawn.variation), (Some(7), expected));
        let items: Vec<_> =
            variation.infotext(1).iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(items, ["Variation seed: 0", "Variation seed strength: 0.3", "Seed resize from: 512x256"]);
    }

    #[test]
    fn without_strength_a_subseed_does_nothing() {
        let input = parse(&json!({"subseed": 5})).unwrap();
        assert_eq!((input.variation, input.variation.seed_of(7, 1)), (Variation::default(), 8));
        assert_eq!(input.warnings, ["subseed has no effect without subseed_strength."]);
        assert!(input.variation.infotext(0).is_empty());
        assert_eq!(input.request_for(7, 0), GenerationInput::new("a fox").request_for(7, 0));
    }

    #[test]
    fn a_seed_may_stand_for_a_picture_of_another_width_alone() {
        let input = parse(&json!({"seed_resize_width": 256, "height": 640})).unwrap();
        assert_eq!(input.variation.seed_resize, Some(ImageSize { width: 256, height: 640 }));
    }

    #[test]
    fn a_random_subseed_is_drawn() {
        let random = parse(&json!({"subseed": -1, "subseed_strength": 1})).unwrap().variation;
        assert_eq!(random.subseed, None);
        assert!(random.with_drawn_subseed().unwrap().subseed < Some(65_536));
        let given = Variation { subseed: Some(3), ..random };
        assert_eq!(given.with_drawn_subseed().unwrap(), given);
    }

    #[test]
    fn bad_values_are_refused_in_a_sentence() {
        for (fields, sentence) in [
            (
                json!({"subseed_strength": 1.1}),
                "subseed_strength does not meet the constraints. It is 1.1; it must be from 0 to 1.",
            ),
            (
                json!({"seed_resize_height": 1024, "seed_resize_width": 1024}),
                "seed_resize_width does not meet the constraints. seed_resize_width × seed_resize_height is 1024 × 1024; at most 786432 pixels are allowed.",
            ),
            (
                json!({"tiling": true, "init_image": "https://a/b", "mask": "https://a/c", "inpaint_area": "masked"}),
                "tiling does not meet the constraints. It cannot be combined with inpaint_area masked or outpaint, which draw into a larger picture.",
            ),
            (json!({"tiling": 1}), "tiling should be bool type, not int."),
        ] {
            assert_eq!(parse(&fields).unwrap_err(), [sentence], "{fields}");
        }
    }
}
