//! What a client may ask the model for, parsed and bounded once.

use serde_json::{Map, Value};

use super::SchedulerKind;

/// The longest prompt taken, in bytes; the model itself reads far less.
pub const MAX_PROMPT_BYTES: usize = 65_536;
pub const MAX_OUTPUTS: u32 = 10;
/// The largest `width × height`.
pub const MAX_PIXELS: u32 = 786_432;
const MIN_SIDE: u32 = 64;
const MAX_STEPS: u32 = 500;

/// The size of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    pub width: u32,
    pub height: u32,
}

/// One valid request for pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationInput {
    pub prompt: String,
    pub negative_prompt: String,
    pub size: ImageSize,
    pub num_outputs: u32,
    pub num_inference_steps: u32,
    pub guidance_scale: f32,
    pub scheduler: SchedulerKind,
    /// Of image 0; image i has `seed + i`. Absent: to be drawn.
    pub seed: Option<u64>,
}

/// What a model can be asked for, and what it does where a request is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputRules {
    /// Width and height are multiples of this many pixels.
    pub grid: u32,
    /// Draws where the request names no scheduler.
    pub scheduler: SchedulerKind,
}

impl Default for InputRules {
    /// Stable Diffusion v1's, as the hosted worker had it.
    fn default() -> Self {
        Self { grid: 64, scheduler: SchedulerKind::KLms }
    }
}

/// Everything that is wrong with a request, in the hosted worker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join(" "))]
pub struct Violations(pub Vec<String>);

impl GenerationInput {
    /// The hosted worker's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            size: ImageSize { width: 512, height: 512 },
            num_outputs: 1,
            num_inference_steps: 50,
            guidance_scale: 7.5,
            scheduler: SchedulerKind::KLms,
            seed: None,
        }
    }

    /// Reads the `input` of a request. `null` means the default; every violation is collected.
    pub fn parse(input: &Value, rules: InputRules) -> Result<Self, Violations> {
        let Some(fields) = input.as_object() else {
            return Err(Violations(vec!["input should be an object.".to_owned()]));
        };
        let mut reader = Reader { fields, violations: Vec::new() };
        let defaults = Self::new("");

        reader.refuse_unknown();
        let prompt = reader.text("prompt");
        if prompt.is_none() && !reader.present("prompt") {
            reader.violations.push("prompt is a required input.".to_owned());
        }
        let negative_prompt = reader.text("negative_prompt");
        let width = reader.side("width", rules.grid).unwrap_or(defaults.size.width);
        let height = reader.side("height", rules.grid).unwrap_or(defaults.size.height);
        if u64::from(width) * u64::from(height) > u64::from(MAX_PIXELS) {
            reader.unmet(
                "width",
                &format!("width × height is {width} × {height}; at most {MAX_PIXELS} pixels are drawn."),
            );
        }
        let num_outputs = reader.integer("num_outputs", 1, u64::from(MAX_OUTPUTS));
        let num_inference_steps = reader.integer("num_inference_steps", 1, u64::from(MAX_STEPS));
        let guidance_scale =
            reader.number("guidance_scale", "above 0 and at most 20", |g| g > 0.0 && g <= 20.0);
        let scheduler = reader.scheduler();
        let seed = reader.integer("seed", 0, u64::MAX);
        reader.read_later();

        if !reader.violations.is_empty() {
            return Err(Violations(reader.violations));
        }
        Ok(Self {
            prompt: prompt.unwrap_or_default(),
            negative_prompt: negative_prompt.unwrap_or_default(),
            size: ImageSize { width, height },
            num_outputs: num_outputs.map_or(defaults.num_outputs, small),
            num_inference_steps: num_inference_steps.map_or(defaults.num_inference_steps, small),
            guidance_scale: guidance_scale.unwrap_or(defaults.guidance_scale),
            scheduler: scheduler.unwrap_or(rules.scheduler),
            seed,
        })
    }

    /// A seed for who names none: 16 bits, as the hosted worker drew them
    /// (`int.from_bytes(os.urandom(2), "big")`).
    pub fn random_seed() -> Result<u64, getrandom::Error> {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes)?;
        Ok(u64::from(u16::from_be_bytes(bytes)))
    }

    /// The seed that reproduces image `index` alone.
    pub fn seed_of(seed: u64, index: u32) -> u64 {
        seed.wrapping_add(u64::from(index))
    }
}

