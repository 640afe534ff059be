//! Protobuf's wire format, as far as ONNX files need it: messages in memory as fields, and fields as bytes.

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub number: u64,
    pub value: Value<'a>,
    /// All of the field, with its tag.
    pub whole: &'a [u8],
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

/// The fields of a message, in their order. `None` if it is broken.
pub fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let (mut fields, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let start = rest;
        let tag = read_varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(read_varint(&mut rest)?),
            1 => fixed(&mut rest, 8)?,
            2 => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                let (bytes, behind) = rest.split_at_checked(length)?;
                rest = behind;
                Value::Bytes(bytes)
            }
            5 => fixed(&mut rest, 4)?,
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, value, whole: &start[..start.len() - rest.len()] });
    }
    Some(fields)
}

impl<'a> Field<'a> {
    /// The bytes of the field, if it is the one with this number.
    pub fn bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }

    /// The same as text.
    pub fn text(&self, number: u64) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(number)?).ok()
    }
}

fn fixed<'a>(rest: &mut &[u8], length: usize) -> Option<Value<'a>> {
    *rest = rest.get(length..)?;
    Some(Value::Fixed)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Writes a field's tag: its number, and how its value is written.
pub fn tag(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

pub fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

pub fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    tag(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        number(&mut message, 1, 300);
        bytes(&mut message, 16, b"abc");
        tag(&mut message, 2, 5);
        message.extend([0; 4]);
        tag(&mut message, 3, 1);
        message.extend([0; 8]);
        let read = fields(&message).unwrap();
        let values: Vec<_> = read.iter().map(|field| (field.number, field.value)).collect();
        let expected =
            [(1, Value::Number(300)), (16, Value::Bytes(b"abc")), (2, Value::Fixed), (3, Value::Fixed)];
        assert_eq!(values, expected);
        assert_eq!(read.iter().flat_map(|field| field.whole).copied().collect::<Vec<_>>(), message);
        assert_eq!((read[1].text(16), read[1].text(15), read[0].bytes(1)), (Some("abc"), None, None));
    }

    #[test]
    fn broken_messages_are_refused() {
        for message in [
            &b"\x08"[..],
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x12\x05abcd",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b",
            b"\x0d\0\0\0",
            b"\x09\0\0\0\0\0\0\0",
        ] {
            assert!(fields(message).is_none(), "{message:?}");
        }
    }
}
