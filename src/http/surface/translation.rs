//! The `input` of a job under construction, in our own words. It remembers by which names the client sent its fields, so
//! that a refusal names those.

use serde_json::{Map, Number, Value};

use super::{Dialect, FieldError, Fields};
use crate::domain::{GenerationInput, JobKind, NewJob, Policy, Violations};
use crate::http::request::{ApiError, ServedEndpoint};

/// The seed that means a random one.
const RANDOM_SEED: i128 = -1;

/// An `input`, field by field.
#[derive(Debug, Default, Clone)]
pub struct Translation {
    input: Map<String, Value>,
    /// Our name of each field, and the client's.
    sent_as: Vec<(&'static str, String)>,
}

impl Translation {
    /// Sets a field to a value that the client did not send as such.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.input.insert(name.to_owned(), value.into());
    }

    /// Sets a field to what the client sent as `sent_as`. The last one to set a field is the one whose value counts.
    pub fn set_from(&mut self, name: &'static str, sent_as: &str, value: impl Into<Value>) {
        self.set(name, value);
        self.sent_as(name, sent_as);
    }

    /// Says by which name the client sent a field of an object, such as `upscale.scale`.
    pub fn sent_as(&mut self, name: &'static str, sent_as: &str) {
        self.sent_as.retain(|(known, _)| *known != name);
        self.sent_as.push((name, sent_as.to_owned()));
    }

    /// What a field is set to.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.input.get(name)
    }

    pub fn text(&mut self, name: &'static str, fields: &Fields, names: &[&str]) -> Result<(), FieldError> {
        self.copy(name, fields, names, fields.text(names)?);
        Ok(())
    }

    pub fn number(&mut self, name: &'static str, fields: &Fields, names: &[&str]) -> Result<(), FieldError> {
        self.copy(name, fields, names, fields.number(names)?);
        Ok(())
    }

    pub fn flag(&mut self, name: &'static str, fields: &Fields, names: &[&str]) -> Result<(), FieldError> {
        self.copy(name, fields, names, fields.flag(names)?);
        Ok(())
    }

    pub fn integer(&mut self, name: &'static str, fields: &Fields, names: &[&str]) -> Result<(), FieldError> {
        self.copy(name, fields, names, fields.integer(names)?.map(number));
        Ok(())
    }

    /// A seed; −1 means a random one.
    pub fn seed(&mut self, fields: &Fields, names: &[&str]) -> Result<(), FieldError> {
        let seed = fields.integer(names)?.filter(|seed| *seed != RANDOM_SEED);
        self.copy("seed", fields, names, seed.map(number));
        Ok(())
    }

    fn copy(&mut self, name: &'static str, fields: &Fields, names: &[&str], value: Option<impl Into<Value>>) {
        if let (Some(sent_as), Some(value)) = (fields.name_of(names), value) {
            self.set_from(name, sent_as, value);
        }
    }

    /// The job for this endpoint, if its model accepts the input. Blocks for as long as it takes to decode pictures.
    pub fn into_job<D: Dialect>(self, endpoint: &ServedEndpoint, kind: JobKind) -> Result<NewJob, D::Error> {
        let Self { input, sent_as } = self;
        let input = Value::Object(input);
        let parsed = GenerationInput::parse(&input, &endpoint.rules)
            .map_err(|violations| in_client_words(violations, &sent_as))?;
        let seed = match parsed.seed {
            Some(seed) => seed,
            None => GenerationInput::random_seed().map_err(|error| {
                tracing::error!(%error, "the system gives no random numbers");
                ApiError::Internal
            })?,
        };
        parsed
            .check_drawn(seed, &endpoint.rules)
            .map_err(|violations| in_client_words(violations, &sent_as))?;
        Ok(NewJob {
            endpoint: endpoint.id.clone(),
            kind,
            input: input.to_string(),
            seed,
            policy: Policy::default(),
            s3_config: None,
            once: None,
            webhook: None,
            finish: None,
            trace: None,
        })
    }
}