/// A bounded integer, which by its bounds fits.
fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

const FIELDS: [&str; 16] = [
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "num_outputs",
    "num_inference_steps",
    "guidance_scale",
    "scheduler",
    "seed",
    "init_image",
    "mask",
    "mask_invert",
    "prompt_strength",
    "nsfw",
    "lora",
    "lora_scale",
];

/// Takes typed values out of a JSON object and notes what is wrong with them.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    violations: Vec<String>,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn present(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn unmet(&mut self, name: &str, constraint: &str) {
        self.violations.push(format!("{name} does not meet the constraints. {constraint}"));
    }

    fn mistyped(&mut self, name: &str, wanted: &str) {
        let found = self.get(name).map_or("NoneType", python_type);
        self.violations.push(format!("{name} should be {wanted} type, not {found}."));
    }

    fn refuse_unknown(&mut self) {
        for name in self.fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
            let name: String = name.chars().take(64).collect();
            self.violations.push(format!("Unexpected input. {name} is not a valid input option."));
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let Value::String(text) = self.get(name)? else {
            self.mistyped(name, "str");
            return None;
        };
        let text = text.clone();
        if text.len() > MAX_PROMPT_BYTES {
            self.unmet(name, &format!("It has {} bytes; at most {MAX_PROMPT_BYTES} are read.", text.len()));
        }
        Some(text)
    }

    fn integer(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.get(name)?;
        if let Some(value) = value.as_u64().filter(|value| (min..=max).contains(value)) {
            return Some(value);
        }
        let shown = shown(value);
        if value.is_u64() || value.is_i64() || is_whole(value) {
            self.unmet(name, &format!("It is {shown}; it must be a whole number from {min} to {max}."));
        } else {
            self.mistyped(name, "int");
        }
        None
    }

    fn side(&mut self, name: &str, grid: u32) -> Option<u32> {
        let side = small(self.integer(name, u64::from(MIN_SIDE), u64::from(MAX_PIXELS / MIN_SIDE))?);
        if side.is_multiple_of(grid) {
            return Some(side);
        }
        self.unmet(name, &format!("It is {side}; this model draws multiples of {grid}."));
        None
    }

    fn number(&mut self, name: &str, bounds: &str, met: impl Fn(f32) -> bool) -> Option<f32> {
        let Some(value) = self.get(name)?.as_f64() else {
            self.mistyped(name, "float");
            return None;
        };
        #[allow(clippy::cast_possible_truncation)] // the bounds are checked on the f32
        let number = value as f32;
        if met(number) {
            return Some(number);
        }
        self.unmet(name, &format!("It is {value}; it must be {bounds}."));
        None
    }

    fn scheduler(&mut self) -> Option<SchedulerKind> {
        let Some(name) = self.get("scheduler")?.as_str() else {
            self.mistyped("scheduler", "str");
            return None;
        };
        let scheduler = SchedulerKind::parse(name);
        if scheduler.is_none() {
            let known = SchedulerKind::ALL.map(SchedulerKind::as_str).join(", ");
            self.unmet("scheduler", &format!("It must be one of {known}."));
        }
        scheduler
    }

    /// The contract's fields whose engine is not there yet: checked, then refused by name.
    fn read_later(&mut self) {
        self.number("prompt_strength", "from 0 to 1", |s| (0.0..=1.0).contains(&s));
        self.number("lora_scale", "from 0 to 1", |s| (0.0..=1.0).contains(&s));
        for name in ["nsfw", "mask_invert"] {
            if self.get(name).is_some_and(|value| !value.is_boolean()) {
                self.mistyped(name, "bool");
            }
        }
        for name in ["init_image", "mask", "lora"] {
            match self.get(name) {
                None => {}
                Some(Value::String(_)) => {
                    self.violations.push(format!("{name} is not supported by this model yet."));
                }
                Some(_) => self.mistyped(name, "str"),
            }
        }
    }
}

/// A value as an error sentence shows it: short.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(32).collect()
}

/// A number without a fraction that no 64-bit integer holds.
fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() >= 9.0e15)
}

