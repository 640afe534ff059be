//! Finds the tensors in what a pickle made, and gives each a name.
//!
//! People's files hold a dict of tensors, a checkpoint with such a dict under `state_dict`, dicts in dicts, a textual
//! inversion of the web UI, or a list. What lies beside the tensors is named, and not read.

use std::collections::HashMap;

use super::super::quoted_name;
use super::pickle::{LONGEST_NAME, Node, Unpickled, Value};
use super::pickle_global::Global;
use super::pickle_reader::Span;
use super::torch_value::TensorValue;

/// The deepest dicts that are looked into.
const DEEPEST: usize = 8;
/// The most values that are looked at: circular values would never end.
const MOST_VISITS: usize = 400_000;
/// The bytes of all names together in a small file. In others they are fewer than the file's: keys that lie in each other
/// would multiply.
const LEAST_NAMES: usize = 1 << 20;
/// How many kinds of other things are named.
const MOST_NAMED: usize = 20;
/// A textual inversion: its tensors by the word that they stand for, which is always `*`, and its name.
const INVERSION: &str = "string_to_param";
const INVERSION_NAME: &str = "name";
/// Its tensor where it has no name: what the web UI calls it in newer files.
pub(super) const UNNAMED_INVERSION: &str = "emb_params";
const STATE_DICT: &str = "state_dict";
/// Where `torch.nn` keeps the parameters of a module.
const PARAMETERS: &str = "_parameters";
/// What training on several cards writes in front of each name.
const WRAPPED: &str = "module.";

/// The tensors by their names, in the order of the file.
pub(super) struct StateDict<'a> {
    pickle: &'a Unpickled<'a>,
    tensors: Vec<(String, &'a TensorValue)>,
    /// Of two values under one name, the last one counts, as in Python.
    by_name: HashMap<String, usize>,
    not_read: Vec<String>,
    visits: usize,
    /// How many bytes of names may still be made.
    room: usize,
}

pub(super) struct Found<'a> {
    pub tensors: Vec<(String, &'a TensorValue)>,
    /// What else is in the file, a few words each.
    pub not_read: Vec<String>,
}

/// The tensors of a file whose name, without folders, is `file`, and which has `length` bytes. The error says why there
/// are none.
pub(super) fn find<'a>(pickle: &'a Unpickled<'a>, file: &str, length: u64) -> Result<Found<'a>, String> {
    let mut state = StateDict {
        pickle,
        tensors: Vec::new(),
        by_name: HashMap::new(),
        not_read: Vec::new(),
        visits: 0,
        room: usize::try_from(length).unwrap_or(usize::MAX).max(LEAST_NAMES),
    };
    let root = state.inner(pickle.root);
    if let Some(inversion) = state.get(root, INVERSION) {
        state.inversion(root, inversion)?;
    } else if pickle.sequence(root).is_some() {
        match state.pairs(root, file) {
            Some(pairs) => state.tensors = pairs,
            None => state.collect("", root, 0)?,
        }
    } else {
        state.collect("", root, 0)?;
    }
    let StateDict { mut tensors, not_read, .. } = state;
    if tensors.is_empty() {
        let what = match pickle.node(root) {
            Some(Node::Object(class, _)) => format!("an object of {}", class_name(pickle, class)),
            _ => "no tensors".to_owned(),
        };
        return Err(format!("it holds {what}, and only state dicts of torch are read"));
    }
    if tensors.iter().all(|(name, _)| name.starts_with(WRAPPED)) {
        for (name, _) in &mut tensors {
            name.drain(..WRAPPED.len());
        }
    }
    Ok(Found { tensors, not_read })
}

impl<'a> StateDict<'a> {
    /// The weights of a checkpoint, where they lie in it.
    fn inner(&mut self, root: Value) -> Value {
        let mut here = root;
        for _ in 0..DEEPEST {
            match self.get(here, STATE_DICT) {
                Some(inner) if self.pickle.dict(inner).is_some() => {
                    for (key, _) in self.pickle.dict(here).unwrap_or_default() {
                        self.pass_over(self.pickle.text(*key).filter(|key| *key != STATE_DICT));
                    }
                    here = inner;
                }
                _ => break,
            }
        }
        here
    }

