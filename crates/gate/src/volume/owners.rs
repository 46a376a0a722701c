//! Owners by name and by number, remembered for as long as the caller likes.
//!
//! It has no clock: whoever owns the cache clears it now and then. Invariant: only answers are remembered, never
//! failures of the name service; and the name of a number is never forgotten for want of an answer.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use crate::error::{GateError, Result};
use crate::sys::accounts;

/// Most entries of each table; a bound, not a tuned size. Answers are dropped then and asked for again, further last
/// names are not kept.
const ENTRIES_MAX: usize = 65_536;

/// An account by its number on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// A user number.
    User(u32),
    /// A group number.
    Group(u32),
}

/// Names of users and of groups are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    User,
    Group,
}

/// A cache of names and numbers of users and groups, and the last name that each number had.
///
/// A name service that cannot be reached may say that there is no such account. The name that a number had before
/// stands for it then, for as long as the service names nobody else.
#[derive(Debug, Default)]
pub struct Owners {
    names: BTreeMap<Account, Option<String>>,
    ids: BTreeMap<(Sort, String), Option<u32>>,
    last_names: BTreeMap<Account, String>,
    /// Numbers of `last_names` that were not taken yet.
    learned: BTreeSet<Account>,
}

impl Owners {
    /// An empty cache that knows which names numbers had in earlier runs.
    #[must_use]
    pub fn with_last_names(last_names: BTreeMap<Account, String>) -> Self {
        Self { last_names, ..Self::default() }
    }

    /// Names of a user and a group number; `None` for numbers that never had a name (or one that is not UTF-8).
    ///
    /// # Errors
    /// Failure of the name service, which may pass.
    pub fn owner_names(&mut self, uid: u32, gid: u32) -> Result<(Option<String>, Option<String>)> {
        Ok((self.name(Account::User(uid))?, self.name(Account::Group(gid))?))
    }

    /// Numbers of a user and a group name; `None` for names that this machine never knew.
    ///
    /// # Errors
    /// Failure of the name service, which may pass.
    pub fn owner_ids(&mut self, user: &str, group: &str) -> Result<(Option<u32>, Option<u32>)> {
        Ok((self.id(user, Sort::User)?, self.id(group, Sort::Group)?))
    }

    /// Forgets all answers, so that changes of accounts are seen; the last name of each number stays.
    pub fn clear(&mut self) {
        (self.names, self.ids) = Default::default();
    }

    /// Names that numbers were found to have since this was asked last, for [`Self::with_last_names`] of a later run.
    pub fn take_learned(&mut self) -> Vec<(Account, String)> {
        let learned = std::mem::take(&mut self.learned);
        learned.into_iter().filter_map(|account| Some((account, self.last_names.get(&account)?.clone()))).collect()
    }

    fn name(&mut self, account: Account) -> Result<Option<String>> {
        if let Some(known) = self.names.get(&account) {
            return Ok(known.clone());
        }
        let answer = ask_name(account)?.inspect(|name| self.learn(account, name));
        let name = answer.or_else(|| self.last_names.get(&account).cloned());
        remember(&mut self.names, account, name.clone());
        Ok(name)
    }

    fn learn(&mut self, account: Account, name: &str) {
        let is_new = self.last_names.get(&account).is_none_or(|last| last != name);
        if is_new && (self.last_names.len() < ENTRIES_MAX || self.last_names.contains_key(&account)) {
            self.last_names.insert(account, name.to_owned());
            self.learned.insert(account);
        }
    }

    /// The number of a user's or group's name.
    fn id(&mut self, name: &str, sort: Sort) -> Result<Option<u32>> {
        let key = (sort, name.to_owned());
        if let Some(known) = self.ids.get(&key) {
            return Ok(*known);
        }
        let answer = match sort {
            Sort::User => failed(accounts::user_id(name), name),
            Sort::Group => failed(accounts::group_id(name), name),
        };
        let id = match answer? {
            Some(id) => Some(id),
            None => self.last_id(name, sort)?,
        };
        remember(&mut self.ids, key, id);
        Ok(id)
    }

    /// The number that had a name, where the name service says that it has none and gives the number to nobody else.
    fn last_id(&mut self, name: &str, sort: Sort) -> Result<Option<u32>> {
        let had = self.last_names.iter().filter(|(_, last)| *last == name).map(|(account, _)| *account);
        let had: Vec<Account> = had.collect();
        for account in had {
            let (of, id) = match account {
                Account::User(id) => (Sort::User, id),
                Account::Group(id) => (Sort::Group, id),
            };
            if of == sort && self.name(account)?.as_deref() == Some(name) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

fn ask_name(account: Account) -> Result<Option<String>> {
    match account {
        Account::User(uid) => failed(accounts::user_name(uid), &uid.to_string()),
        Account::Group(gid) => failed(accounts::group_name(gid), &gid.to_string()),
    }
}

fn failed<T>(answer: std::result::Result<T, Errno>, account: &str) -> Result<T> {
    answer.map_err(|errno| GateError::from_errno(errno, "look up account", account))
}

fn remember<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: V) {
    if table.len() >= ENTRIES_MAX {
        table.clear();
    }
    table.insert(key, value);
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
        assert!(owners.names.is_empty());
        assert_eq!(owners.take_learned(), [(Account::User(0), "root".to_owned()), (Account::Group(0), "root".to_owned())]);
        assert_eq!(owners.take_learned(), []);
    }

    #[test]
    fn a_number_keeps_its_last_name_until_somebody_else_has_it() {
        let (away, taken) = (3_999_999_999, 0);
        let last = [
            (Account::User(away), "alice".to_owned()),
            (Account::Group(away), "staff of alice".to_owned()),
            (Account::User(taken), "bob who left".to_owned()),
        ];
        let mut owners = Owners::with_last_names(last.into());
        assert_eq!(owners.owner_names(away, away).unwrap(), (Some("alice".to_owned()), Some("staff of alice".to_owned())));
        assert_eq!(owners.owner_ids("alice", "staff of alice").unwrap(), (Some(away), Some(away)));
        assert_eq!(owners.owner_ids("bob who left", "alice").unwrap(), (None, None));
        assert_eq!(owners.owner_names(taken, away).unwrap().0, Some("root".to_owned()));
        assert_eq!(owners.take_learned(), [(Account::User(0), "root".to_owned())]);
    }
}
