//! Prompts that change from step to step, by A1111's rules (`get_learned_conditioning_prompt_schedules` of its
//! `modules/prompt_parser.py`).
//!
//! - `[from:to:when]` is `from` up to the step `when` and `to` after it. `[to:when]` adds and `[from::when]` removes. A
//!   `when` with a point is a share of the steps: 0.4.
//! - `[a|b|c]` is another one at each step, in turn.
//! - Both nest. Any other bracket is text, which the grammar of emphasis reads later; so is a group with unbalanced
//!   brackets in it. A `|` outside `[a|b]` makes all of the prompt plain text, as does a backslash at its end.

use std::collections::BTreeSet;

use crate::domain::is_space;

/// Groups nested deeper than this are plain text.
const DEEPEST: usize = 32;

/// The steps that a prompt is spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSteps {
    /// The steps of this pass, at least one.
    pub steps: u32,
    /// Those of the pass before it. In a second pass, steps are counted on, and shares from 1 to 2 are its own.
    pub before: Option<u32>,
}

/// A prompt as one step reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The last step that reads it, counted from 1.
    pub last: u32,
    pub text: String,
}

/// What a prompt is at each step: at least one stretch, in order. The last one ends with the last step. Neighbours may be
/// equal.
pub fn stretches(prompt: &str, steps: PromptSteps) -> impl Iterator<Item = Stretch> + use<'_> {
    let nodes = parse(prompt).unwrap_or_else(|| vec![Node::Text(prompt)]);
    let mut ends = BTreeSet::from([steps.steps]);
    changes(&nodes, steps, &mut ends);
    ends.into_iter().map(move |last| {
        let mut text = String::with_capacity(prompt.len());
        write(&nodes, steps, last, &mut text);
        Stretch { last, text }
    })
}

/// Whether the prompt may change at all. Most do not.
pub fn may_change(prompt: &str) -> bool {
    prompt.contains('[')
}

enum Node<'a> {
    Text(&'a str),
    /// `[before:after:when]`.
    Switch {
        before: Vec<Self>,
        after: Vec<Self>,
        when: When,
    },
    /// `[a|b]`.
    Turns(Vec<Vec<Self>>),
}

#[derive(Clone, Copy)]
struct When {
    number: f64,
    is_share: bool,
}

impl When {
    /// The last step before the switch. It is 0 if the switch comes before the first step.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "truncated, as by A1111")]
    fn step(self, PromptSteps { steps, before }: PromptSteps) -> u32 {
        let step = match self.is_share {
            true => (self.number - f64::from(u8::from(before.is_some()))) * f64::from(steps),
            false => self.number - f64::from(before.unwrap_or(0)),
        };
        (step.max(0.0) as u32).min(steps)
    }
}

/// The steps after which something changes.
fn changes(nodes: &[Node], steps: PromptSteps, ends: &mut BTreeSet<u32>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Switch { before, after, when } => {
                ends.extend(Some(when.step(steps)).filter(|step| *step > 0));
                changes(before, steps, ends);
                changes(after, steps, ends);
            }
            Node::Turns(options) => {
                // A prompt may have thousands of these.
                if ends.len() < steps.steps as usize {
                    ends.extend(1..=steps.steps);
                }
                for option in options {
                    changes(option, steps, ends);
                }
            }
        }
    }
}

/// Writes what the nodes are at a step, counted from 1.
fn write(nodes: &[Node], steps: PromptSteps, step: u32, text: &mut String) {
    for node in nodes {
        match node {
            Node::Text(part) => text.push_str(part),
            Node::Switch { before, after, when } => {
                let now = if step <= when.step(steps) { before } else { after };
                write(now, steps, step, text);
            }
            Node::Turns(options) => {
                write(&options[(step.saturating_sub(1)) as usize % options.len()], steps, step, text);
            }
        }
    }
}

/// A bracket that is open.
struct Open {
    bracket: &'static str,
    /// The place of its node.
    place: usize,
    /// The places of the `:` and `|` directly inside.
    marks: Vec<usize>,
    /// Levels of groups inside.
    depth: usize,
}

