//! Random ids. The only place of the agent that draws chance.

/// 128 random bits.
pub(crate) fn fresh_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the kernel's random numbers do not fail after boot");
    id
}

/// 128 random bits as text.
pub(crate) fn fresh_text() -> String {
    fresh_id().iter().map(|byte| format!("{byte:02x}")).collect()
}