/// The type's name in the hosted worker's sentences, which were Python's.
fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn violations(input: &Value) -> Vec<String> {
        GenerationInput::parse(input, InputRules::default()).unwrap_err().0
    }

    #[test]
    fn a_prompt_alone_gets_the_hosted_defaults() {
        let input = GenerationInput::parse(&json!({"prompt": "a dog"}), InputRules::default()).unwrap();
        assert_eq!(input, GenerationInput::new("a dog"));
        assert_eq!((input.size.width, input.num_inference_steps), (512, 50));
        assert_eq!(input.scheduler, SchedulerKind::KLms);
    }

    #[test]
    fn null_means_the_default() {
        let nulls: Map<String, Value> = FIELDS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        let mut fields = nulls.clone();
        fields.insert("prompt".to_owned(), json!("a dog"));
        assert_eq!(
            GenerationInput::parse(&fields.into(), InputRules::default()).unwrap(),
            GenerationInput::new("a dog")
        );
        assert_eq!(violations(&nulls.into()), ["prompt is a required input."]);
    }

    #[test]
    fn every_violation_is_named_at_once() {
        assert_eq!(
            violations(&json!({
                "size": 3, "num_outputs": 11, "width": "wide", "height": 500, "guidance_scale": 0,
                "scheduler": "DDIMM", "seed": -1, "num_inference_steps": 2.5, "init_image": "aGk=",
            })),
            [
                "Unexpected input. size is not a valid input option.",
                "prompt is a required input.",
                "width should be int type, not str.",
                "height does not meet the constraints. It is 500; this model draws multiples of 64.",
                "num_outputs does not meet the constraints. It is 11; it must be a whole number from 1 to 10.",
                "num_inference_steps should be int type, not float.",
                "guidance_scale does not meet the constraints. It is 0; it must be above 0 and at most 20.",
                "scheduler does not meet the constraints. It must be one of DDIM, DDPM, DPM-M, DPM-S, EULER-A, \
                 EULER-D, HEUN, IPNDM, KDPM2-A, KDPM2-D, K-LMS, LCM, PNDM, UNIPC.",
                "seed does not meet the constraints. It is -1; it must be a whole number from 0 to 18446744073709551615.",
                "init_image is not supported by this model yet.",
            ]
        );
    }

    #[test]
    fn bounds_hold_at_their_edges() {
        let ok = |input: Value| GenerationInput::parse(&input, InputRules::default()).unwrap();
        let input =
            ok(json!({"prompt": "", "seed": u64::MAX, "guidance_scale": 20, "num_inference_steps": 500,
            "num_outputs": 10, "width": 1024, "height": 768, "prompt_strength": 1, "nsfw": true}));
        assert_eq!(input.seed, Some(u64::MAX));
        assert_eq!(violations(&json!({"prompt": "", "width": 1024, "height": 1024})).len(), 1);
        assert_eq!(violations(&json!({"prompt": "", "seed": 18_446_744_073_709_551_616.0})).len(), 1);
        assert_eq!(violations(&json!({"prompt": "a".repeat(MAX_PROMPT_BYTES + 1)})).len(), 1);
        assert_eq!(violations(&json!({"prompt": "", "width": 0})).len(), 1);
        assert_eq!(
            violations(&json!({"prompt": "", "num_outputs": true})),
            ["num_outputs should be int type, not bool."]
        );
    }

    #[test]
    fn every_documented_scheduler_name_is_known() {
        for (name, kind) in [
            ("K-LMS", SchedulerKind::KLms),
            ("KLMS", SchedulerKind::KLms),
            ("K_EULER", SchedulerKind::EulerD),
            ("DPMSolverMultistep", SchedulerKind::DpmM),
        ] {
            let input =
                GenerationInput::parse(&json!({"prompt": "", "scheduler": name}), InputRules::default())
                    .unwrap();
            assert_eq!(input.scheduler, kind);
        }
    }

    #[test]
    fn a_model_may_have_a_scheduler_of_its_own_choice() {
        let rules = InputRules { scheduler: SchedulerKind::EulerD, ..InputRules::default() };
        let scheduler = |input: Value| GenerationInput::parse(&input, rules).unwrap().scheduler;
        assert_eq!(scheduler(json!({"prompt": ""})), SchedulerKind::EulerD);
        assert_eq!(scheduler(json!({"prompt": "", "scheduler": "K-LMS"})), SchedulerKind::KLms);
    }

    #[test]
    fn what_is_no_object_is_one_sentence() {
        assert_eq!(violations(&json!([1])), ["input should be an object."]);
    }
}