/// None if the prompt is plain text.
fn parse(prompt: &str) -> Option<Vec<Node<'_>>> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    // Of `|` that belong to no group yet. One that never does makes the whole prompt plain.
    let mut bars = 0;
    let mut rest = prompt;
    while !rest.is_empty() {
        let (token, after) = rest.split_at(token(rest)?);
        rest = after;
        nodes.push(Node::Text(token));
        let place = nodes.len() - 1;
        match token {
            "(" => open.push(Open { bracket: "(", place, marks: Vec::new(), depth: 0 }),
            "[" => open.push(Open { bracket: "[", place, marks: Vec::new(), depth: 0 }),
            ":" | "|" => {
                bars += usize::from(token == "|");
                if let Some(open) = open.last_mut() {
                    open.marks.push(place);
                }
            }
            ")" | "]" => {
                let opening = if token == ")" { "(" } else { "[" };
                let Some(closed) = open.pop_if(|open| open.bracket == opening) else {
                    // A stray bracket: nothing around it is a group.
                    open.clear();
                    continue;
                };
                let mut depth = closed.depth;
                match close(&mut nodes, &closed) {
                    Closed::Group { bars: used } => {
                        bars -= used;
                        depth += 1;
                    }
                    Closed::Brackets => {}
                    Closed::Text => open.clear(),
                }
                if depth > DEEPEST {
                    return None;
                }
                if let Some(around) = open.last_mut() {
                    around.depth = around.depth.max(depth);
                }
            }
            _ => {}
        }
    }
    (bars == 0).then_some(nodes)
}

/// The length of the first token: one of `()[]:|`, an escaped character, or other text. None for a backslash that escapes
/// nothing.
fn token(text: &str) -> Option<usize> {
    let special = |c: char| "\\()[]:|".contains(c);
    let mut chars = text.chars();
    match chars.next()? {
        '\\' => chars.next().filter(|c| *c != '\n').map(|escaped| 1 + escaped.len_utf8()),
        first if special(first) => Some(1),
        _ => Some(text.find(special).unwrap_or(text.len())),
    }
}

/// What a pair of brackets turned out to be.
enum Closed {
    /// One node instead of all in it, which took so many `|`.
    Group { bars: usize },
    /// Text that may stand in a group.
    Brackets,
    /// Text that may not.
    Text,
}

/// Makes a group of the nodes since `open`, if they are one. The last node is the closing bracket.
fn close(nodes: &mut Vec<Node>, open: &Open) -> Closed {
    let is_bar = |place: &usize| matches!(nodes[*place], Node::Text("|"));
    let bars = open.marks.iter().filter(|place| is_bar(place)).count();
    if open.bracket == "(" {
        return if bars == 0 && open.marks.len() <= 1 { Closed::Brackets } else { Closed::Text };
    }
    let when = match (open.marks.len(), bars) {
        (0, _) => return Closed::Brackets,
        (marks, bars) if marks == bars => None,
        (1 | 2, 0) => match when(&nodes[open.marks[open.marks.len() - 1] + 1..nodes.len() - 1]) {
            Some(when) => Some(when),
            None => return Closed::Text,
        },
        _ => return Closed::Text,
    };
    let mut inside = nodes.drain(open.place..).skip(1);
    let mut start = open.place + 1;
    let mut options: Vec<Vec<Node>> = Vec::with_capacity(open.marks.len() + 1);
    for mark in &open.marks {
        options.push(inside.by_ref().take(mark - start).collect());
        inside.next();
        start = mark + 1;
    }
    if let Some(when) = when {
        drop(inside);
        let after = options.pop().unwrap_or_default();
        nodes.push(Node::Switch { before: options.pop().unwrap_or_default(), after, when });
    } else {
        let mut last: Vec<Node> = inside.collect();
        // The closing bracket.
        last.pop();
        options.push(last);
        nodes.push(Node::Turns(options));
    }
    Closed::Group { bars }
}

/// The number in these nodes, with white space around it.
fn when(nodes: &[Node]) -> Option<When> {
    let [Node::Text(text)] = nodes else { return None };
    let text = text.trim_matches(is_space);
    let is_number = |c: char| c.is_ascii_digit() || ".eE+-".contains(c);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let number = text.parse().ok().filter(|_| starts && text.chars().all(is_number))?;
    Some(When { number, is_share: text.contains('.') })
}

#[cfg(test)]
mod tests;
