//! What the running kernel says of its own types (BTF): where a field stands, and which number a function has.
//!
//! **Invariant:** any bytes give an answer or none; nothing here panics, loops for ever, or takes more memory than the bytes do.

use std::collections::BTreeSet;

/// Beginning of the bytes.
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Bytes of a type before what its kind adds, and of one member.
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
/// Structures without a name inside of one, and names of types for each other, at most.
const DEPTH_MAX: usize = 64;

const INT: u8 = 1;
const PTR: u8 = 2;
const STRUCT: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const FUNC: u8 = 12;
const FLOAT: u8 = 16;
const ENUM64: u8 = 19;
/// Kinds that stand for another type of the same size: typedef, volatile, const, restrict, and a tag.
const NAMES_FOR_OTHERS: [u8; 5] = [8, 9, 10, 11, 18];

/// A kernel's types.
#[derive(Debug)]
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`. The first one has the number 1.
    begins: Vec<u32>,
}

/// A field of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Bytes before it.
    pub(crate) offset: u32,
    /// Its own bytes; none where that takes more than a number of a type.
    pub(crate) size: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    /// Members, parameters and the like.
    entries: usize,
    /// Whether members say how many bits they have.
    has_bits: bool,
    /// Bytes, or the number of the type that it stands for.
    size_or_type: u32,
}

impl<'a> Btf<'a> {
    /// None where it is not understood.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let is_it = u16_at(bytes, 0)? == MAGIC && *bytes.get(2)? == VERSION;
        let body = bytes.get(u32_at(bytes, 4)? as usize..).filter(|_| is_it)?;
        let part = |at: usize| {
            let (offset, len) = (u32_at(bytes, at)? as usize, u32_at(bytes, at + 4)? as usize);
            body.get(offset..offset.checked_add(len)?)
        };
        let (types, strings) = (part(8)?, part(16)?);
        let mut begins = Vec::new();
        let mut at = 0;
        while at < types.len() {
            begins.push(u32::try_from(at).ok()?);
            at += TYPE_BYTES + bytes_behind(type_at(types, at)?)?;
        }
        Some(Self { types, strings, begins })
    }

    /// How many there are.
    #[cfg(fuzzing)]
    pub(crate) fn len(&self) -> usize {
        self.begins.len()
    }

    /// The number of a function.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        self.number_of(FUNC, name)
    }

    /// A field of a structure, also inside of members without a name. A field that has only some bits of a byte is none.
    pub(crate) fn field(&self, structure: &str, name: &str) -> Option<Field> {
        let number = self.number_of(STRUCT, structure)?;
        self.field_in(number, name, &mut BTreeSet::new())
    }

    /// `seen` are the structures around it, and those in which it was not found.
    fn field_in(&self, number: u32, name: &str, seen: &mut BTreeSet<u32>) -> Option<Field> {
        let at = self.begin_of(number)?;
        let whole = type_at(self.types, at)?;
        if seen.len() > DEPTH_MAX || !seen.insert(number) || !matches!(whole.kind, STRUCT | UNION) {
            return None;
        }
        (0..whole.entries).find_map(|member| {
            let at = at + TYPE_BYTES + member * MEMBER_BYTES;
            let (label, kind, place) = (u32_at(self.types, at)?, u32_at(self.types, at + 4)?, u32_at(self.types, at + 8)?);
            let (bits, bit_size) = if whole.has_bits { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            let offset = bits / 8;
            if self.is_called(label, name) {
                return (bits % 8 == 0 && bit_size == 0).then(|| Field { offset, size: self.size_of(kind) });
            }
            let inner = if self.is_called(label, "") { self.field_in(self.meant(kind)?, name, seen)? } else { return None };
            Some(Field { offset: offset.checked_add(inner.offset)?, ..inner })
        })
    }

    /// Bytes of a number, a pointer or a structure.
    fn size_of(&self, number: u32) -> Option<u32> {
        let meant = type_at(self.types, self.begin_of(self.meant(number)?)?)?;
        match meant.kind {
            INT | ENUM | ENUM64 | FLOAT | STRUCT | UNION => Some(meant.size_or_type),
            PTR => Some(size_of::<u64>() as u32),
            _ => None,
        }
    }

    /// The type behind other names for it.
    fn meant(&self, number: u32) -> Option<u32> {
        let mut number = number;
        for _ in 0..DEPTH_MAX {
            let named = type_at(self.types, self.begin_of(number)?)?;
            if !NAMES_FOR_OTHERS.contains(&named.kind) {
                return Some(number);
            }
            number = named.size_or_type;
        }
        None
    }

    fn number_of(&self, kind: u8, name: &str) -> Option<u32> {
        let found = self.begins.iter().position(|begin| {
            type_at(self.types, *begin as usize).is_some_and(|found| found.kind == kind && self.is_called(found.name, name))
        })?;
        u32::try_from(found + 1).ok()
    }

    fn begin_of(&self, number: u32) -> Option<usize> {
        Some(*self.begins.get((number as usize).checked_sub(1)?)? as usize)
    }

    fn is_called(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|behind| behind.first() == Some(&0))
    }
}

fn type_at(types: &[u8], at: usize) -> Option<Type> {
    let (name, info, size_or_type) = (u32_at(types, at)?, u32_at(types, at + 4)?, u32_at(types, at + 8)?);
    // Newer kernels count entries with bits that were zero before.
    let entries = (info & 0xff_ffff) as usize;
    Some(Type { name, kind: (info >> 24 & 0x7f) as u8, entries, has_bits: info >> 31 != 0, size_or_type })
}

/// What the kind of a type adds to it, in bytes.
fn bytes_behind(of: Type) -> Option<usize> {
    let (once, each) = match of.kind {
        INT | 14 | 17 => (4, 0),
        3 => (12, 0),
        STRUCT | UNION | 15 | ENUM64 => (0, MEMBER_BYTES),
        ENUM | 13 => (0, 8),
        PTR | 7 | FUNC | FLOAT => (0, 0),
        other if NAMES_FOR_OTHERS.contains(&other) => (0, 0),
        _ => return None,
    };
    Some(once + of.entries * each)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Types as a kernel writes them: strings are added once each.
    #[derive(Default)]
    pub(crate) struct Written {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Written {
        pub(crate) fn new() -> Self {
            Self { strings: vec![0], ..Self::default() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        /// Answers its number.
        pub(crate) fn add(&mut self, kind: u8, name: &str, size_or_type: u32, behind: &[u32]) -> u32 {
            let name = self.name(name);
            let entries = if matches!(kind, STRUCT | UNION) { behind.len() as u32 / 3 } else { 0 };
            let head = [name, u32::from(kind) << 24 | entries, size_or_type];
            self.types.extend(head.iter().chain(behind).flat_map(|number| number.to_ne_bytes()));
            self.count += 1;
            self.count
        }

        /// A structure, with name, type and place in bits of each member.
        pub(crate) fn structure(&mut self, kind: u8, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
            let behind: Vec<u32> = members.iter().flat_map(|(label, of, bits)| [self.name(label), *of, *bits]).collect();
            self.add(kind, name, size, &behind)
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut bytes = [&MAGIC.to_ne_bytes()[..], &[VERSION, 0]].concat();
            bytes.extend([24, 0, types, types, strings].iter().flat_map(|number: &u32| number.to_ne_bytes()));
            [&bytes[..], &self.types, &self.strings].concat()
        }
    }

    fn sample() -> Vec<u8> {
        let mut written = Written::new();
        let int = written.add(INT, "unsigned int", 4, &[32]);
        let named = written.add(8, "u32", int, &[]);
        let constant = written.add(10, "", named, &[]);
        let pointer = written.add(PTR, "", int, &[]);
        let hidden = written.structure(UNION, "", 8, &[("of_union", pointer, 0), ("other", int, 0)]);
        written.structure(STRUCT, "outer", 24, &[("first", constant, 0), ("", hidden, 64), ("last", pointer, 128)]);
        written.add(FUNC, "outer", 0, &[]);
        written.add(FUNC, "a_function", 0, &[]);
        written.bytes()
    }

    #[test]
    fn fields_and_functions_are_found() {
        let bytes = sample();
        let btf = Btf::read(&bytes).unwrap();
        let field = |offset, size| Some(Field { offset, size: Some(size) });
        assert_eq!(btf.field("outer", "first"), field(0, 4), "through other names of its type");
        assert_eq!(btf.field("outer", "of_union"), field(8, 8), "inside of a member without a name");
        assert_eq!(btf.field("outer", "last"), field(16, 8));
        assert_eq!(btf.field("outer", "las"), None);
        assert_eq!(btf.field("a_function", "last"), None);
        assert_eq!((btf.function("a_function"), btf.function("outer"), btf.function("first")), (Some(8), Some(7), None));
    }

    #[test]
    fn fields_of_bits_are_none() {
        let mut written = Written::new();
        let int = written.add(INT, "unsigned int", 4, &[32]);
        written.structure(STRUCT, "bits", 4, &[("odd", int, 3), ("whole", int, 0)]);
        let bytes = written.bytes();
        let btf = Btf::read(&bytes).unwrap();
        assert_eq!(btf.field("bits", "odd"), None);
        assert_eq!(btf.field("bits", "whole"), Some(Field { offset: 0, size: Some(4) }));
    }

    #[test]
    fn what_stands_for_itself_has_an_end() {
        let mut written = Written::new();
        written.add(8, "ring", 1, &[]);
        written.structure(STRUCT, "inside", 8, &[("", 2, 0), ("of_ring", 1, 0)]);
        let bytes = written.bytes();
        let btf = Btf::read(&bytes).unwrap();
        assert_eq!(btf.field("inside", "of_ring"), Some(Field { offset: 0, size: None }));
        assert_eq!(btf.field("inside", "missing"), None);
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_none() {
        let bytes = sample();
        for len in 0..bytes.len() {
            if let Some(btf) = Btf::read(&bytes[..len]) {
                btf.field("outer", "last");
            }
        }
        assert!(Btf::read(&bytes[1..]).is_none());
        let mut written = Written::new();
        written.add(33, "of_tomorrow", 0, &[]);
        assert!(Btf::read(&written.bytes()).is_none());
    }
}
