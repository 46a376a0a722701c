//! The numbers in `docs/format.md` are those of the code.

use isotherm_core::content::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, HOLE_MIN, manifest, pack};

const PAGE: &str = include_str!("../../../docs/format.md");

#[test]
fn numbers_agree() {
    let rows = [
        ("CHUNK_MIN", CHUNK_MIN as u64),
        ("CHUNK_AVERAGE", CHUNK_AVERAGE as u64),
        ("CHUNK_MAX", CHUNK_MAX as u64),
        ("HOLE_MIN", HOLE_MIN),
        ("LEAF_MAX", manifest::LEAF_MAX as u64),
        ("PARTS_MAX", manifest::PARTS_MAX as u64),
        ("LEN_MAX", manifest::LEN_MAX),
        ("PACK_TARGET", pack::PACK_TARGET as u64),
        ("PACK_MAX", pack::PACK_MAX as u64),
        ("ENTRIES_MAX", pack::ENTRIES_MAX as u64),
        ("ZSTD_LEVEL", pack::ZSTD_LEVEL as u64),
    ];
    for (name, value) in rows {
        let row = format!("| `{name}` | {value} |");
        assert!(PAGE.contains(&row), "the page has no row {row}");
    }
}
