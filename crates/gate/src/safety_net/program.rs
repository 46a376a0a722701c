//! The program that the kernel asks at each open: as instructions, with places that the running kernel names.
//!
//! It reads, and answers yes or EIO. **Invariant:** nothing outside of the given volumes is refused.

use super::btf::Btf;
use crate::guard::{ALIVE_SIGN, ASKS_BEFORE_CONTENT};
use crate::link::VolumeId;
use crate::sys::bpf::Instruction;

/// Where the kernel keeps what the program looks at, in bytes from the beginning of each structure; and numbers of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// The function of the hook.
    pub(super) hook: u32,
    get_xattr: u32,
    file_inode: u32,
    inode_mode: u32,
    inode_mask: u32,
    inode_file_system: u32,
    file_system_id: u32,
    file_system_mask: u32,
}

impl Places {
    /// # Errors
    /// The name of what this kernel lacks, or has in another form.
    pub(super) fn of(btf: &Btf<'_>) -> Result<Self, &'static str> {
        let function = |name: &'static str| btf.function(name).ok_or(name);
        let field = |structure, name: &'static str, size: u32| {
            let found = btf.field(structure, name).filter(|found| found.size == Some(size));
            found.map(|found| found.offset).ok_or(name)
        };
        // Kernels that let programs write attributes with the record's prefix are those that let them read them.
        function("bpf_set_dentry_xattr")?;
        Ok(Self {
            hook: function("bpf_lsm_file_open")?,
            get_xattr: function("bpf_get_file_xattr")?,
            file_inode: field("file", "f_inode", 8)?,
            inode_mode: field("inode", "i_mode", 2)?,
            inode_mask: field("inode", "i_fsnotify_mask", 4)?,
            inode_file_system: field("inode", "i_sb", 8)?,
            file_system_id: field("super_block", "s_uuid", 16)?,
            file_system_mask: field("super_block", "s_fsnotify_mask", 4)?,
        })
    }
}

/// Registers: 0 answers of calls, 1 to 5 arguments, 6 to 9 kept over calls, 10 the end of the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const FILE: u8 = 6;
const INODE: u8 = 7;
const FILE_SYSTEM: u8 = 8;
const STACK: u8 = 10;

/// Operation codes of `linux/bpf.h` and `linux/bpf_common.h`.
const LOAD_16: u8 = 0x69;
const LOAD_32: u8 = 0x61;
const LOAD_64: u8 = 0x79;
const WIDE: u8 = 0x18;
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbf;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const JUMP: u8 = 0x05;
const IF_EQUAL: u8 = 0x15;
const IF_NOT_EQUAL: u8 = 0x55;
const IF_ANY_BIT: u8 = 0x45;
const IF_EQUAL_32: u8 = 0x16;
const IF_EQUAL_TO_REGISTER: u8 = 0x1d;
const IF_NOT_EQUAL_TO_REGISTER: u8 = 0x5d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// In place of a register: the number is a map's descriptor, and its first value is meant; or that of one of the kernel's functions.
const MAP_VALUE: u8 = 2;
const KERNEL_FUNCTION: u8 = 2;
const DYNPTR_FROM_MEM: i32 = 197;
/// Place in the stack, from its end, for what says where an attribute's value is to go.
const VALUE: i32 = -16;

const KIND_BITS: i32 = 0xf000;
const REGULAR: i32 = 0x8000;

/// What the program is made of while its jumps are still open.
#[derive(Debug, Default)]
struct Text {
    instructions: Vec<Instruction>,
    /// Jumps to where everybody goes on.
    to_allowed: Vec<usize>,
}

/// Bytes that the value of the record may take in the program's hands; only whether there is one matters.
pub(super) const SCRATCH_BYTES: u32 = 256;

/// Descriptors of maps, which the caller keeps open until the kernel has the program.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Maps {
    /// With the name of the record's attribute.
    pub(super) name: i32,
    /// With [`SCRATCH_BYTES`] that can be written.
    pub(super) scratch: i32,
}