    /// The last value of that key.
    fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let items = self.pickle.dict(dict)?;
        items.iter().rev().find(|(name, _)| self.pickle.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    fn inversion(&mut self, root: Value, inversion: Value) -> Result<(), String> {
        let inside = match self.pickle.node(inversion) {
            // As torch's own dict of parameters, in the first files.
            Some(Node::Object(_, Some(state))) => self.get(*state, PARAMETERS).unwrap_or(inversion),
            _ => inversion,
        };
        let word = self.get(root, INVERSION_NAME).and_then(|name| self.pickle.text(name));
        let word = word.filter(|word| !word.trim().is_empty()).unwrap_or(UNNAMED_INVERSION);
        match self.pickle.dict(inside) {
            Some(&[(_, tensor)]) => self.collect(word, tensor, 0),
            _ => self.collect(INVERSION, inside, 0),
        }
    }

    /// The list of a LoRA trainer (cloneofsimo's): for each module the matrix up, then the matrix down. Its other form
    /// names them so.
    fn pairs(&self, root: Value, file: &str) -> Option<Vec<(String, &'a TensorValue)>> {
        let values = self.pickle.sequence(root).filter(|values| !values.is_empty())?;
        let tensors: Vec<_> = values.iter().map(|value| self.tensor(*value)).collect::<Option<_>>()?;
        let (pairs, rest) = tensors.as_chunks::<2>();
        let fits =
            |[up, down]: &[&TensorValue; 2]| up.shape.len() >= 2 && up.shape.get(1) == down.shape.first();
        if !rest.is_empty() || !pairs.iter().all(fits) {
            return None;
        }
        let part = if file.contains("text_encoder") { "text_encoder" } else { "unet" };
        let named = |(index, pair): (usize, &[&'a TensorValue; 2])| {
            [(format!("{part}:{index}:up"), pair[0]), (format!("{part}:{index}:down"), pair[1])]
        };
        Some(pairs.iter().enumerate().flat_map(named).collect())
    }

    /// Adds the tensors in a value, whose name is `name`.
    fn collect(&mut self, name: &str, value: Value, depth: usize) -> Result<(), String> {
        self.visits += 1;
        if self.visits > MOST_VISITS {
            return Err("it has values in values without end".to_owned());
        }
        if let Some(tensor) = self.tensor(value) {
            let name = if name.is_empty() { UNNAMED_INVERSION } else { name };
            return self.add(name.to_owned(), tensor);
        }
        match self.pickle.node(value) {
            Some(Node::Dict(_) | Node::List(_) | Node::Tuple(_)) if depth >= DEEPEST => {
                self.pass_over(Some(name));
            }
            Some(Node::Dict(items)) => {
                for (key, value) in items {
                    match (key, self.pickle.text(*key)) {
                        (_, Some(key)) => self.collect_inside(name, key, *value, depth)?,
                        (Value::Int(key), _) => {
                            self.collect_inside(name, &key.to_string(), *value, depth)?;
                        }
                        (Value::Text(_), None) if self.tensor(*value).is_some() => return Err(unnamed()),
                        _ => self.pass_over(Some(name)),
                    }
                }
            }
            Some(Node::List(values) | Node::Tuple(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.collect_inside(name, &index.to_string(), *value, depth)?;
                }
            }
            Some(Node::Object(class, _)) => {
                let class = class_name(self.pickle, class);
                self.pass_over(Some(&format!("{name} ({class})")));
            }
            _ => self.pass_over(Some(name)),
        }
        Ok(())
    }

    /// Adds the tensors in the value that the dict `name` has under `key`.
    fn collect_inside(&mut self, name: &str, key: &str, value: Value, depth: usize) -> Result<(), String> {
        if name.is_empty() {
            return self.collect(key, value, depth + 1);
        }
        if name.len() + key.len() < LONGEST_NAME {
            return self.collect(&format!("{name}.{key}"), value, depth + 1);
        }
        if self.tensor(value).is_some() {
            return Err(unnamed());
        }
        self.pass_over(Some(name));
        Ok(())
    }

    fn add(&mut self, name: String, tensor: &'a TensorValue) -> Result<(), String> {
        if let Some(index) = self.by_name.get(&name) {
            self.tensors[*index].1 = tensor;
        } else {
            let too_many = "the names of its tensors are longer than the file";
            self.room = self.room.checked_sub(name.len()).ok_or(too_many)?;
            self.by_name.insert(name.clone(), self.tensors.len());
            self.tensors.push((name, tensor));
        }
        Ok(())
    }

    fn pass_over(&mut self, name: Option<&str>) {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return };
        let name = quoted_name(name);
        if self.not_read.len() < MOST_NAMED && !self.not_read.contains(&name) {
            self.not_read.push(name);
        }
    }

    fn tensor(&self, value: Value) -> Option<&'a TensorValue> {
        match self.pickle.node(value)? {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

fn unnamed() -> String {
    format!("it has a tensor whose name is not UTF-8 or has more than {LONGEST_NAME} bytes")
}

fn class_name(pickle: &Unpickled, class: &Global) -> String {
    let text = |span: &Span| String::from_utf8_lossy(pickle.span(*span)).into_owned();
    match class {
        Global::Inert(module, name) => quoted_name(&format!("{}.{}", text(module), text(name))),
        _ => "thing".to_owned(),
    }
}