/// An integer as JSON. One that JSON's integers cannot hold is out of every field's bounds, as a float too.
#[expect(clippy::cast_precision_loss, reason = "it is refused")]
fn number(value: i128) -> Value {
    Number::from_i128(value).map_or_else(|| Value::from(value as f64), Value::Number)
}

/// Violations begin with the name of their field.
fn in_client_words(violations: Violations, sent_as: &[(&'static str, String)]) -> FieldError {
    let mut field = None;
    let sentences: Vec<String> = violations
        .0
        .into_iter()
        .map(|sentence| {
            let (first, rest) = sentence.split_once(' ').unwrap_or((&sentence, ""));
            let sent = sent_as.iter().find(|(name, _)| *name == first).map(|(_, sent)| sent.as_str());
            let known = sent.or_else(|| GenerationInput::FIELDS.into_iter().find(|name| *name == first));
            field = field.take().or_else(|| known.map(str::to_owned));
            sent.map_or_else(|| sentence.clone(), |sent| format!("{sent} {rest}"))
        })
        .collect();
    FieldError::new(field.unwrap_or_default(), sentences.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{EndpointId, InputRules};

    fn fields(value: &Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    fn endpoint() -> ServedEndpoint {
        ServedEndpoint {
            id: EndpointId::default(),
            rules: InputRules::default(),
            model: "tiny-sd".to_owned(),
        }
    }

    /// A surface whose errors are plain text.
    struct Plain;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}|{1}")]
    struct PlainError(String, String);

    impl actix_web::ResponseError for PlainError {}

    impl From<ApiError> for PlainError {
        fn from(error: ApiError) -> Self {
            Self(String::new(), error.to_string())
        }
    }

    impl From<FieldError> for PlainError {
        fn from(error: FieldError) -> Self {
            Self(error.field, error.sentence)
        }
    }

    impl Dialect for Plain {
        const SURFACE: crate::http::request::Surface = crate::http::request::Surface::OpenAi;
        type Error = PlainError;
    }

    #[test]
    fn a_job_has_the_input_in_our_words() {
        let fields =
            fields(&json!({"prompt": "a fox", "steps": "20", "cfg": 4.5, "seed": -1, "nsfw": "true"}));
        let mut translation = Translation::default();
        translation.text("prompt", &fields, &["prompt"]).unwrap();
        translation.integer("num_inference_steps", &fields, &["num_inference_steps", "steps"]).unwrap();
        translation.number("guidance_scale", &fields, &["cfg"]).unwrap();
        translation.seed(&fields, &["seed"]).unwrap();
        translation.flag("nsfw", &fields, &["nsfw"]).unwrap();
        translation.integer("clip_skip", &fields, &["clip_skip"]).unwrap();
        let job = translation.into_job::<Plain>(&endpoint(), JobKind::Run).unwrap();
        let input =
            json!({"prompt": "a fox", "num_inference_steps": 20, "guidance_scale": 4.5, "nsfw": true});
        assert_eq!(serde_json::from_str::<Value>(&job.input).unwrap(), input);
        assert!(job.seed < 65_536);
    }

    #[test]
    fn a_refusal_names_the_fields_as_the_client_sent_them() {
        let fields = fields(&json!({"steps": 0, "cfg": 99, "seed": -2}));
        let mut translation = Translation::default();
        translation.set("prompt", "a fox");
        translation.integer("num_inference_steps", &fields, &["steps"]).unwrap();
        translation.number("guidance_scale", &fields, &["cfg"]).unwrap();
        translation.seed(&fields, &["seed"]).unwrap();
        let error = translation.into_job::<Plain>(&endpoint(), JobKind::Run).unwrap_err().to_string();
        assert!(error.starts_with("steps|steps does not meet the constraints. It is 0;"), "{error}");
        assert!(error.contains(" cfg does not meet the constraints.") && error.contains(" seed "), "{error}");
        assert!(!error.contains("num_inference_steps") && !error.contains("guidance_scale"), "{error}");
    }
}
