//! The grammar of wildcards: braces, `|`, the number in `2$$`, and the names of files.

use super::DEEPEST;

/// A piece of a prompt.
pub(super) enum Node<'a> {
    Text(&'a str),
    /// The name between `__` and `__`.
    File(&'a str),
    Choice {
        count: usize,
        options: Vec<Vec<Node<'a>>>,
    },
}

/// A brace that is open.
struct Open<'a> {
    /// From the brace to the first option, as it was written.
    head: &'a str,
    count: usize,
    options: Vec<Vec<Node<'a>>>,
    /// The brackets of other grammars in the current option: a `|` between them is theirs.
    brackets: usize,
}

/// The pieces of a prompt. Fails with a sentence if its braces nest too deep.
pub(super) fn parse(prompt: &str) -> Result<Vec<Node<'_>>, String> {
    let mut outside = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            '\\' => {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
                innermost(&mut open, &mut outside).push(Node::Text(&rest[..taken]));
            }
            '_' if let Some(name) = file_name(rest) => {
                taken = name.len() + 4;
                innermost(&mut open, &mut outside).push(Node::File(name));
            }
            '{' => {
                if open.len() == DEEPEST {
                    return Err(format!("Its braces nest deeper than {DEEPEST} levels."));
                }
                let (count, length) = count(&rest[1..]).unwrap_or((1, 0));
                taken += length;
                open.push(Open { head: &rest[..taken], count, options: vec![Vec::new()], brackets: 0 });
            }
            '|' if let Some(open) = open.last_mut().filter(|open| open.brackets == 0) => {
                open.options.push(Vec::new());
            }
            '}' if let Some(Open { count, options, .. }) = open.pop() => {
                innermost(&mut open, &mut outside).push(Node::Choice { count, options });
            }
            _ => {
                if first != '_' {
                    let is_plain = |c: char| !"\\_{|}[]".contains(c);
                    taken += rest[taken..].find(|c| !is_plain(c)).unwrap_or(rest.len() - taken);
                }
                innermost(&mut open, &mut outside).push(Node::Text(&rest[..taken]));
                if let Some(open) = open.last_mut() {
                    match first {
                        '[' => open.brackets += 1,
                        ']' => open.brackets = open.brackets.saturating_sub(1),
                        _ => {}
                    }
                }
            }
        }
        rest = &rest[taken..];
    }
    // What was never closed is text.
    while let Some(Open { head, options, .. }) = open.pop() {
        let around = innermost(&mut open, &mut outside);
        around.push(Node::Text(head));
        for (index, option) in options.into_iter().enumerate() {
            if index > 0 {
                around.push(Node::Text("|"));
            }
            around.extend(option);
        }
    }
    Ok(outside)
}

/// The nodes of the option that is open, or those outside all braces.
fn innermost<'a, 'b>(open: &'b mut [Open<'a>], outside: &'b mut Vec<Node<'a>>) -> &'b mut Vec<Node<'a>> {
    open.last_mut().and_then(|open| open.options.last_mut()).unwrap_or(outside)
}

/// The name in `__name__`, which begins the text. It has no white space.
fn file_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("__")?;
    let name = &name[..name.find("__")?];
    let is_name = |c: char| c.is_alphanumeric() || "_-./ ()+".contains(c);
    (!name.is_empty() && name.len() <= 256 && name.trim() == name && name.chars().all(is_name))
        .then_some(name)
}

/// The number in `2$$`, and the length of both.
fn count(text: &str) -> Option<(usize, usize)> {
    let digits = text.bytes().take(3).take_while(u8::is_ascii_digit).count();
    text[digits..].starts_with("$$").then_some(())?;
    let count = text[..digits].parse().ok().filter(|count| digits <= 2 && *count > 0)?;
    Some((count, digits + 2))
}