/// The program. None for more volumes than a jump can pass over, which are thousands.
pub(super) fn program(places: &Places, volumes: &[VolumeId], maps: Maps) -> Option<Vec<Instruction>> {
    let mut text = Text::default();
    // The hook's arguments. Who was refused by another module is not asked about here any more.
    text.load(LOAD_64, FILE, R1, 0)?;
    text.load(LOAD_64, INODE, FILE, places.file_inode)?;
    text.load(LOAD_16, R1, INODE, places.inode_mode)?;
    text.put(AND, R1, 0, 0, KIND_BITS);
    text.allow_if(IF_NOT_EQUAL, R1, REGULAR);
    text.load(LOAD_64, FILE_SYSTEM, INODE, places.inode_file_system)?;
    text.only_on(places, volumes)?;
    text.unless_guarded(places)?;
    text.unless_whole(places, maps);
    text.finish()
}

impl Text {
    /// Whoever opens something elsewhere goes on.
    fn only_on(&mut self, places: &Places, volumes: &[VolumeId]) -> Option<()> {
        self.load(LOAD_64, R1, FILE_SYSTEM, places.file_system_id)?;
        self.load(LOAD_64, R2, FILE_SYSTEM, places.file_system_id + 8)?;
        let mut found = Vec::new();
        for VolumeId(id) in volumes {
            let (first, second) = id.split_at(8);
            let half = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
            self.wide(R3, half(first));
            // Over the other half.
            self.put(IF_NOT_EQUAL_TO_REGISTER, R1, R3, 3, 0);
            self.wide(R4, half(second));
            found.push(self.put(IF_EQUAL_TO_REGISTER, R2, R4, 0, 0));
        }
        let away = self.put(JUMP, 0, 0, 0, 0);
        self.to_allowed.push(away);
        self.land(&found)
    }

    /// Whoever opens what a group asks about goes on: he waits there, or is one of those who need not.
    fn unless_guarded(&mut self, places: &Places) -> Option<()> {
        self.load(LOAD_32, R1, INODE, places.inode_mask)?;
        self.allow_if(IF_ANY_BIT, R1, ASKS_BEFORE_CONTENT);
        self.load(LOAD_32, R1, FILE_SYSTEM, places.file_system_mask)?;
        self.allow_if(IF_ANY_BIT, R1, ASKS_BEFORE_CONTENT);
        self.put(AND, R1, 0, 0, ALIVE_SIGN);
        self.allow_if(IF_EQUAL, R1, ALIVE_SIGN);
        Some(())
    }

    /// Whoever opens a file that certainly has no record goes on.
    fn unless_whole(&mut self, places: &Places, maps: Maps) {
        self.map_value(R1, maps.scratch);
        self.put(MOVE, R2, 0, 0, SCRATCH_BYTES.cast_signed());
        self.put(MOVE, R3, 0, 0, 0);
        self.put(COPY, R4, STACK, 0, 0);
        self.put(ADD, R4, 0, 0, VALUE);
        self.put(CALL, 0, 0, 0, DYNPTR_FROM_MEM);
        self.put(COPY, R1, FILE, 0, 0);
        self.map_value(R2, maps.name);
        self.put(COPY, R3, STACK, 0, 0);
        self.put(ADD, R3, 0, 0, VALUE);
        self.put(CALL, 0, KERNEL_FUNCTION, 0, places.get_xattr.cast_signed());
        self.allow_if(IF_EQUAL_32, R0, -libc::ENODATA);
    }

    fn finish(mut self) -> Option<Vec<Instruction>> {
        self.put(MOVE, R0, 0, 0, -libc::EIO);
        self.put(EXIT, 0, 0, 0, 0);
        let allowed = std::mem::take(&mut self.to_allowed);
        self.land(&allowed)?;
        self.put(MOVE, R0, 0, 0, 0);
        self.put(EXIT, 0, 0, 0, 0);
        Some(self.instructions)
    }

