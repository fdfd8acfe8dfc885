//! Reads the pickles in `PyTorch`'s files, and nothing else of them than the tables of tensors: no class is looked up and
//! nothing is executed. What is no container, number, text or tensor becomes an empty object. Why it is written here and
//! when it can be deleted: see `pytorch.rs`.

use std::collections::BTreeMap;

/// Makes a tensor of a class of its own by another function.
const TYPED: &str = "torch._tensor._rebuild_from_type_v2";

/// The longest text that is kept. Names are shorter; and what a pickle refers to again and again, in a byte or two, must
/// not be long.
const LONGEST_TEXT: usize = 500;
/// `PyTorch`'s own limit.
const MOST_AXES: usize = 64;
/// Values, and what else a pickle may hold at a time: twenty times what a large model has.
const MOST_VALUES: usize = 1_000_000;
/// Tensors, which take more memory than other values.
const MOST_TENSORS: usize = 100_000;
const CUT: &str = "its pickle is cut or damaged";

/// Where a tensor's elements lie in a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub storage: Storage,
    /// Elements in front of the tensor's first.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Elements from one to the next along each axis.
    pub strides: Vec<usize>,
}

/// A run of numbers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// As in `FloatStorage`.
    pub class: String,
    pub key: String,
    pub elements: usize,
}

/// A value of a pickle. Values refer to each other by their number in [`Pickle::values`].
#[derive(Clone, Debug)]
enum Value {
    Integer(i64),
    Text(String),
    Class(String),
    List(Vec<usize>),
    Map(Vec<(usize, usize)>),
    Storage(Storage),
    Tensor(Place),
    /// Something else, with nothing in it that is needed.
    Other,
}

/// A pickle that was read to its end.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: usize,
    storages: BTreeMap<String, Storage>,
    /// Bytes of the pickle.
    pub length: usize,
}

impl Pickle {
    /// Reads a pickle from the beginning of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            copied: 0,
            tensors: 0,
        }
        .run()
    }

    /// The tensors of the table at the root, or of one under a key of it, where there is such a table.
    pub fn tensors(&self, key: Option<&str>) -> BTreeMap<String, Place> {
        let table = key.map_or(Some(self.root), |key| self.entry(self.root, key));
        let Some(Value::Map(entries)) = table.map(|table| &self.values[table]) else { return BTreeMap::new() };
        let tensor = |&(name, value): &(usize, usize)| match (&self.values[name], &self.values[value]) {
            (Value::Text(name), Value::Tensor(place)) => Some((name.clone(), place.clone())),
            _ => None,
        };
        entries.iter().filter_map(tensor).collect()
    }

    /// Every storage by its key.
    pub fn storages(&self) -> &BTreeMap<String, Storage> {
        &self.storages
    }

    /// The texts of the list at the root.
    pub fn texts(&self) -> Option<Vec<&str>> {
        let Value::List(items) = &self.values[self.root] else { return None };
        let text = |&item: &usize| match &self.values[item] {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        };
        items.iter().map(text).collect()
    }

    fn entry(&self, map: usize, key: &str) -> Option<usize> {
        let Value::Map(entries) = &self.values[map] else { return None };
        // The last one counts, as in Python.
        let found =
            entries.iter().rev().find(|(name, _)| matches!(&self.values[*name], Value::Text(text) if text == key));
        found.map(|(_, value)| *value)
    }
}

