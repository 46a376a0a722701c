//! What fuzz targets call beside the public surface: decoders of what the agent keeps and of what others keep in attributes.
//! Only builds for fuzzing have it.

use isotherm_core::plan::Step;
use isotherm_gate::{GateError, Owners};

use crate::engine::placing;
use crate::volume::{acl, attributes};

/// The steps of a kept value.
#[must_use]
pub fn kept_steps(bytes: &[u8]) -> Vec<Step> {
    placing::kept_steps(bytes)
}

/// An access list in the share's form.
///
/// # Errors
/// The name service fails.
pub fn list_to_share(value: &[u8], owners: &mut Owners) -> Result<Vec<u8>, GateError> {
    acl::to_share(value, owners)
}

/// An access list in the kernel's form.
///
/// # Errors
/// The name service fails.
pub fn list_to_kernel(value: &[u8], owners: &mut Owners) -> Result<Vec<u8>, GateError> {
    acl::to_kernel(value, owners)
}

/// DOS attributes of a file whose content is here.
#[must_use]
pub fn attributes_here(value: &[u8]) -> Vec<u8> {
    attributes::here(value)
}

/// DOS attributes of a stub.
#[must_use]
pub fn attributes_away(value: &[u8]) -> Vec<u8> {
    attributes::away(value)
}
