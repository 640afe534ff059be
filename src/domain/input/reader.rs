//! Reads typed values from a request's `input`, and collects errors in the hosted worker's words. The caller knows the
//! fields and their meaning.

use serde_json::{Map, Value};

use super::{MAX_PIXELS, MIN_SIDE, Violations};

/// How much of a value an error sentence shows, in characters.
const LONGEST_SHOWN: usize = 32;
/// The most unknown fields that are named.
const MOST_NAMED: usize = 20;
/// The seeds, for error sentences.
const SEEDS: &str = "a whole number from 0 to 18446744073709551615, or -1 for a random one";

/// The sentence about a field that is not as it should be.
pub(super) fn unmet(name: &str, constraint: &str) -> String {
    format!("{name} does not meet the constraints. {constraint}")
}

/// The fields of a request, and the violations so far.
pub(super) struct Reader<'a> {
    fields: &'a Map<String, Value>,
    /// What goes before its names in sentences, where it reads an object within another.
    prefix: String,
    violations: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, prefix: String::new(), violations: Vec::new() }
    }

    /// Fails if there was any violation.
    pub fn finish(self) -> Result<(), Violations> {
        if self.violations.is_empty() { Ok(()) } else { Err(Violations(self.violations)) }
    }

    /// Reads the object in the field `name`. Sentences name its fields `name.field`.
    pub fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let Some(fields) = self.get(name)?.as_object() else {
            self.mistyped(name, "dict");
            return None;
        };
        let prefix = format!("{}{name}.", self.prefix);
        let mut inner = Self { fields, prefix, violations: std::mem::take(&mut self.violations) };
        let read = read(&mut inner);
        self.violations = inner.violations;
        Some(read)
    }

    pub fn violation(&mut self, sentence: String) {
        self.violations.push(sentence);
    }

    pub fn unmet(&mut self, name: &str, constraint: &str) {
        self.violation(unmet(&format!("{}{name}", self.prefix), constraint));
    }

    pub fn refuse_unknown(&mut self, known: &[&str]) {
        let unknown = || self.fields.keys().filter(|name| !known.contains(&name.as_str()));
        let more = unknown().count().saturating_sub(MOST_NAMED);
        let named = unknown().take(MOST_NAMED).map(|name| {
            let name: String = name.chars().take(64).collect();
            format!("Unexpected input. {}{name} is not a valid input option.", self.prefix)
        });
        self.violations.extend(named);
        if more > 0 {
            self.violations.push(format!("Unexpected input. {more} more are not valid input options."));
        }
    }

    pub fn required_string(&mut self, name: &str) -> Option<&'a str> {
        if self.get(name).is_none() {
            self.violation(format!("{name} is a required input."));
        }
        self.string(name)
    }

    pub fn string(&mut self, name: &str) -> Option<&'a str> {
        let text = self.get(name)?.as_str();
        if text.is_none() {
            self.mistyped(name, "str");
        }
        text
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let flag = self.get(name)?.as_bool();
        if flag.is_none() {
            self.mistyped(name, "bool");
        }
        flag
    }

    pub fn integer(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
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

    /// An integer as it was sent, if it is one. Another call says what is wrong with it.
    pub fn peek(&self, name: &str) -> Option<u64> {
        self.get(name)?.as_u64()
    }

    /// A seed. It is None if it is absent or -1, which both mean a random one.
    pub fn seed(&mut self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        if value.as_i64() == Some(-1) {
            return None;
        }
        if value.is_i64() && !value.is_u64() {
            let shown = shown(value);
            self.unmet(name, &format!("It is {shown}; it must be {SEEDS}."));
            return None;
        }
        self.integer(name, 0, u64::MAX)
    }

    pub fn side(&mut self, name: &str, grid: u32) -> Option<u32> {
        let side = small(self.integer(name, u64::from(MIN_SIDE), u64::from(MAX_PIXELS / MIN_SIDE))?);
        if side.is_multiple_of(grid) {
            return Some(side);
        }
        self.unmet(name, &format!("It is {side}; it must be a multiple of {grid}."));
        None
    }

    #[expect(clippy::cast_possible_truncation, reason = "`met` checks the f32")]
    pub fn number(&mut self, name: &str, bounds: &str, met: impl Fn(f32) -> bool) -> Option<f32> {
        self.double(name, bounds, |number| met(number as f32)).map(|number| number as f32)
    }

    pub fn double(&mut self, name: &str, bounds: &str, met: impl Fn(f64) -> bool) -> Option<f64> {
        let value = self.get(name)?;
        let Some(number) = value.as_f64() else {
            self.mistyped(name, "float");
            return None;
        };
        if met(number) {
            return Some(number);
        }
        self.unmet(name, &format!("It is {}; it must be {bounds}.", shown(value)));
        None
    }

    /// A number from 0 to 1.
    pub fn share(&mut self, name: &str) -> Option<f64> {
        self.double(name, "from 0 to 1", |share| (0.0..=1.0).contains(&share))
    }

    /// One of `choices`.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let word = self.string(name)?;
        let chosen = choices.iter().find(|(choice, _)| *choice == word).map(|(_, value)| *value);
        if chosen.is_none() {
            let known: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            self.not_among(name, word, &known.join(", "));
        }
        chosen
    }

    /// A word that is none of those that are known.
    pub fn not_among(&mut self, name: &str, word: &str, known: &str) {
        let word: String = word.chars().take(LONGEST_SHOWN).collect();
        self.unmet(name, &format!("It is {word:?}; it must be one of {known}."));
    }

    pub fn is_present(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value as it was sent, for fields that hold more than one value.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.get(name)
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn mistyped(&mut self, name: &str, wanted: &str) {
        let found = self.get(name).map_or("NoneType", python_type);
        self.violation(format!("{}{name} should be {wanted} type, not {found}.", self.prefix));
    }
}

/// The start of a value, for an error sentence.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(LONGEST_SHOWN).collect()
}

/// Whether it is a whole number too large for a 64-bit integer.
fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() >= 9.0e15)
}

/// The Python name of the type, as in the hosted worker's sentences.
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

/// Converts an integer whose limits fit into 32 bits.
pub(super) fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
