//! The machine that runs the pickles of `torch.save`. It makes plain values and calls nothing.
//!
//! A pickle is a program for a machine with a stack. Python's own machine imports and calls whatever the program names;
//! this one knows a few names ([`Global`]) and refuses others as soon as it reads them. What a program may make is limited
//! by the size of its file.

use std::collections::HashMap;

use super::pickle::{Node, Value};
use super::pickle_global::{Global, Made};
use super::pickle_reader::{LONGEST_LINE, Reader, Span, Trouble};
use super::pickle_room::Room;
use super::torch_value::StorageValue;

pub(super) const HIGHEST_PROTOCOL: u8 = 5;

/// The machine while it runs.
pub(super) struct Machine<'a> {
    pub reader: Reader<'a>,
    nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    room: Room,
}

type Done = Result<(), Trouble>;

impl<'a> Machine<'a> {
    /// Runs the pickle at the beginning of `bytes`, which lie in a file of that length. Returns the reader behind it, all
    /// values, and the one that the pickle is about.
    pub fn run(bytes: &'a [u8], file_length: u64) -> Result<(Reader<'a>, Vec<Node>, Value), Trouble> {
        let mut machine = Self {
            reader: Reader::new(bytes),
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            room: Room::in_file_of(file_length),
        };
        let made = machine.each_opcode()?;
        Ok((machine.reader, machine.nodes, made))
    }