    fn load(&mut self, code: u8, to: u8, from: u8, offset: u32) -> Option<()> {
        self.put(code, to, from, i16::try_from(offset).ok()?, 0);
        Some(())
    }

    fn wide(&mut self, to: u8, number: u64) {
        self.put(WIDE, to, 0, 0, number as u32 as i32);
        self.put(0, 0, 0, 0, (number >> 32) as u32 as i32);
    }

    fn map_value(&mut self, to: u8, map: i32) {
        self.put(WIDE, to, MAP_VALUE, 0, map);
        self.put(0, 0, 0, 0, 0);
    }

    fn allow_if(&mut self, code: u8, register: u8, number: i32) {
        let jump = self.put(code, register, 0, 0, number);
        self.to_allowed.push(jump);
    }

    /// Lets these jumps end at what comes next.
    fn land(&mut self, jumps: &[usize]) -> Option<()> {
        for jump in jumps {
            let over = self.instructions.len() - jump - 1;
            self.instructions.get_mut(*jump)?.offset = i16::try_from(over).ok()?;
        }
        Some(())
    }

    /// Answers where it stands.
    fn put(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> usize {
        // Four bits each, in the order in which this machine has them.
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.instructions.push(Instruction { code, registers, offset, immediate });
        self.instructions.len() - 1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PLACES: Places = Places {
        hook: 7,
        get_xattr: 9,
        file_inode: 32,
        inode_mode: 0,
        inode_mask: 0x160,
        inode_file_system: 0x28,
        file_system_id: 0x310,
        file_system_mask: 0x300,
    };

    fn is_jump(one: &Instruction) -> bool {
        matches!(one.code & 7, 5 | 6) && !matches!(one.code, CALL | EXIT)
    }

    #[test]
    fn every_jump_goes_forward_to_an_instruction() {
        for count in [0, 1, 3, 200] {
            let volumes: Vec<_> = (0..count).map(|at| VolumeId([at; 16])).collect();
            let text = program(&PLACES, &volumes, Maps { name: 3, scratch: 4 }).unwrap();
            for (at, one) in text.iter().enumerate().filter(|(_, one)| is_jump(one)) {
                let to = at + 1 + usize::try_from(one.offset).unwrap();
                // The second half of a wide number is none.
                assert!(to < text.len() && text[to].code != 0, "{at} to {to} with {count} volumes");
            }
            let ends: Vec<_> =
                text.iter().enumerate().filter(|(_, one)| one.code == EXIT).map(|(at, _)| text[at - 1].immediate).collect();
            assert_eq!(ends, [-libc::EIO, 0]);
        }
    }

    #[test]
    fn more_volumes_than_a_jump_passes_over_are_refused() {
        assert_eq!(program(&PLACES, &vec![VolumeId([1; 16]); 6_000], Maps::default()), None);
    }

    #[test]
    fn other_volumes_and_maps_make_another_text() {
        let text = |byte, name| program(&PLACES, &[VolumeId([byte; 16])], Maps { name, scratch: 4 }).unwrap();
        assert_eq!(text(1, 3), text(1, 3));
        assert_ne!(text(1, 3), text(2, 3));
        assert_ne!(text(1, 3), text(1, 5));
    }

    /// What the program looks at is there where a kernel describes itself at all.
    #[test]
    fn this_machines_kernel_has_all_places() {
        let Ok(types) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let btf = Btf::read(&types).unwrap();
        match Places::of(&btf) {
            Ok(places) => {
                assert!(places.hook > 0 && places.inode_mask != places.inode_mode, "{places:?}");
                assert_eq!(btf.field("super_block", "s_uuid").unwrap().size, Some(16));
            }
            // A kernel that is older, or built without security hooks for programs.
            Err(name) => assert!(name.starts_with("bpf_"), "{name}"),
        }
    }
}
