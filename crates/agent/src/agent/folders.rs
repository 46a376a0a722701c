//! Where an agent keeps things, and where an endpoint may not lie.
//!
//! **Invariant:** nothing here changes a folder of a user.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use isotherm_api::folder::{FORMAT_FILE, FORMAT_PREFIX};
use isotherm_core::ids::EndpointId;

/// Where the state of an endpoint is kept.
pub(super) fn state_of(state: &Path, id: EndpointId) -> PathBuf {
    state.join("endpoints").join(id.to_string())
}

/// Whether two folders are one, or one holds the other.
pub(super) fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// The data folder of a service that a folder is or lies in: what is synced there would grow by being synced.
pub(super) fn service_data(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real.ancestors().find(|folder| is_service_data(folder)).map(Path::to_owned)
}

fn is_service_data(folder: &Path) -> bool {
    let file = folder.join(FORMAT_FILE);
    // Opening a pipe that somebody has put there would wait for ever.
    if !std::fs::symlink_metadata(&file).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut begin = [0; FORMAT_PREFIX.len()];
    std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == *FORMAT_PREFIX.as_bytes()
}

/// Makes a folder that only this user can look into.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