    fn each_opcode(&mut self) -> Result<Value, Trouble> {
        loop {
            let opcode = self.reader.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => self.protocol()?,
                0x95 => drop(self.reader.take(8)?),
                b'(' => self.mark()?,
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_to_mark()?),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'J' => {
                    let number = i32::from_le_bytes(self.reader.array()?);
                    self.push(Value::Int(number.into()))?;
                }
                b'K' => {
                    let number = self.reader.byte()?;
                    self.push(Value::Int(number.into()))?;
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.reader.array()?);
                    self.push(Value::Int(number.into()))?;
                }
                0x8a | 0x8b => self.long(opcode)?,
                b'G' => {
                    self.reader.take(8)?;
                    self.push(Value::Float)?;
                }
                b'X' | b'T' | b'U' | 0x8c | 0x8d => {
                    let text = self.counted(opcode)?;
                    self.push(Value::Text(text))?;
                }
                b'B' | b'C' | 0x8e | 0x96 => {
                    self.counted(opcode)?;
                    self.push(Value::Bytes)?;
                }
                b'}' => self.push_node(Node::Dict(Vec::new()))?,
                b']' | 0x8f => self.push_node(Node::List(Vec::new()))?,
                b')' => self.push_node(Node::Tuple(Vec::new()))?,
                b't' | 0x91 => {
                    let values = self.pop_to_mark()?;
                    self.push_node(Node::Tuple(values))?;
                }
                0x85..=0x87 => {
                    let values = self.pop_last(usize::from(opcode - 0x84))?;
                    self.push_node(Node::Tuple(values))?;
                }
                b'a' => {
                    let value = self.pop()?;
                    self.append(vec![value])?;
                }
                b'e' | 0x90 => {
                    let values = self.pop_to_mark()?;
                    self.append(values)?;
                }
                b's' => {
                    let items = self.pop_last(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                b'q' | b'r' | 0x94 => self.memoise(opcode)?,
                b'h' | b'j' => self.recall(opcode)?,
                b'c' => self.global()?,
                0x93 => self.stack_global()?,
                b'i' => return self.instance(),
                b'Q' => self.persistent_id()?,
                b'R' | 0x81 => {
                    let parts = self.pop_last(2)?;
                    self.call(parts[0], parts[1])?;
                }
                0x92 => {
                    let parts = self.pop_last(3)?;
                    self.call(parts[0], parts[1])?;
                }
                b'b' => self.build()?,
                other => {
                    return Err(Trouble::Refused(format!(
                        "it has the pickle opcode {other:#04x}, which torch.save does not write"
                    )));
                }
            }
        }
    }

    fn protocol(&mut self) -> Done {
        match self.reader.byte()? {
            0..=HIGHEST_PROTOCOL => Ok(()),
            other => Err(Trouble::Refused(format!("its pickle has the unknown protocol {other}"))),
        }
    }

    fn push(&mut self, value: Value) -> Done {
        self.room.spend(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Done {
        self.room.spend(1)?;
        let id = u32::try_from(self.nodes.len()).map_err(|_| broken("value"))?;
        self.nodes.push(node);
        self.push(Value::Node(id))
    }

    fn mark(&mut self) -> Done {
        self.room.spend(1)?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Not below the last mark.
    fn pop_last(&mut self, count: usize) -> Result<Vec<Value>, Trouble> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(broken("stack")),
        }
    }

    fn pop(&mut self) -> Result<Value, Trouble> {
        Ok(self.pop_last(1)?[0])
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Trouble> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or_else(|| broken("mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top_node(&mut self) -> Result<&mut Node, Trouble> {
        match self.stack.last() {
            Some(Value::Node(id)) => self.nodes.get_mut(*id as usize).ok_or_else(|| broken("value")),
            _ => Err(broken("stack")),
        }
    }

    /// A text or bytes: a length, then as many bytes.
    fn counted(&mut self, opcode: u8) -> Result<Span, Trouble> {
        let length = match opcode {
            b'U' | b'C' | 0x8c => self.reader.byte()?.into(),
            b'X' | b'T' | b'B' => u32::from_le_bytes(self.reader.array()?).into(),
            _ => u64::from_le_bytes(self.reader.array()?),
        };
        self.reader.take(length)
    }

    fn long(&mut self, opcode: u8) -> Done {
        let length = match opcode {
            0x8a => self.reader.byte()?.into(),
            _ => u32::from_le_bytes(self.reader.array()?).into(),
        };
        let span = self.reader.take(length)?;
        let bytes = self.reader.span(span);
        let mut number = [if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 }; 8];
        match number.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                self.push(Value::Int(i64::from_le_bytes(number)))
            }
            None => self.push(Value::Long(span)),
        }
    }

    fn memoise(&mut self, opcode: u8) -> Done {
        let index = match opcode {
            b'q' => self.reader.byte()?.into(),
            b'r' => u32::from_le_bytes(self.reader.array()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| broken("memo"))?,
        };
        self.room.spend(1)?;
        let value = *self.stack.last().ok_or_else(|| broken("stack"))?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Done {
        let index = match opcode {
            b'h' => self.reader.byte()?.into(),
            _ => u32::from_le_bytes(self.reader.array()?),
        };
        let value = *self.memo.get(&index).ok_or_else(|| broken("memo"))?;
        self.push(value)
    }

    fn append(&mut self, values: Vec<Value>) -> Done {
        match self.top_node()? {
            Node::List(list) => list.extend(values),
            Node::Object(..) => {}
            _ => return Err(broken("list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value]) -> Done {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(broken("dict"));
        }
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Node::Object(..) => {}
            _ => return Err(broken("dict")),
        }
        Ok(())
    }

    fn global(&mut self) -> Done {
        let (module, name) = (self.reader.line()?, self.reader.line()?);
        self.push_global(module, name)
    }

    fn stack_global(&mut self) -> Done {
        match self.pop_last(2)?[..] {
            [Value::Text(module), Value::Text(name)] => self.push_global(module, name),
            _ => Err(broken("name")),
        }
    }

    fn push_global(&mut self, module: Span, name: Span) -> Done {
        // Names from the stack may be long, and asked for again and again.
        if module.length().max(name.length()) > LONGEST_LINE {
            return Err(Trouble::Refused("its pickle has a name that is too long".to_owned()));
        }
        let (of, what) = (self.reader.text(module)?, self.reader.text(name)?);
        let global = Global::find(of, what, module, name).map_err(Trouble::Refused)?;
        self.push_node(Node::Global(global))
    }

    /// An instance of a class by its name, as only very old Pythons wrote it. Never one of those that weights need.
    fn instance(&mut self) -> Result<Value, Trouble> {
        let (module, name) = (self.reader.line()?, self.reader.line()?);
        let (of, what) = (self.reader.text(module)?, self.reader.text(name)?);
        let reason = match Global::find(of, what, module, name) {
            Err(reason) => reason,
            Ok(_) => "it has the pickle opcode INST, which torch.save does not write".to_owned(),
        };
        Err(Trouble::Refused(reason))
    }

    /// A storage; or in the older form the class of a module, whose source code lies beside its name and is passed over.
    fn persistent_id(&mut self) -> Done {
        let id = self.pop()?;
        let Some(Node::Tuple(parts)) = self.node(id) else { return Err(broken("storage")) };
        match parts[..] {
            [Value::Text(word), class, _, _] if self.reader.span(word) == b"module" => self.push(class),
            _ => {
                let storage = StorageValue::from_parts(self, parts).map_err(Trouble::Refused)?;
                self.push_node(Node::Storage(storage))
            }
        }
    }

    /// What a call makes. Nothing is called: the few results that weights need are made here, and others stay what they
    /// are, a thing of that name.
    fn call(&mut self, callee: Value, arguments: Value) -> Done {
        let (Some(Node::Global(callee)), Some(Node::Tuple(arguments))) =
            (self.node(callee), self.node(arguments))
        else {
            return Err(broken("call"));
        };
        // First, so that nothing is copied for which there is no room.
        let left = self.room.after(callee.copies(self, arguments))?;
        let made = callee.call(self, arguments).map_err(Trouble::Refused)?;
        self.room = left;
        match made {
            Made::Node(node) => self.push_node(node),
            Made::Value(value) => self.push(value),
        }
    }

    /// Sets the attributes of the thing on top. Those of dicts and tensors do not matter.
    fn build(&mut self) -> Done {
        let state = self.pop()?;
        match self.top_node()? {
            Node::Object(_, set) => *set = Some(state),
            Node::Dict(_) | Node::Tensor(_) | Node::List(_) => {}
            _ => return Err(broken("state")),
        }
        Ok(())
    }

    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(id) => self.nodes.get(id as usize),
            _ => None,
        }
    }
}

fn broken(what: &str) -> Trouble {
    Trouble::Refused(format!("its pickle is broken (a {what} that is not there)"))
}