/// The stack machine that a pickle is a program for (Python's `pickletools` has its instructions).
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u64, usize>,
    /// Entries that were copied from one value into another.
    copied: usize,
    /// Tensors and storages.
    tensors: usize,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Pickle, String> {
        loop {
            let most = self.values.len().max(self.stack.len()).max(self.marks.len()).max(self.memo.len());
            if most > MOST_VALUES || self.tensors > MOST_TENSORS {
                return Err("its pickle has more values than any model's".into());
            }
            let code = self.byte()?;
            match code {
                b'.' => break,
                0x80 => self.skip(1)?, // protocol
                0x95 => self.skip(8)?, // frame
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.above_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'K' | b'M' | b'J' | b'I' | b'L' | 0x8a | 0x8b => self.number(code)?,
                b'X' | 0x8c | 0x8d | b'U' | b'T' | b'V' | b'S' => self.text(code)?,
                b'C' | b'B' | 0x8e | 0x96 => {
                    let width = if code == b'C' {
                        1
                    } else if code == b'B' {
                        4
                    } else {
                        8
                    };
                    let length = self.size(width)?;
                    self.skip(length)?;
                    self.push(Value::Other);
                }
                b'G' => self.skip(8).map(|()| self.push(Value::Other))?,
                b'F' => self.line().map(drop).map(|()| self.push(Value::Other))?,
                b'N' | 0x88 | 0x89 => self.push(Value::Other),
                b'}' => self.push(Value::Map(Vec::new())),
                b']' | b')' | 0x8f => self.push(Value::List(Vec::new())),
                b't' | b'l' | 0x91 => {
                    let items = self.above_mark()?;
                    self.push(Value::List(items));
                }
                b'd' => {
                    let items = self.above_mark()?;
                    self.push(Value::Map(pairs(&items)));
                }
                0x85..=0x87 => {
                    let items = self.take(usize::from(code - 0x84))?;
                    self.push(Value::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.above_mark()?;
                    self.extend(&items)?;
                }
                b's' => {
                    let items = self.take(2)?;
                    self.insert(&items)?;
                }
                b'u' => {
                    let items = self.above_mark()?;
                    self.insert(&items)?;
                }
                b'c' | 0x93 | b'Q' | b'R' | 0x81 | 0x92 | b'b' | b'o' | b'i' => self.object(code)?,
                b'q' | b'r' | b'p' | 0x94 | b'h' | b'j' | b'g' => self.memorise(code)?,
                _ => return Err(format!("its pickle has the unknown instruction {code:#04x}")),
            }
        }
        let root = self.pop()?;
        let storage = |value: &Value| match value {
            Value::Storage(storage) => Some((storage.key.clone(), storage.clone())),
            _ => None,
        };
        let storages = self.values.iter().filter_map(storage).collect();
        Ok(Pickle { storages, values: self.values, root, length: self.at })
    }

    fn number(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'K' | b'M' => self.size(if code == b'K' { 1 } else { 2 })?.try_into().ok(),
            b'J' => Some(i64::from(i32::from_le_bytes(self.array()?))),
            0x8a | 0x8b => {
                let length = self.size(if code == 0x8a { 1 } else { 4 })?;
                let bytes = self.slice(length)?;
                // Two's complement, the sign in the last byte. Larger numbers are none that is needed.
                let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = *byte);
                (bytes.len() <= 8).then(|| i64::from_le_bytes(wide))
            }
            _ => self.line()?.trim_end_matches('L').parse().ok(),
        };
        self.push(value.map_or(Value::Other, Value::Integer));
        Ok(())
    }

    fn text(&mut self, code: u8) -> Result<(), String> {
        let text = match code {
            b'V' | b'S' => self.line()?.trim_matches(['\'', '"']).to_owned(),
            _ => {
                let width = match code {
                    0x8c | b'U' => 1,
                    0x8d => 8,
                    _ => 4,
                };
                let length = self.size(width)?;
                String::from_utf8_lossy(self.slice(length)?).into_owned()
            }
        };
        self.push(if text.len() > LONGEST_TEXT { Value::Other } else { Value::Text(text) });
        Ok(())
    }

    /// Classes, and what is made of them.
    fn object(&mut self, code: u8) -> Result<(), String> {
        match code {
            b'c' => {
                let class = format!("{}.{}", self.line()?, self.line()?);
                self.push(if class.len() > LONGEST_TEXT { Value::Other } else { Value::Class(class) });
            }
            0x93 => {
                let parts = self.take(2)?;
                let class = match [&self.values[parts[0]], &self.values[parts[1]]] {
                    [Value::Text(module), Value::Text(name)] => Value::Class(format!("{module}.{name}")),
                    _ => Value::Other,
                };
                self.push(class);
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            b'R' | 0x81 => {
                let parts = self.take(2)?;
                let made = self.call(parts[0], parts[1])?;
                self.push(made);
            }
            // The state of an object is none that is needed.
            b'b' => {
                self.pop()?;
            }
            0x92 => {
                self.take(3)?;
                self.push(Value::Map(Vec::new()));
            }
            _ => {
                if code == b'i' {
                    self.line()?;
                    self.line()?;
                }
                self.above_mark()?;
                self.push(Value::Map(Vec::new()));
            }
        }
        Ok(())
    }

    /// What a function makes of its arguments: a tensor, or an object that entries can be put into.
    fn call(&mut self, function: usize, arguments: usize) -> Result<Value, String> {
        let (Value::Class(class), Value::List(items)) = (&self.values[function], &self.values[arguments]) else {
            return Ok(Value::Map(Vec::new()));
        };
        match (class.as_str(), items.as_slice()) {
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [storage, offset, shape, strides, ..],
            ) => {
                let Value::Storage(storage) = &self.values[*storage] else {
                    return Err("a tensor in its pickle has no storage".into());
                };
                let numbers = |list: usize| match &self.values[list] {
                    Value::List(items) if items.len() <= MOST_AXES => {
                        items.iter().map(|&item| self.natural(item)).collect()
                    }
                    _ => None,
                };
                let place = || {
                    let (shape, strides): (Vec<usize>, Vec<usize>) = (numbers(*shape)?, numbers(*strides)?);
                    let offset = self.natural(*offset)?;
                    let place = Place { storage: storage.clone(), offset, shape, strides };
                    (place.shape.len() == place.strides.len()).then_some(place)
                };
                place().map(Value::Tensor).ok_or_else(|| "a tensor in its pickle has no sizes".into())
            }
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", [tensor, ..]) => {
                Ok(self.values[*tensor].clone())
            }
            (TYPED, [function, _, arguments, ..]) => match &self.values[*function] {
                Value::Class(class) if class != TYPED => self.call(*function, *arguments),
                _ => Ok(Value::Other),
            },
            ("collections.OrderedDict", [entries]) => {
                let Value::List(entries) = &self.values[*entries] else { return Ok(Value::Map(Vec::new())) };
                // Each list of entries is made once, of bytes of its own. More than that is one that is copied again and
                // again.
                self.copied += entries.len();
                if self.copied > self.bytes.len() {
                    return Err(CUT.into());
                }
                let pair = |&entry: &usize| match &self.values[entry] {
                    Value::List(items) => pairs(items).first().copied(),
                    _ => None,
                };
                Ok(Value::Map(entries.iter().filter_map(pair).collect()))
            }
            _ => Ok(Value::Map(Vec::new())),
        }
    }

    /// `('storage', class, key, device, elements)`, in the old format with a sixth that says which part of another
    /// storage this is.
    fn storage(&self, id: usize) -> Result<Value, String> {
        let Value::List(items) = &self.values[id] else { return Ok(Value::Other) };
        let [_, class, key, _, elements, view @ ..] = items.as_slice() else { return Ok(Value::Other) };
        if view.iter().any(|&view| !matches!(self.values[view], Value::Other)) {
            return Err("a storage in its pickle is a part of another: save it anew with torch.save".into());
        }
        let class = match &self.values[*class] {
            Value::Class(class) => class.rsplit('.').next().unwrap_or_default().to_owned(),
            Value::Text(class) => class.clone(),
            _ => return Ok(Value::Other),
        };
        match (&self.values[*key], self.natural(*elements)) {
            (Value::Text(key), Some(elements)) => Ok(Value::Storage(Storage { class, key: key.clone(), elements })),
            _ => Ok(Value::Other),
        }
    }

    fn memorise(&mut self, code: u8) -> Result<(), String> {
        let key = match code {
            b'q' | b'h' => self.size(1)? as u64,
            b'r' | b'j' => self.size(4)? as u64,
            0x94 => self.memo.len() as u64,
            _ => self.line()?.parse().map_err(|_| CUT)?,
        };
        if matches!(code, b'h' | b'j' | b'g') {
            let value = *self.memo.get(&key).ok_or(CUT)?;
            self.stack.push(value);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn natural(&self, value: usize) -> Option<usize> {
        match self.values[value] {
            Value::Integer(number) => number.try_into().ok(),
            _ => None,
        }
    }

    fn extend(&mut self, items: &[usize]) -> Result<(), String> {
        let top = self.top()?;
        if let Value::List(list) = &mut self.values[top] {
            list.extend(items);
        }
        Ok(())
    }

    fn insert(&mut self, items: &[usize]) -> Result<(), String> {
        let top = self.top()?;
        if let Value::Map(map) = &mut self.values[top] {
            map.extend(pairs(items));
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.tensors += usize::from(matches!(value, Value::Tensor(_) | Value::Storage(_)));
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn top(&self) -> Result<usize, String> {
        self.stack.last().copied().ok_or_else(|| CUT.into())
    }

    fn pop(&mut self) -> Result<usize, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The topmost `count` values, off the stack.
    fn take(&mut self, count: usize) -> Result<Vec<usize>, String> {
        let height = self.stack.len().checked_sub(count).ok_or(CUT)?;
        Ok(self.stack.split_off(height))
    }

    /// The values above the last mark, off the stack.
    fn above_mark(&mut self) -> Result<Vec<usize>, String> {
        let height = self.marks.pop().filter(|&height| height <= self.stack.len());
        Ok(self.stack.split_off(height.ok_or(CUT)?))
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(length);
        let slice = end.and_then(|end| self.bytes.get(self.at..end)).ok_or("its pickle ends too early")?;
        self.at += length;
        Ok(slice)
    }

    fn skip(&mut self, length: usize) -> Result<(), String> {
        self.slice(length).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.slice(N)?.try_into().map_err(|_| "its pickle ends too early".into())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// A number of `width` bytes.
    fn size(&mut self, width: usize) -> Result<usize, String> {
        let mut wide = [0; 8];
        wide.iter_mut().zip(self.slice(width)?).for_each(|(wide, byte)| *wide = *byte);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "its pickle ends too early".into())
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Result<String, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("its pickle ends too early")?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }
}

/// Keys and values that lie one behind the other.
fn pairs(items: &[usize]) -> Vec<(usize, usize)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `('storage', FloatStorage, '9', 'cpu', 6)`, as a persistent id.
    const STORAGE: &[u8] = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\09X\x03\0\0\0cpuK\x06tQ";

    /// Instructions of a byte or a few that each take more memory than that, as long as the longest table.
    #[test]
    fn a_pickle_takes_no_more_memory_than_a_models() {
        let parameter = [&b"\x80\x02ctorch._utils\n_rebuild_parameter\nq\x01"[..], b"\x85q\x02"].concat();
        let tensor = [b"ctorch._utils\n_rebuild_tensor_v2\n(", STORAGE, b"K\0(", &b"K\x01".repeat(64), b"t("].concat();
        let tensor = [&tensor[..], &b"K\x01".repeat(64), b"ttRq\x03"].concat();
        for (start, instruction) in [
            (&b"\x80\x02"[..], &b"}"[..]),
            (b"\x80\x02", b"("),
            (b"\x80\x02K\x01", b"2"),
            (b"\x80\x04K\x01", b"\x94"),
            (b"\x80\x02", STORAGE),
            (&[&b"\x80\x02"[..], &tensor, &parameter[2..]].concat(), b"h\x01h\x03\x85R"),
        ] {
            let mut bytes = start.to_vec();
            bytes.extend(instruction.iter().cycle().take(20 << 20));
            let problem = Pickle::read(&bytes).unwrap_err();
            assert!(problem.contains("more values"), "{instruction:?}: {problem}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let shared = [&b"\x80\x02}q\x00("[..], b"X\x01\0\0\0hctorch._utils\n_rebuild_tensor_v2\n(", STORAGE].concat();
        let table = [&shared[..], b"K\x03(K\x02t(K\x01t\x89NtRu."].concat();
        let all = b"\x80\x04\x95\0\0\0\0\0\0\0\0]\x94(K\x01M\x02\x01J\xff\xff\xff\xff\x8a\x01\x80I12\nL5L\nF1.5\nG01234567\x8c\x01aV\
            b\nS'c'\nC\x01xN\x88\x89)\x8fe}(\x8c\x01a\x8c\x01b\x93Nd(K\x01l0(K\x011h\0\x85\x86ccollections\nOrderedDict\n](]NNee\x85R}b2N\x92N.";
        assert_eq!(Pickle::read(&table).unwrap().tensors(None)["h"].shape, [2]);
        crate::damage::each(&[&table[..], all], 5_000, |bytes| {
            if let Ok(pickle) = Pickle::read(bytes) {
                let _ = (pickle.tensors(None), pickle.tensors(Some("a")), pickle.texts());
                assert!(pickle.length <= bytes.len());
            }
        });
    }
}
