//! Owners by name and by number, remembered for as long as the caller likes.
//!
//! It has no clock: whoever owns the cache clears it now and then. Invariant: only answers are remembered, never
//! failures of the name service.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::error::{GateError, Result};
use crate::sys::accounts;

/// Most entries of each of the four tables before all are dropped; a bound, not a tuned size.
const ENTRIES_MAX: usize = 65_536;

/// A cache of names and numbers of users and groups.
#[derive(Debug, Default)]
pub struct Owners {
    user_names: BTreeMap<u32, Option<String>>,
    group_names: BTreeMap<u32, Option<String>>,
    user_ids: BTreeMap<String, Option<u32>>,
    group_ids: BTreeMap<String, Option<u32>>,
}

impl Owners {
    /// Names of a user and a group number; `None` for numbers without a name (or with one that is not UTF-8).
    ///
    /// # Errors
    /// Failure of the name service, which may pass.
    pub fn owner_names(&mut self, uid: u32, gid: u32) -> Result<(Option<String>, Option<String>)> {
        let user = remembered(&mut self.user_names, &uid, |uid| accounts::user_name(*uid))?;
        let group = remembered(&mut self.group_names, &gid, |gid| accounts::group_name(*gid))?;
        Ok((user, group))
    }

    /// Numbers of a user and a group name; `None` for names that this machine does not know.
    ///
    /// # Errors
    /// Failure of the name service, which may pass.
    pub fn owner_ids(&mut self, user: &str, group: &str) -> Result<(Option<u32>, Option<u32>)> {
        let uid = remembered(&mut self.user_ids, user, accounts::user_id)?;
        let gid = remembered(&mut self.group_ids, group, accounts::group_id)?;
        Ok((uid, gid))
    }

    /// Forgets everything, so that changes of accounts are seen.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn remembered<K, Q, V>(
    table: &mut BTreeMap<K, Option<V>>,
    key: &Q,
    ask: impl FnOnce(&Q) -> std::result::Result<Option<V>, Errno>,
) -> Result<Option<V>>
where
    K: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ToOwned<Owned = K> + std::fmt::Display + ?Sized,
    V: Clone,
{
    if let Some(known) = table.get(key) {
        return Ok(known.clone());
    }
    let answer = ask(key).map_err(|errno| GateError::from_errno(errno, "look up account", key.to_string()))?;
    if table.len() >= ENTRIES_MAX {
        table.clear();
    }
    table.insert(key.to_owned(), answer.clone());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn root_has_a_name_and_strangers_have_none() {
        let mut owners = Owners::default();
        for _ in 0..2 {
            assert_eq!(owners.owner_names(0, 0).unwrap(), (Some("root".to_owned()), Some("root".to_owned())));
            assert_eq!(owners.owner_ids("root", "root").unwrap(), (Some(0), Some(0)));
            assert_eq!(owners.owner_names(3_999_999_999, 3_999_999_999).unwrap(), (None, None));
            assert_eq!(owners.owner_ids("no such user here", "zero\0byte").unwrap(), (None, None));
        }
        owners.clear();
        assert!(owners.user_names.is_empty());
    }
}
