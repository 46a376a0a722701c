//! The service's clock and its random numbers: the only place that reads either.
//!
//! Rules get times and ids as values.
//!
//! **Invariant:** an id is drawn from the system's generator; none repeats.

use std::time::{SystemTime, UNIX_EPOCH};

use isotherm_api::Code;

use crate::fault::Fault;

/// Milliseconds since 1970; 0 on a machine whose clock stands before that.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Random bytes for a new id.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Fault::new(Code::Internal, format!("Random numbers cannot be drawn: {error}")))?;
    Ok(bytes)
}
