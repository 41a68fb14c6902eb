//! The pickle machine, reduced to what describes tensors.
//!
//! Owns: the opcodes that `torch.save` writes (protocols 2 to 5) over values that are only
//! descriptions. Nothing is imported, called or built:
//! applying a listed name yields another description. Names outside the list and opcodes that
//! exist to build objects are refused. Values live in one arena, so a pickle that contains itself
//! is harmless, and memory is bounded by the number of opcodes.

use std::collections::HashMap;

use super::PickleError;
use super::values::{Global, Id, Node, known, shown};

/// Values made by one pickle.
const MAX_NODES: usize = 4 << 20;

/// One pickle being read.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at its open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

type Step<T = ()> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    /// A machine at the start of a pickle; more may follow the pickle.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The value of an identifier that this machine gave.
    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id.0 as usize]
    }

    /// All values.
    pub(super) fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// Runs to the end of the pickle and gives its value.
    pub(super) fn run(&mut self) -> Step<Id> {
        loop {
            let [op] = self.array()?;
            if op == b'.' {
                return self.pop();
            }
            self.step(op)?;
        }
    }

    fn step(&mut self, op: u8) -> Step {
        match op {
            // PROTO; FRAME is a hint about reading ahead.
            0x80 => match self.array()? {
                [2..=5] => Ok(()),
                [other] => Err(self.malformed(format!("protocol {other} is not read"))),
            },
            0x95 => self.array::<8>().map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                self.bounded(self.marks.len())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => {
                let top = self.pop()?;
                self.stack.push(top);
                self.push_id(top)
            }
            b'N' => self.push(Node::None),
            // NEWTRUE, NEWFALSE
            0x88 | 0x89 => self.push(Node::Other),
            b'G' => self.array::<8>().and_then(|_| self.push(Node::Other)),
            b'J' | b'K' | b'M' | 0x8a | 0x8b => self.integer(op),
            b'X' | 0x8c | 0x8d | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => self.string(op),
            b')' | b't' | 0x85..=0x87 => self.tuple(op),
            b']' | b'l' | b'a' | b'e' => self.list(op),
            b'}' | b'd' | b's' | b'u' => self.dict(op),
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Node::Other),
            0x90 => self.pop_mark().map(|_| ()),
            0x91 => self.pop_mark().and_then(|_| self.push(Node::Other)),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(op),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.node(module), self.node(name)) {
                    (&Node::Str(module), &Node::Str(name)) => self.global(module, name),
                    _ => Err(self.malformed("STACK_GLOBAL without two strings")),
                }
            }
            b'R' => self.reduce(),
            b'b' => self.build(),
            b'Q' => self.storage(),
            _ => Err(self.refused(op)),
        }
    }

    fn integer(&mut self, op: u8) -> Step {
        let value = match op {
            b'J' => i64::from(i32::from_le_bytes(self.array()?)),
            b'K' => i64::from(u8::from_le_bytes(self.array()?)),
            b'M' => i64::from(u16::from_le_bytes(self.array()?)),
            _ => {
                let len = self.length(if op == 0x8a { 1 } else { 4 })?;
                let digits = self.take(len)?;
                // No size of a tensor needs more.
                if len > 8 {
                    return self.push(Node::Other);
                }
                let negative = digits.last().is_some_and(|&top| top & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..len].copy_from_slice(digits);
                i64::from_le_bytes(wide)
            }
        };
        self.push(Node::Int(value))
    }

    fn string(&mut self, op: u8) -> Step {
        let len = self.length(match op {
            0x8c | b'U' | b'C' => 1,
            0x8d | 0x8e | 0x96 => 8,
            _ => 4,
        })?;
        let bytes = self.take(len)?;
        match op {
            // Bytes; no name is one.
            b'B' | b'C' | 0x8e | 0x96 => self.push(Node::Other),
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => self.push(Node::Str(text)),
                Err(_) => Err(self.malformed("a string is not UTF-8")),
            },
        }
    }

    fn tuple(&mut self, op: u8) -> Step {
        let items = match op {
            b')' => Vec::new(),
            b't' => self.pop_mark()?,
            _ => {
                let len = usize::from(op - 0x84);
                self.above_mark(len)?;
                self.cut(self.stack.len() - len)
            }
        };
        self.push(Node::Tuple(items))
    }

    fn list(&mut self, op: u8) -> Step {
        let items = match op {
            b']' => return self.push(Node::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                return self.push(Node::List(items));
            }
            b'a' => vec![self.pop()?],
            _ => self.pop_mark()?,
        };
        let top = self.top()?;
        match &mut self.nodes[top.0 as usize] {
            Node::List(list) => list.extend(items),
            _ => return Err(self.malformed("items are appended to something that is no list")),
        }
        Ok(())
    }

    fn dict(&mut self, op: u8) -> Step {
        let items = match op {
            b'}' => return self.push(Node::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.pop_mark()?,
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.malformed("a dict has a key without a value"));
        }
        let pairs = pairs.iter().map(|&[key, value]| (key, value));
        if op == b'd' {
            return self.push(Node::Dict(pairs.collect()));
        }
        let top = self.top()?;
        match &mut self.nodes[top.0 as usize] {
            Node::Dict(dict) => dict.extend(pairs),
            _ => return Err(self.malformed("items are set on something that is no dict")),
        }
        Ok(())
    }

    fn memo(&mut self, op: u8) -> Step {
        let slot = match op {
            b'q' | b'h' => u32::from(u8::from_le_bytes(self.array()?)),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            // MEMOIZE: at most one per opcode, and opcodes are fewer than 2^32.
            _ => self.memo.len() as u32,
        };
        if matches!(op, b'h' | b'j') {
            return match self.memo.get(&slot) {
                Some(&id) => self.push_id(id),
                None => Err(self.malformed(format!("nothing is remembered as {slot}"))),
            };
        }
        let top = self.top()?;
        self.memo.insert(slot, top);
        self.bounded(self.memo.len())
    }

    fn global(&mut self, module: &str, name: &str) -> Step {
        match known(module, name) {
            Some(global) => self.push(Node::Global(global)),
            None => Err(PickleError::Code(format!("the name {}.{}", shown(module), shown(name)))),
        }
    }

    /// Applies a listed name to its arguments, which yields another description.
    fn reduce(&mut self) -> Step {
        let (args, callee) = (self.pop()?, self.pop()?);
        let (&Node::Global(global), Node::Tuple(items)) = (self.node(callee), self.node(args)) else {
            return Err(PickleError::Code("a call of something that is no listed name".into()));
        };
        let node = match (global, items.as_slice()) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            // As Python 2 wrote it: a list of pairs.
            (Global::OrderedDict, &[pairs]) => Node::Dict(self.pairs(pairs)?),
            (Global::RebuildParameter, &[tensor, ..]) => return self.push_id(tensor),
            (Global::RebuildTensor | Global::RebuildTensorV2 | Global::RebuildTensorV3, _) => {
                Node::Tensor { rebuild: global, args }
            }
            (Global::Inert, _) => Node::Other,
            _ => return Err(PickleError::Code(format!("a call of {global:?} with unusual arguments"))),
        };
        self.push(node)
    }

    fn pairs(&self, id: Id) -> Step<Vec<(Id, Id)>> {
        let Node::List(list) = self.node(id) else {
            return Err(self.malformed("an OrderedDict is made of something that is no list"));
        };
        let pair = |id: &Id| match self.node(*id) {
            Node::List(pair) | Node::Tuple(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
            _ => None,
        };
        list.iter()
            .map(|id| pair(id).map(|[key, value]| (key, value)))
            .collect::<Option<_>>()
            .ok_or_else(|| self.malformed("an OrderedDict is made of something that is no pair"))
    }

    /// Attributes of an OrderedDict (`_metadata` of a state dict) are dropped; nothing else has any.
    fn build(&mut self) -> Step {
        let (state, object) = (self.pop()?, self.top()?);
        match (self.node(object), self.node(state)) {
            (Node::Dict(_), Node::Dict(_)) => Ok(()),
            (other, _) => {
                Err(PickleError::Code(format!("a BUILD that sets the state of {}", other.describe())))
            }
        }
    }

    /// A persistent identifier: `('storage', type, key, location, numel[, view])`.
    fn storage(&mut self) -> Step {
        let id = self.pop()?;
        let bad = |what: &str| Err(self.malformed(format!("a persistent identifier {what}")));
        let Node::Tuple(items) = self.node(id) else {
            return bad("is no tuple");
        };
        let Some((&[tag, kind, key, _, numel], views)) = items.split_first_chunk() else {
            return bad("has an unusual length");
        };
        if self.node(tag).as_str() != Some("storage") {
            return bad("names no storage");
        }
        let dtype = match self.node(kind) {
            Node::Global(Global::Storage(dtype)) => Some(*dtype),
            Node::Global(Global::UntypedStorage) => None,
            _ => return bad("has something else than a storage type"),
        };
        match views {
            [] => {}
            &[view] if matches!(self.node(view), Node::None) => {}
            _ => return bad("is a view of another storage, which is not read"),
        }
        match (self.node(key), self.node(numel)) {
            (&Node::Str(key), &Node::Int(numel)) => self.push(Node::Storage { key, dtype, numel }),
            _ => bad("lacks a key or a size"),
        }
    }

    fn refused(&mut self, op: u8) -> PickleError {
        let name = match op {
            b'i' => {
                return match (self.line(), self.line()) {
                    (Ok(module), Ok(name)) => {
                        PickleError::Code(format!("an INST of {}.{}", shown(module), shown(name)))
                    }
                    (Err(error), _) | (_, Err(error)) => error,
                };
            }
            b'o' => "the opcode OBJ, which builds an object",
            0x81 => "the opcode NEWOBJ, which builds an object",
            0x92 => "the opcode NEWOBJ_EX, which builds an object",
            0x82..=0x84 => "the opcode EXT, which imports a registered name",
            b'P' => "the opcode PERSID, which names an object outside",
            0x97 | 0x98 => "an out-of-band buffer",
            b'I' | b'L' | b'F' | b'S' | b'V' | b'g' | b'p' => {
                return self.malformed(format!("the text opcode '{}' of protocol 0 is not read", op as char));
            }
            _ => return self.malformed(format!("{op:#04x} is no opcode")),
        };
        PickleError::Code(name.to_owned())
    }

    fn push(&mut self, node: Node<'a>) -> Step {
        self.bounded(self.nodes.len() + 1)?;
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Step {
        self.stack.push(id);
        self.bounded(self.stack.len())
    }

    fn bounded(&self, len: usize) -> Step {
        if len > MAX_NODES {
            return Err(PickleError::TooLarge { what: "values in its pickle", limit: MAX_NODES });
        }
        Ok(())
    }

    /// At least `len` values lie above the innermost mark.
    fn above_mark(&self, len: usize) -> Step {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() - floor < len {
            return Err(self.malformed("the stack is empty"));
        }
        Ok(())
    }

    fn pop(&mut self) -> Step<Id> {
        self.above_mark(1)?;
        Ok(self.stack.pop().expect("a value lies above the mark"))
    }

    fn top(&self) -> Step<Id> {
        self.above_mark(1)?;
        Ok(*self.stack.last().expect("a value lies above the mark"))
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(floor) => Ok(self.cut(floor)),
            None => Err(self.malformed("the stack has no mark")),
        }
    }

    /// Takes the values above a height. Not `split_off`, which keeps the capacity of the whole stack.
    fn cut(&mut self, floor: usize) -> Vec<Id> {
        let items = self.stack[floor..].to_vec();
        self.stack.truncate(floor);
        items
    }

    /// A length of 1, 4 or 8 bytes.
    fn length(&mut self, width: usize) -> Step<usize> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| self.malformed("a length is too large"))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(1024).position(|&b| b == b'\n');
        let line = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        match line {
            Some(line) => {
                self.at += line.len() + 1;
                Ok(line)
            }
            None => Err(self.malformed("a name does not end")),
        }
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        match self.bytes[self.at..].get(..len) {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => Err(self.malformed("it ends early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn malformed(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Pickle { at: self.at, reason: reason.into() }
    }
}
